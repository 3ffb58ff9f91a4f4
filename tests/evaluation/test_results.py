"""Results that survive interruptions and full disks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.common.journal import JournalError
from ssd_triton.evaluation.answers import open_answers


def detections(*scores: float) -> Detections:
    """Random boxes: every bit of them must survive."""
    boxes = np.random.default_rng(len(scores)).uniform(-5, 640, (len(scores), 4)).astype(np.float32)
    return Detections(boxes, np.array(scores, np.float32), np.arange(1, len(scores) + 1, dtype=np.int32))


def test_results_come_back_as_they_were_kept(tmp_path: Path) -> None:
    path = tmp_path / "out" / "results.jsonl"
    kept = {1: detections(), 2: detections(0.1, 1 / 3), 3: "damaged"}
    with open_answers(path, {"model": "ssd"}) as answers:
        answers.begin_session()
        for image_id, answer in kept.items():
            answers.add(image_id, answer, 0.25)
    with open_answers(path, {"model": "ssd"}) as answers:
        assert list(answers.by_image) == [1, 2, 3]
        assert answers.by_image[3].refusal == "damaged"
        for image_id in (1, 2):
            again = answers.by_image[image_id].detections
            expected = kept[image_id]
            assert isinstance(expected, Detections)
            assert again is not None
            for name in ("boxes_xyxy", "scores", "class_ids"):
                np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))
        answers.begin_session()
        assert answers.session == 1


def test_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with open_answers(path, {}) as answers:
        answers.begin_session()
        answers.add(1, detections(0.5), 0.1)
        answers.add(2, detections(0.6), 0.1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with open_answers(path, {}) as answers:
        assert list(answers.by_image) == [1]
        answers.begin_session()
        answers.add(2, detections(0.6), 0.1)
    with open_answers(path, {}) as answers:
        assert list(answers.by_image) == [1, 2]


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    before = {"models": {"ssd": {"score_thresh": "0.05"}}, "dataset": {"limit": None}}
    with open_answers(path, before) as answers:
        answers.begin_session()
        answers.add(1, detections(0.5), 0.1)
    now = {"models": {"ssd": {"score_thresh": "0.3"}}, "dataset": {"limit": None}}
    with (
        pytest.raises(JournalError, match=r"models\.ssd\.score_thresh was 0\.05, is 0\.3\. --restart drops"),
        open_answers(path, now),
    ):
        pass
    with open_answers(path, before) as answers:
        assert list(answers.by_image) == [1]
        with pytest.raises(JournalError, match="another process is writing"), open_answers(path, before):
            pass
    with open_answers(path, now, restart=True) as answers:
        assert answers.by_image == {}
    path.write_text("something of the user's\n")
    with pytest.raises(JournalError, match="--restart drops"), open_answers(path, now):
        pass


def test_full_disk_loses_no_result(tmp_path: Path) -> None:
    """The kernel refuses to write beyond a limit, as it does when the disk is full."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ssd_triton.common.journal import JournalError\n"
        "from ssd_triton.evaluation.answers import open_answers\n"
        "from ssd_triton.common.detections import Detections\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "with open_answers(Path(sys.argv[1]), {}) as answers:\n"
        "    answers.begin_session()\n"
        "    try:\n"
        "        for image_id in range(100): answers.add(image_id, Detections.empty(), 0.1)\n"
        "    except JournalError as error: print(len(answers.by_image), error)\n"
    )
    path = tmp_path / "results.jsonl"
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    count, message = result.stdout.strip().split(" ", 1)
    assert "all results before are kept; make room and run the same command again" in message
    with open_answers(path, {}) as answers:
        assert list(answers.by_image) == list(range(int(count)))
        assert len(answers.by_image) > 3
