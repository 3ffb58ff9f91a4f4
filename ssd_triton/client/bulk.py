"""Bulk detection in one shard of a long list of images; finished parts of the results survive a kill.

Shard 3 of 16 has the lines 3, 19, 35, ... of the list. Lists are often sorted by folder: taking every 16th line spreads
large and small images over all shards, and no shard has to know the length of the list. The position of an image in the
shard alone decides which part it belongs to. A part is written whole or not at all: a part that exists is done. A run
that was killed resumes when it is started again, and repeats at most the part that it was writing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count, groupby
from pathlib import Path
from typing import Literal

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.errors import RequestRefusedError
from ssd_triton.client.results import Result, Write, write_json_lines
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.journal import differences, open_journal, read_fingerprint

_log = logging.getLogger(__name__)
_LONGEST_LINE_BYTES = 1 << 16
"""A longer line is not a path: Linux limits paths to 4096 bytes."""
_JSON_LINES = (".jsonl", ".ndjson")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_AHEAD = 8
"""Images submitted ahead of the oldest unanswered one, for each request in flight: while one image is retried, the
others continue."""
_REPORT_S = 10.0
"""Time between two lines of progress."""


PartFormat = Literal["jsonl", "parquet"]
OpenPart = Callable[[Path], AbstractContextManager[Write]]
"""Opens a part for writing; the part is on the disk when the block ends."""


class BulkError(UserError):
    """A list of images, or a folder of results, cannot be used."""


@dataclass(frozen=True)
class Shard:
    """One of several shares of a list that are processed independently.

    Attributes:
        number: From 1 to ``count``.
        count: Shards of the list.
    """

    number: int
    count: int

    @property
    def name(self) -> str:
        """Prefix of the names of its files."""
        return f"shard-{self.number:05d}-of-{self.count:05d}"

    def has(self, line: int) -> bool:
        """Whether a line of the list, counted from 1, belongs to it."""
        return line % self.count == self.number % self.count


@dataclass(frozen=True)
class Bulk:
    """One shard of a list, and where and how its results are written.

    Attributes:
        manifest: The list: one path a line, or in a ``.jsonl`` one object with a ``file``. Paths are relative to the
            list's folder; blank lines are skipped.
        shard: The shard.
        output: Folder of the results, which all shards may share.
        kind: Format of the parts.
        part_images: Images in a part.
        labels: Class names by id.
        score_thresh: Keeps detections with a higher score.
        class_ids: Keeps detections of these classes; None keeps all.
    """

    manifest: Path
    shard: Shard
    output: Path
    kind: PartFormat
    part_images: int
    labels: tuple[str, ...]
    score_thresh: float
    class_ids: Collection[int] | None = None

    def part(self, index: int) -> Path:
        """The file of a part, counted from 0."""
        return self.output / f"{self.shard.name}.part-{index:06d}.{self.kind}"

    def images(self) -> Iterator[Result]:
        """Yield the images of the shard one by one, as results without detections.

        Raises:
            BulkError: The list cannot be read, or is not a list of images.
        """
        for line, file in _lines(self.manifest):
            if self.shard.has(line):
                yield Result(file, stem="", line=line)


@dataclass
class BulkSummary:
    """Counts of a finished shard.

    Attributes:
        images: Images in the shard.
        earlier: Images that an earlier run had finished.
        refused: Images that this run could not read, or that the server refused.
    """

    images: int
    earlier: int
    refused: int = 0


def detect_bulk(client: DetectorClient, bulk: Bulk, models: Mapping[str, object], *, restart: bool) -> BulkSummary:
    """Detect in the images of a shard that have no result yet.

    Files are sent unchanged; EXIF is not applied. A missing, unreadable or refused file gets a result with the reason.

    Args:
        client: A client of a ready server.
        bulk: The shard, and how to write its results.
        models: JSON values that identify the served models: results of other models are never mixed in.
        restart: Whether to drop the existing results of the shard first.

    Raises:
        BulkError: The list cannot be read or has changed, or another shard in the folder belongs to another job.
        ModuleNotFoundError: The format is Parquet and PyArrow is not installed.
        JournalError: The existing results of this shard belong to another job, or another process works on the shard.
        ClientError: The server fails for a reason other than an image. Finished parts are kept.
    """
    open_part = _part_writer(bulk.kind)
    fingerprint = _fingerprint(bulk, models)
    _check_other_shards(bulk, fingerprint)
    if restart:
        # Before the fingerprint is replaced: after a kill in between, the remaining parts still match the old one.
        for part in bulk.output.glob(f"{bulk.shard.name}.part-*"):
            part.unlink()
    with open_journal(_journal(bulk), fingerprint, restart=restart):
        for torn in bulk.output.glob(f".{bulk.shard.name}.part-*"):
            torn.unlink()
        summary = _detect_missing_parts(client, bulk, open_part)
    if sha256_of(bulk.manifest) != fingerprint["manifest_sha256"]:
        raise BulkError(f"{relative_to_cwd(bulk.manifest)} has changed during the run; run again with --restart")
    return summary


def _detect_missing_parts(client: DetectorClient, bulk: Bulk, open_part: OpenPart) -> BulkSummary:
    total = sum(1 for _ in bulk.images())
    starts = range(0, total, bulk.part_images)
    sizes = {index: min(bulk.part_images, total - start) for index, start in enumerate(starts)}
    done = {index for index in sizes if bulk.part(index).exists()}
    summary = BulkSummary(total, sum(sizes[index] for index in done))
    positions = ((number // bulk.part_images, image) for number, image in enumerate(bulk.images()))
    todo = ((index, image) for index, image in positions if index not in done)

    # Each of these threads takes the next image as soon as it has an answer. With client.submit, the main thread would
    # have to wake up for each image, and the server would wait meanwhile.
    threads = ThreadPoolExecutor(client.in_flight, thread_name_prefix="bulk")

    def submit(one: tuple[int, Result]) -> Future[Detections]:
        file = one[1].file
        # An address stays unchanged, so that the client refuses it by name; joined to a folder it would become a path.
        return threads.submit(client.detect, file if "://" in file else bulk.manifest.parent / file)

    def results() -> Iterator[tuple[int, Result]]:
        progress = _Progress(summary)
        for (index, image), future in submit_ahead(todo, submit, _AHEAD * client.in_flight):
            try:
                found = future.result().filter(score_thresh=bulk.score_thresh, class_ids=bulk.class_ids)
                found = found.with_labels(bulk.labels)
                result = replace(image, detections=found)
            except RequestRefusedError as error:
                result = replace(image, error=str(error))
                summary.refused += 1
            progress.count()
            yield index, result

    try:
        for index, part in groupby(results(), key=lambda one: one[0]):
            with open_part(bulk.part(index)) as write:
                for _, result in part:
                    write(result)
    finally:
        # Without waiting: the client ends retries when it is closed.
        threads.shutdown(wait=False, cancel_futures=True)
    return summary


class _Progress:
    """Logs the progress of a shard at intervals, with the rate of this run and the remaining time."""

    def __init__(self, summary: BulkSummary) -> None:
        self._summary = summary
        self._done = 0
        self._start_s = self._reported_s = time.monotonic()
        if summary.earlier:
            _log.info("resuming: %d of %d images were done before", summary.earlier, summary.images)

    def count(self) -> None:
        """Count one more image."""
        self._done += 1
        now_s = time.monotonic()
        left = self._summary.images - self._summary.earlier - self._done
        if now_s - self._reported_s < _REPORT_S and left:
            return
        self._reported_s = now_s
        rate = self._done / max(now_s - self._start_s, 1e-6)
        _log.info(
            "%d of %d images (%d refused), %.1f images/s, %s left",
            self._summary.images - left,
            self._summary.images,
            self._summary.refused,
            rate,
            timedelta(seconds=round(left / rate)),
        )


def _lines(manifest: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a list that is not blank, with one line in memory at a time."""
    name, is_json = relative_to_cwd(manifest), manifest.suffix.lower() in _JSON_LINES
    try:
        with manifest.open("rb") as file:
            for number in count(1):
                line = file.readline(_LONGEST_LINE_BYTES)
                if not line:
                    return
                if len(line) == _LONGEST_LINE_BYTES or b"\0" in line:
                    raise BulkError(f"{name}:{number} is no text, expected a list of images in UTF-8, one path a line")
                text = os.fsdecode((line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).rstrip(b"\r\n"))
                if text.strip():
                    yield number, _file_of(text, f"{name}:{number}") if is_json else text
    except OSError as error:
        raise BulkError(f"cannot read {name} ({error.strerror}); give a list of images with --manifest") from error


def _file_of(line: str, where: str) -> str:
    """Return the path in a line of JSON; other keys of its object are ignored."""
    with suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, dict) and isinstance(value.get("file"), str) and value["file"]:
            return str(value["file"])
    raise BulkError(f'{where}: got no object with a "file", expected lines such as {{"file": "street.jpg"}}')


def _fingerprint(bulk: Bulk, models: Mapping[str, object]) -> dict[str, object]:
    """Return everything that the results of all shards depend on, as JSON values."""
    name = relative_to_cwd(bulk.manifest)
    if not bulk.manifest.is_file():
        raise BulkError(f"{name}: got no file, expected a list of images, one path a line; it is read several times")
    if not sum(1 for _ in _lines(bulk.manifest)):  # reads, and so checks, every line before anything is written
        raise BulkError(f"{name}: got an empty list, expected one path a line")
    return {
        "manifest_sha256": sha256_of(bulk.manifest),
        "shards": bulk.shard.count,
        "format": bulk.kind,
        "part_images": bulk.part_images,
        "score_thresh": bulk.score_thresh,
        "labels": list(bulk.labels),
        "class_ids": None if bulk.class_ids is None else sorted(bulk.class_ids),
        "models": models,
    }


def _part_writer(kind: PartFormat) -> OpenPart:
    if kind == "jsonl":
        return partial(write_json_lines, durable=True)
    from ssd_triton.client.parquet import write_parquet

    return partial(write_parquet, durable=True)


def _journal(bulk: Bulk) -> Path:
    """Path of the journal, which holds the fingerprint of a shard's results and is its lock."""
    return bulk.output / f"{bulk.shard.name}.journal"


def _check_other_shards(bulk: Bulk, fingerprint: Mapping[str, object]) -> None:
    """Refuse a folder whose other shards belong to another job; comparing with one of them is enough."""
    own = _journal(bulk)
    others = (path for path in bulk.output.glob("shard-*.journal") if path != own and path.stat().st_size)
    other = next(others, None)
    changed = [] if other is None else differences(read_fingerprint(other), fingerprint)
    if other is not None and changed:
        raise BulkError(
            f"{relative_to_cwd(other)} belongs to results of something else: {changed[0]}; give another folder with "
            "--output"
        )
