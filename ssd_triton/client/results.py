"""Results of images and frames in files: JSON, JSON lines, CSV, a COCO data set, YOLO labels.

Each writer takes results one by one and keeps none of them. A file is whole or absent; after an error the old one is
still in place. Boxes are those of the server, except in COCO and YOLO: data sets hold no box beyond its image.
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
    """What was found in an image or a frame, or why it was refused.

    Attributes:
        file: The image or video, as it was given.
        stem: Name without suffix of what is written for it; no other result has it. It may begin with folders.
        detections: With class names; None if it was refused.
        size_px: Width and height; None if unknown.
        frame: Number of the frame in a video, from 0; None for an image.
        time_s: Time of the frame in seconds from the first one.
        annotated: Name of the annotated picture, relative to the folder of the results.
        error: Why it was refused.
    """

    file: str
    stem: str
    detections: Detections | None = None
    size_px: tuple[int, int] | None = None
    frame: int | None = None
    time_s: float | None = None
    annotated: str | None = None
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """What JSON and JSON lines hold: ``file`` and ``detections`` or ``error``, and what else is known."""
        record: dict[str, object] = {"file": self.file}
        if self.frame is not None and self.time_s is not None:
            record |= {"frame": self.frame, "time_s": round(self.time_s, 6)}
        if self.annotated is not None:
            record["annotated"] = self.annotated
        if self.detections is None:
            return record | {"error": self.error}
        return record | {"detections": self.detections.to_json()}


Write = Callable[[Result], None]
"""Takes the next result."""


def results_path(folder: Path, kind: ResultFormat) -> Path:
    """Where :func:`open_results` writes: a file, or the folder of YOLO's labels."""
    names: dict[ResultFormat, str] = {
        "json": "detections.json",
        "jsonl": "detections.jsonl",
        "csv": "detections.csv",
        "coco": "detections.coco.json",
        "yolo": "labels",
    }
    return folder / names[kind]


def open_results(folder: Path, kind: ResultFormat, labels: tuple[str, ...]) -> AbstractContextManager[Write]:
    """Write results to a folder in a format; the file appears when the block ends without an error.

    Args:
        folder: For :func:`results_path`.
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
    return _write_yolo(path, labels)


@contextmanager
def write_json_lines(path: Path) -> Iterator[Write]:
    """Write a JSON object on a line for each result."""
    with _whole_file(path) as file:
        yield lambda result: _print(file, json_line(result))


def json_line(result: Result) -> str:
    """Return a result as one line of JSON, without its end; ASCII, whatever the file's name is."""
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
    """Write a row for each detection and each refused file; an image without detections has none."""
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
    """Write a COCO data set with the scores of its annotations; categories are the classes under their ids."""
    category_ids = {class_id: class_id for class_id in range(1, len(labels))}
    image_ids, annotation_ids = itertools.count(1), itertools.count(1)
    # Two lists of one file grow at once: the shorter one waits in a file of its own.
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
    """Describe an image or a frame; a frame's file name is the one that ``ffmpeg -start_number 0`` can write."""
    image: dict[str, object] = {"id": image_id, "file_name": result.file, "width": size_px[0], "height": size_px[1]}
    if result.frame is not None and result.time_s is not None:
        image |= {"file_name": f"{result.stem}.jpg", "frame": result.frame, "time_s": round(result.time_s, 6)}
    return image


@contextmanager
def _write_yolo(folder: Path, labels: tuple[str, ...]) -> Iterator[Write]:
    """Write a text file for each image, empty where nothing was found, and the names of the classes beside them."""

    def write(result: Result) -> None:
        if result.detections is not None and result.size_px is not None:
            with _whole_file(folder / f"{result.stem}.txt") as file:
                file.write(result.detections.to_yolo(result.size_px))

    with _whole_file(folder.parent / "classes.txt") as file:
        file.writelines(f"{label}\n" for label in labels[1:])
    yield write


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[str]]:
    """Open a text file that appears when the block succeeds; what is not UTF-8 in names is escaped."""
    with (
        atomic_output(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def _print(file: IO[str], text: str, end: str = "\n") -> None:
    file.write(f"{text}{end}")


def _append(file: IO[str], item: dict[str, object], *, first: bool) -> None:
    file.write(("" if first else ",\n") + json.dumps(item))
