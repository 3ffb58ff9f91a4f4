"""Results kept as they come, so that an interrupted evaluation goes on where it was.

One JSON value a line: a header with the fingerprint of what is evaluated, a line at the start of each session, and a
line for each image. Lines are only appended; a last one that a killed process left torn is dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from ssd_triton.common.detections import Detections
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.fingerprint import differences
from ssd_triton.evaluation.metrics import shortest

_FORMAT = 1
_SHOWN = 4
"""Differences in a message before the rest is only counted."""


@dataclass(frozen=True)
class Result:
    """What became of an image.

    Attributes:
        detections: None where the image was refused.
        refusal: Why it was refused, if it was.
        latency_s: Of its request, retries included.
        after_s: When the answer came, seconds since the session began.
        session: Which session of the evaluation it was, from 0.
    """

    detections: Detections | None
    refusal: str | None
    latency_s: float
    after_s: float
    session: int


@dataclass
class Journal:
    """An open file of results; a context manager.

    Attributes:
        path: The file.
        results: By image id.
    """

    path: Path
    file: BinaryIO
    results: dict[int, Result] = field(default_factory=dict)
    session: int = -1
    started_s: float = 0.0

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()

    def begin_session(self) -> None:
        """Note that time runs from now; sessions are timed one by one, so that pauses between them do not count."""
        self.session += 1
        self.started_s = time.monotonic()
        self._append({"session": self.session})

    def add(self, image_id: int, answer: Detections | str, latency_s: float) -> None:
        """Keep what became of an image: its detections, or why it was refused.

        Raises:
            EvaluationError: It cannot be written.
        """
        detections, refusal = (None, answer) if isinstance(answer, str) else (answer, None)
        # As the file has them, so that a run that goes on from it reports the same figures.
        after_s = round(time.monotonic() - self.started_s, 4)
        result = Result(detections, refusal, round(latency_s, 4), after_s, self.session)
        self._append(_to_json(image_id, result))
        self.results[image_id] = result

    def seconds(self) -> float:
        """How long all sessions together took, each until its last answer."""
        last: dict[int, float] = {}
        for result in self.results.values():
            last[result.session] = max(last.get(result.session, 0.0), result.after_s)
        return sum(last.values())

    def _append(self, value: object) -> None:
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        end = self.file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self.file.write(line) :]
        except OSError as error:
            self.file.truncate(end)
            raise EvaluationError(
                f"cannot write {relative_to_cwd(self.path)} ({error.strerror}): the results of {len(self.results)} "
                "images are kept; make room and run the same command again, which goes on from there"
            ) from error


def open_journal(path: Path, fingerprint: Mapping[str, object], *, restart: bool = False) -> Journal:
    """Open a file of results, with those that it holds already.

    Args:
        path: The file; made where it does not exist.
        fingerprint: JSON values that the results depend on.
        restart: Begin anew, whatever the file holds.

    Raises:
        EvaluationError: Its results are of something else, it is no such file, another process writes to it, or it
            cannot be written.
    """
    name = relative_to_cwd(path)
    header = json.loads(json.dumps({"format": _FORMAT, "fingerprint": fingerprint}))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise EvaluationError(f"cannot write {name} ({error.strerror}); give another folder with --output") from error
    journal = Journal(path, file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if restart:
            file.truncate(0)
        lines = _whole_lines(file)
        if lines:
            _check_header(lines[0], header, name)
            _read(journal, lines[1:], name)
        else:
            journal._append(header)
    except BlockingIOError:
        file.close()
        raise EvaluationError(f"another evaluation is writing to {name}; wait, or give another --output") from None
    except BaseException:
        file.close()
        raise
    return journal


def _whole_lines(file: BinaryIO) -> list[bytes]:
    """Every line that was written to its end; what comes after the last one is cut off the file."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    file.truncate(len(whole))
    return whole.splitlines()


def _check_header(line: bytes, expected: Mapping[str, Any], name: str) -> None:
    try:
        header = json.loads(line)
        before, now = header["fingerprint"], expected["fingerprint"]
        fits = header["format"] == expected["format"]
    except (ValueError, KeyError, TypeError):
        fits, before, now = False, None, None
    if not fits:
        raise EvaluationError(f"{name} holds no results that this version can go on with; --restart begins anew")
    changed = differences(before, now)
    if changed:
        rest = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise EvaluationError(
            f"{name} holds results of something else: {'; '.join(changed[:_SHOWN])}{rest}. --restart drops them and "
            "begins anew, --output keeps them and writes elsewhere"
        )


def _read(journal: Journal, lines: list[bytes], name: str) -> None:
    for number, line in enumerate(lines, start=2):
        try:
            value = json.loads(line)
            if "session" in value and "image_id" not in value:
                journal.session = value["session"]
            else:
                journal.results[value["image_id"]] = _from_json(value)
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(f"{name}:{number} is damaged ({error}); --restart begins anew") from error


def _to_json(image_id: int, result: Result) -> dict[str, object]:
    """Floats are written as the shortest decimals that give the same FP32 values again."""
    value: dict[str, object] = {
        "image_id": image_id,
        "session": result.session,
        "after_s": result.after_s,
        "latency_s": result.latency_s,
    }
    if result.detections is None:
        return {**value, "refusal": result.refusal}
    return {
        **value,
        "boxes_xyxy": shortest(result.detections.boxes_xyxy),
        "scores": shortest(result.detections.scores),
        "class_ids": result.detections.class_ids.tolist(),
    }


def _from_json(value: dict[str, Any]) -> Result:
    refusal = value.get("refusal")
    detections = None
    if refusal is None:
        detections = Detections(
            np.array(value["boxes_xyxy"], np.float32).reshape(-1, 4),
            np.array(value["scores"], np.float32),
            np.array(value["class_ids"], np.int32),
        )
    return Result(detections, refusal, value["latency_s"], value["after_s"], value["session"])
