"""A detector's answers for the images of an evaluation, kept in a journal so that an interrupted run can resume."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssd_triton.common.arrays import shortest
from ssd_triton.common.detections import Detections
from ssd_triton.common.journal import Journal, damaged, open_journal

JOURNAL = "results.jsonl"


@dataclass(frozen=True)
class Answer:
    """What became of an image.

    Attributes:
        detections: The detections; None if the image was refused.
        refusal: Why it was refused, if it was.
        latency_s: Time of its request, retries included.
        after_s: Time of the answer, in seconds since the session began.
        session: Number of the session, from 0; each resumption begins another one.
    """

    detections: Detections | None
    refusal: str | None
    latency_s: float
    after_s: float
    session: int


class Answers:
    """Answers by image id; :func:`open_answers` makes one.

    Attributes:
        by_image: Answers by image id.
        session: Number of the current session, -1 before the first one.
    """

    def __init__(self, journal: Journal) -> None:
        """Read the answers in the journal.

        Raises:
            JournalError: It is damaged.
        """
        self.by_image: dict[int, Answer] = {}
        self.session = -1
        self._journal = journal
        self._started_s = 0.0
        for number, record in enumerate(journal.records(), start=2):
            try:
                if "image_id" in record:
                    self.by_image[record["image_id"]] = _from_json(record)
                else:
                    self.session = record["session"]
            except (ValueError, KeyError, TypeError) as error:
                raise damaged(journal.path, number, error) from None

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self._journal.path

    def begin_session(self) -> None:
        """Start the clock: sessions are timed one by one, so that pauses between them do not count."""
        self.session += 1
        self._started_s = time.monotonic()
        self._journal.append({"session": self.session})

    def add(self, image_id: int, answer: Detections | str, latency_s: float) -> None:
        """Keep the answer for an image: its detections, or why it was refused.

        Raises:
            JournalError: It cannot be written.
        """
        detections, refusal = (None, answer) if isinstance(answer, str) else (answer, None)
        # Rounded as in the file, so that a resumed run reports the same figures.
        after_s = round(time.monotonic() - self._started_s, 4)
        kept = Answer(detections, refusal, round(latency_s, 4), after_s, self.session)
        self._journal.append(_to_json(image_id, kept))
        self.by_image[image_id] = kept

    def seconds(self) -> float:
        """Time of all sessions together, each until its last answer."""
        last: dict[int, float] = {}
        for answer in self.by_image.values():
            last[answer.session] = max(last.get(answer.session, 0.0), answer.after_s)
        return sum(last.values())


@contextmanager
def open_answers(path: Path, fingerprint: Mapping[str, object], *, restart: bool = False) -> Iterator[Answers]:
    """Open kept answers, or start a new file; see :func:`ssd_triton.common.journal.open_journal`."""
    with open_journal(path, fingerprint, restart=restart) as journal:
        yield Answers(journal)


def _to_json(image_id: int, answer: Answer) -> dict[str, object]:
    """Make a record; floats are written as the shortest decimals that give the same FP32 values again."""
    record: dict[str, object] = {
        "image_id": image_id,
        "session": answer.session,
        "after_s": answer.after_s,
        "latency_s": answer.latency_s,
    }
    if answer.detections is None:
        return {**record, "refusal": answer.refusal}
    return {
        **record,
        "boxes_xyxy": shortest(answer.detections.boxes_xyxy),
        "scores": shortest(answer.detections.scores),
        "class_ids": answer.detections.class_ids.tolist(),
    }


def _from_json(record: dict[str, Any]) -> Answer:
    refusal = record.get("refusal")
    detections = None
    if refusal is None:
        detections = Detections(
            np.array(record["boxes_xyxy"], np.float32).reshape(-1, 4),
            np.array(record["scores"], np.float32),
            np.array(record["class_ids"], np.int32),
        )
    return Answer(detections, refusal, record["latency_s"], record["after_s"], record["session"])
