"""Writes results of images and frames as JSON, JSON lines, CSV, a COCO data set, YOLO labels or Parquet.

Each writer takes results one by one and keeps none in memory. A file appears whole or not at all; after an error the
old one is still in place. Boxes are written as the server returns them, except in COCO and YOLO, where they are clipped
to the image.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ssd_triton.common.detections import Detections
from ssd_triton.common.files import atomic_output
from ssd_triton.common.result_format import ResultFormat

NEED_SIZE: tuple[ResultFormat, ...] = ("coco", "yolo")
"""Formats whose results need ``size_px``."""
CSV_COLUMNS = (
    *("file", "frame", "time_s", "class_id", "class_name", "score"),
    *("left_px", "top_px", "right_px", "bottom_px", "error"),
)


@dataclass(frozen=True)
class Result:
    """The detections in an image or a frame, or the reason why it was refused.

    Attributes:
        file: The image or video, as the user named it.
        stem: Unique name, without suffix, for the files written about this result. It may begin with folders.
        detections: Detections with class names; None if the image was refused.
        size_px: Width and height; None if unknown.
        frame: Number of the frame in a video, from 0; None for an image.
        time_s: Time of the frame in seconds from the first one.
        annotated: Name of the annotated picture, relative to the folder of the results.
        error: Reason why the image was refused.
        line: Line number in a list of images, from 1; None without a list.
    """

    file: str
    stem: str
    detections: Detections | None = None
    size_px: tuple[int, int] | None = None
    frame: int | None = None
    time_s: float | None = None
    annotated: str | None = None
    error: str | None = None
    line: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the record for JSON: ``file``, ``detections`` or ``error``, and whatever else is known."""
        record: dict[str, object] = {"file": self.file}
        if self.line is not None:
            record["line"] = self.line
        if self.frame is not None and self.time_s is not None:
            record |= {"frame": self.frame, "time_s": round(self.time_s, 6)}
        if self.annotated is not None:
            record["annotated"] = self.annotated
        if self.detections is None:
            return record | {"error": self.error}
        return record | {"detections": self.detections.to_json()}


Write = Callable[[Result], None]
"""Writes the next result."""


def results_path(folder: Path, kind: ResultFormat) -> Path:
    """Return the path that :func:`open_results` writes to: a file, or the folder of YOLO labels."""
    names: dict[ResultFormat, str] = {
        "json": "detections.json",
        "jsonl": "detections.jsonl",
        "csv": "detections.csv",
        "coco": "detections.coco.json",
        "yolo": "labels",
        "parquet": "detections.parquet",
    }
    return folder / names[kind]


def open_results(folder: Path, kind: ResultFormat, labels: tuple[str, ...]) -> AbstractContextManager[Write]:
    """Write results to a folder in a format; the file appears when the block ends without an error.

    Args:
        folder: The folder, as for :func:`results_path`.
        kind: The format.
        labels: Class names by id, for the categories of a data set.
    """
    path = results_path(folder, kind)
    if kind == "json":
        return _write_json(path)
    if kind == "jsonl":
        return write_json_lines(path)
    if kind == "csv":
        return _write_csv(path)
    if kind == "coco":
        return _write_coco(path, labels)
    if kind == "parquet":
        from ssd_triton.client.parquet import write_parquet

        return write_parquet(path)
    return _write_yolo(path, labels)


@contextmanager
def write_json_lines(path: Path, *, durable: bool = False) -> Iterator[Write]:
    """Write a JSON object on a line for each result.

    Args:
        path: The file; it appears when the block ends without an error.
        durable: Whether the file is on the disk when the block ends.
    """
    with _whole_file(path, durable=durable) as file:
        yield lambda result: _print(file, json_line(result))


def json_line(result: Result) -> str:
    """Return a result as one line of JSON without a line break, in ASCII even if the file's name is not."""
    return json.dumps(result.to_json())


@contextmanager
def _write_json(path: Path) -> Iterator[Write]:
    """Write a JSON list with a result on each line."""
    with _whole_file(path) as file:
        separators = itertools.chain(["[\n"], itertools.repeat(",\n"))
        yield lambda result: _print(file, f"{next(separators)}{json_line(result)}", end="")
        file.write("[]\n" if next(separators) == "[\n" else "\n]\n")


@contextmanager
def _write_csv(path: Path) -> Iterator[Write]:
    """Write a row for each detection and each refused file; an image without detections has no row."""
    with _whole_file(path) as file:
        rows = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        rows.writeheader()
        yield lambda result: rows.writerows(_csv_rows(result))


def _csv_rows(result: Result) -> Iterator[dict[str, object]]:
    time_s = None if result.time_s is None else round(result.time_s, 6)
    common: dict[str, object] = {"file": result.file, "frame": result.frame, "time_s": time_s}
    if result.detections is None:
        yield {**common, "error": result.error}
        return
    for (box, score, class_id), name in zip(result.detections, result.detections.class_names, strict=True):
        sides = {column: round(float(side), 2) for column, side in zip(CSV_COLUMNS[6:10], box, strict=True)}
        yield {**common, "class_id": class_id, "class_name": name, "score": round(score, 5), **sides}


@contextmanager
def _write_coco(path: Path, labels: tuple[str, ...]) -> Iterator[Write]:
    """Write a COCO data set whose annotations have scores; category ids are the model's class ids."""
    category_ids = {class_id: class_id for class_id in range(1, len(labels))}
    image_ids, annotation_ids = itertools.count(1), itertools.count(1)
    # The file holds two lists that grow at the same time: the shorter one is kept in a temporary file until the end.
    with _whole_file(path) as file, tempfile.TemporaryFile("w+", encoding="utf-8") as images:

        def write(result: Result) -> None:
            if result.detections is None or result.size_px is None:
                return
            image_id = next(image_ids)
            _append(images, _coco_image(result, image_id, result.size_px), first=image_id == 1)
            for one in result.detections.clipped(result.size_px).to_coco(image_id, category_ids):
                number = next(annotation_ids)
                annotation = {"id": number, **one, "area": round(one["bbox"][2] * one["bbox"][3], 3), "iscrowd": 0}
                _append(file, annotation, first=number == 1)

        file.write('{"annotations": [\n')
        yield write
        file.write('\n],\n"images": [\n')
        images.seek(0)
        shutil.copyfileobj(images, file)
        categories = [{"id": class_id, "name": labels[class_id]} for class_id in category_ids]
        file.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')


def _coco_image(result: Result, image_id: int, size_px: tuple[int, int]) -> dict[str, object]:
    """Describe an image or a frame; a frame gets the file name that ``ffmpeg -start_number 0`` can give it."""
    image: dict[str, object] = {"id": image_id, "file_name": result.file, "width": size_px[0], "height": size_px[1]}
    if result.frame is not None and result.time_s is not None:
        image |= {"file_name": f"{result.stem}.jpg", "frame": result.frame, "time_s": round(result.time_s, 6)}
    return image


@contextmanager
def _write_yolo(folder: Path, labels: tuple[str, ...]) -> Iterator[Write]:
    """Write a text file for each image, empty if it has no detections, and the class names beside the folder."""

    def write(result: Result) -> None:
        if result.detections is not None and result.size_px is not None:
            with _whole_file(folder / f"{result.stem}.txt") as file:
                file.write(result.detections.to_yolo(result.size_px))

    with _whole_file(folder.parent / "classes.txt") as file:
        file.writelines(f"{label}\n" for label in labels[1:])
    yield write


@contextmanager
def _whole_file(path: Path, *, durable: bool = False) -> Iterator[IO[str]]:
    """Open a text file that appears when the block succeeds; bytes of names that are not UTF-8 are escaped."""
    with (
        atomic_output(path, durable=durable) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def _print(file: IO[str], text: str, end: str = "\n") -> None:
    file.write(f"{text}{end}")


def _append(file: IO[str], item: dict[str, object], *, first: bool) -> None:
    file.write(("" if first else ",\n") + json.dumps(item))
