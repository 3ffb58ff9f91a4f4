"""The kit that reports are made of."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from ssd_triton.common import report as kit
from ssd_triton.common.machine import environment, find_gpu, find_gpus
from ssd_triton.common.report import (
    Bullets,
    Heading,
    Json,
    Picture,
    ReportError,
    ReportFolder,
    Table,
    html_page,
    markdown,
)

HOSTILE = "a|b\n<script>alert(1)</script>"


def test_a_page_in_markdown() -> None:
    text = markdown(Heading("Title", 1), "", Table(["a", "b"], [["1", "2"]], "Table"), Bullets([]), Bullets(["x", "y"]))
    assert text == "# Title\n\n### Table\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- x\n- y\n"


def test_what_strangers_write_stays_in_its_cell() -> None:
    table = Table(["file"], [[HOSTILE]])
    assert markdown(table).splitlines()[2] == r"| a\|b <script>alert(1)</script> |"
    blocks = (HOSTILE, table, Bullets([HOSTILE]), Picture("'x.png", HOSTILE), Json({"name": HOSTILE}), Heading(HOSTILE))
    page = html_page(HOSTILE, *blocks)
    assert "<script>" not in page
    assert "src='&#x27;x.png'" in page


def test_marks_and_numbers_in_html() -> None:
    page = html_page("T", "`code` and **bold**", Table(["a", "b"], [["`x`", "1,234 ± 5%"], ["ok", "–"]]))
    assert "<p><code>code</code> and <b>bold</b></p>" in page
    assert "<td><code>x</code></td><td class='number'>1,234 ± 5%</td>" in page
    assert "<td>ok</td><td class='number'>–</td>" in page


def test_files_are_written_and_listed(tmp_path: Path) -> None:
    report = ReportFolder(tmp_path / "out")
    report.csv("a.csv", [{"name": "x", "value": 1 / 3}, {"name": "y", "more": None}])
    report.json("a.json", {"value": 0.1})
    assert report.picture("a.png", lambda figure: figure.subplots().plot([1, 2]))
    assert not report.picture("nothing.png", lambda figure: None)
    assert (
        [path.name for path in report.written]
        == ["a.csv", "a.json", "a.png"]
        == sorted(path.name for path in (tmp_path / "out").iterdir())
    )
    with (tmp_path / "out" / "a.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first == {"name": "x", "value": "0.333333", "more": ""}
    assert second == {"name": "y", "value": "", "more": ""}
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert min(picture.size) > 300
    report.clear("*.png")
    assert not list((tmp_path / "out").glob("*.png"))


def test_no_infinity_in_json_and_no_half_file(tmp_path: Path) -> None:
    report = ReportFolder(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        report.json("a.json", {"value": float("inf")})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ReportError, match=r"cannot write /dev/full/a\.md .*make room or choose another folder"):
        ReportFolder(Path("/dev/full")).text("a.md", "text")


def test_without_matplotlib_a_line_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kit, "find_spec", lambda name: None)
    report = ReportFolder(tmp_path)
    with caplog.at_level(logging.WARNING):
        for name in ("a.png", "b.png"):
            assert not report.picture(name, lambda figure: figure.subplots())
    assert [record.getMessage() for record in caplog.records] == [
        "no pictures: matplotlib is not installed; run 'pip install matplotlib'"
    ]
    assert list(tmp_path.iterdir()) == []


def test_facts_of_the_machine() -> None:
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert {"processor", "cores", "system", "python", "numpy", "date", "command"} <= set(facts)
    gpus = find_gpus()
    assert find_gpu() == (gpus[0] if gpus else None)
    assert ("gpu" in facts) == bool(gpus)
    for gpu in gpus:
        major, minor = gpu.compute_capability.split(".")
        assert int(major) >= 3 and minor.isdigit() and gpu.memory_mib > 100 and gpu.cuda_version
