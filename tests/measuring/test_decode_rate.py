"""perf/decode_rate.py: kinds of files, and rates of real processes."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ssd_triton.common.errors import UserError
from ssd_triton.measuring.decode_rate import AS_THEY_ARE, BASELINE, LARGE, LARGE_HALF, PROGRESSIVE, kinds_of
from tests.conftest import assert_one_line_error

RunScript = Callable[..., subprocess.CompletedProcess[str]]


def test_kinds_hold_the_same_image() -> None:
    kinds = {kind: Image.open(io.BytesIO(file)) for kind, [file] in kinds_of(None, 1).items()}
    assert {kind: max(image.size) for kind, image in kinds.items()} == {
        AS_THEY_ARE: 600,
        BASELINE: 600,
        PROGRESSIVE: 600,
        LARGE: 1280,
        LARGE_HALF: 1280,
    }
    assert {kind for kind, image in kinds.items() if "progressive" in image.info} == {PROGRESSIVE}


@pytest.mark.slow
def test_it_measures(run_main: RunScript, tmp_path: Path) -> None:
    result = run_main("perf/decode_rate.py", "--processes", 1, 2, "--turns", 1, "--seconds", 0.1, "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines()[6:]]
    assert [row[0] for row in rows] == [AS_THEY_ARE, BASELINE, PROGRESSIVE, LARGE, LARGE_HALF] * 2
    assert [row[1] for row in rows] == ["1"] * 5 + ["2"] * 5
    rates = {(row[0], row[1]): float(row[2].replace(",", "")) for row in rows}
    assert rates[LARGE, "1"] < rates[BASELINE, "1"]
    assert (tmp_path / "decode_rate.md").read_text() == result.stdout
    assert (tmp_path / "decode_rate.png").stat().st_size > 1000


def test_bad_input(run_main: RunScript, tmp_path: Path) -> None:
    assert_one_line_error(run_main("perf/decode_rate.py", "--images", tmp_path), "got 0 images", "32 or more")
    for seconds in ("0", "-1", "nan", "inf"):
        assert run_main("perf/decode_rate.py", "--seconds", seconds).returncode == 2
    (tmp_path / "damaged.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"damaged\.jpg: got 8 bytes that begin with b'no image'"):
        kinds_of(tmp_path, 1)
