"""Results that survive interruptions and full disks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.journal import open_journal


def detections(*scores: float) -> Detections:
    """Random boxes: every bit of them must survive."""
    boxes = np.random.default_rng(len(scores)).uniform(-5, 640, (len(scores), 4)).astype(np.float32)
    return Detections(boxes, np.array(scores, np.float32), np.arange(1, len(scores) + 1, dtype=np.int32))


def test_results_come_back_as_they_were_kept(tmp_path: Path) -> None:
    path = tmp_path / "out" / "results.jsonl"
    kept = {1: detections(), 2: detections(0.1, 1 / 3), 3: "damaged"}
    with open_journal(path, {"model": "ssd"}) as journal:
        journal.begin_session()
        for image_id, answer in kept.items():
            journal.add(image_id, answer, 0.25)
    with open_journal(path, {"model": "ssd"}) as journal:
        assert list(journal.results) == [1, 2, 3]
        assert journal.results[3].refusal == "damaged"
        for image_id in (1, 2):
            again = journal.results[image_id].detections
            expected = kept[image_id]
            assert isinstance(expected, Detections)
            assert again is not None
            for name in ("boxes_xyxy", "scores", "class_ids"):
                np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))
        journal.begin_session()
        assert journal.session == 1


def test_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with open_journal(path, {}) as journal:
        journal.begin_session()
        journal.add(1, detections(0.5), 0.1)
        journal.add(2, detections(0.6), 0.1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with open_journal(path, {}) as journal:
        assert list(journal.results) == [1]
        journal.begin_session()
        journal.add(2, detections(0.6), 0.1)
    with open_journal(path, {}) as journal:
        assert list(journal.results) == [1, 2]


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    before = {"models": {"ssd": {"score_thresh": "0.05"}}, "dataset": {"limit": None}}
    with open_journal(path, before) as journal:
        journal.begin_session()
        journal.add(1, detections(0.5), 0.1)
    now = {"models": {"ssd": {"score_thresh": "0.3"}}, "dataset": {"limit": None}}
    with pytest.raises(EvaluationError, match=r"models\.ssd\.score_thresh was 0\.05, is 0\.3\. --restart drops"):
        open_journal(path, now)
    with open_journal(path, before) as journal:
        assert list(journal.results) == [1]
        with pytest.raises(EvaluationError, match="another evaluation is writing"):
            open_journal(path, before)
    with open_journal(path, now, restart=True) as journal:
        assert journal.results == {}
    path.write_text("something of the user's\n")
    with pytest.raises(EvaluationError, match="--restart begins anew"):
        open_journal(path, now)


def test_full_disk_loses_no_result(tmp_path: Path) -> None:
    """The kernel refuses to write beyond a limit, as it does when the disk is full."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ssd_triton.evaluation.errors import EvaluationError\n"
        "from ssd_triton.evaluation.journal import open_journal\n"
        "from ssd_triton.common.detections import Detections\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "with open_journal(Path(sys.argv[1]), {}) as journal:\n"
        "    journal.begin_session()\n"
        "    try:\n"
        "        for image_id in range(100): journal.add(image_id, Detections.empty(), 0.1)\n"
        "    except EvaluationError as error: print(len(journal.results), error)\n"
    )
    path = tmp_path / "results.jsonl"
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    count, message = result.stdout.strip().split(" ", 1)
    assert f"the results of {count} images are kept; make room and run the same command again" in message
    with open_journal(path, {}) as journal:
        assert list(journal.results) == list(range(int(count)))
        assert len(journal.results) > 3
