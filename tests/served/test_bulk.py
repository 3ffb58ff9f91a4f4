"""Detection in the images of a list, in shards, killed and resumed; run as a user runs it, on a real server."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name
from PIL import Image

from ssd_triton.common.files import ROOT
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import assert_one_line_error, free_url
from tests.interruptible import Interruptible
from tests.serving.test_image import requirements

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
IMAGES = 300
PART = 25
KILLS = 3


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A list of small images, some of which cannot be had; line 1 begins with a byte order mark, and one is blank."""
    (tmp_path / "in").mkdir()
    buffer = io.BytesIO()
    Image.effect_noise((16, 16), 50).convert("RGB").save(buffer, "PNG")
    image = buffer.getvalue()
    files = [f"in/{number}.png" for number in range(IMAGES)]
    for file in files:
        (tmp_path / file).write_bytes(image)
    (tmp_path / files[7]).unlink()
    (tmp_path / files[8]).write_bytes(image[:-40])
    files[9] = "https://example.com/a.png"
    path = tmp_path / "list.txt"
    path.write_text("\ufeff" + "\r\n".join([*files[:100], "", *files[100:]]))
    return path


def records(folder: Path) -> list[dict[str, Any]]:
    parts = sorted(folder.glob("shard-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "clients/detect.py"), *map(str, arguments)]


def wait_for_parts(folder: Path, expected: int, process: subprocess.Popen[str]) -> None:
    while len(list(folder.glob("shard-*.jsonl"))) < expected:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_killed_three_times_each_line_has_one_result(
    run_script: RunScript, light_server: EmbeddedServer, manifest: Path, tmp_path: Path
) -> None:
    rng = random.Random()
    options = ["--manifest", manifest, "--output", tmp_path / "out", "--url", light_server.url("grpc")]
    options += ["--set", f"detect.part_images={PART}"]
    for kill in range(KILLS):
        with Interruptible(command(*options), cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            wait_for_parts(tmp_path / "out", 1 + 3 * kill, process)
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*.jsonl")}
    assert len(before) < IMAGES // PART
    result = run_script("clients/detect.py", *options)
    assert result.returncode == 0, result.stderr
    assert f"resuming: {len(before) * PART} of {IMAGES} images were done before" in result.stderr
    assert "images/s" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert list((tmp_path / "out").glob(".*")) == []
    found = records(tmp_path / "out")
    assert [one["line"] for one in found] == [line for line in range(1, IMAGES + 2) if line != 101]
    refused = {one["file"]: one["error"] for one in found if "error" in one}
    assert list(refused) == ["in/7.png", "in/8.png", "https://example.com/a.png"]
    assert "no such file" in refused["in/7.png"]
    assert "damaged" in refused["in/8.png"]
    assert "download it first" in refused["https://example.com/a.png"]
    assert all(box["class_name"] for one in found if "error" not in one for box in one["detections"])
    assert sum(len(one.get("detections", [])) for one in found) >= IMAGES - 3


def test_ctrl_c_leaves_whole_parts(light_server: EmbeddedServer, manifest: Path, tmp_path: Path) -> None:
    options = ["--manifest", manifest, "--output", "out", "--url", light_server.url("grpc")]
    options += ["--set", f"detect.part_images={PART}"]
    with Interruptible(command(*options), cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for_parts(tmp_path / "out", 1, process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr.endswith("interrupted\n")
    assert "Traceback" not in stderr
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".journal", ".jsonl"}
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert all(len(path.read_text().splitlines()) == PART for path in (tmp_path / "out").glob("*.jsonl"))


def test_shards_share_a_folder_and_have_all_lines(
    run_script: RunScript, run_main: RunScript, light_server: EmbeddedServer, manifest: Path, tmp_path: Path
) -> None:
    options = ["--manifest", "list.txt", "--output", "out", "--url", light_server.url("http"), "--protocol", "http"]
    for number in (1, 2, 3):
        assert run_script("clients/detect.py", *options, "--shard", f"{number}/3").returncode == 0
    assert sorted(one["line"] for one in records(tmp_path / "out")) == [*range(1, 101), *range(102, IMAGES + 2)]
    other = run_main("clients/detect.py", *options, "--shard", "1/2")
    assert_one_line_error(other, "something else", "shards was 3, is 2", "--output")
    threshold = run_main("clients/detect.py", *options, "--shard", "2/3", "--score-thresh", "0.9")
    assert_one_line_error(threshold, "score_thresh was 0.5, is 0.9", "--output")
    manifest.write_text("in/0.png\n")
    assert_one_line_error(run_main("clients/detect.py", *options, "--shard", "1/3"), "manifest_sha256 was")
    assert run_script("clients/detect.py", *options, "--output", "one").returncode == 0
    changed = run_script("clients/detect.py", *options, "--output", "one", "--score-thresh", "0.99", "--restart")
    assert changed.returncode == 0, changed.stderr
    assert [one["detections"] for one in records(tmp_path / "one")] == [[]]


def test_parquet_has_what_json_lines_have(
    run_script: RunScript, light_server: EmbeddedServer, manifest: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs PyArrow: pip install 'ssd-triton[parquet]'")
    (tmp_path / "short.txt").write_bytes("\n".join([*manifest.read_text("utf-8-sig").split("\n")[:12]]).encode())
    (tmp_path / "short.txt").open("ab").write(b"\nin/caf\xe9.png\n")
    for kind in ("jsonl", "parquet"):
        options = [
            "--manifest",
            "short.txt",
            "--output",
            kind,
            "--url",
            light_server.url("grpc"),
            "--format",
            kind,
            "--classes",
            "person",
        ]
        result = run_script("clients/detect.py", *options)
        assert result.returncode == 0, result.stderr
    [part] = (tmp_path / "parquet").glob("*.parquet")
    rows = parquet.read_table(part).to_pylist()
    lines = records(tmp_path / "jsonl")
    assert [row["line"] for row in rows] == [one["line"] for one in lines] == list(range(1, 14))
    assert [row["error"] for row in rows][:12] == [one.get("error") for one in lines][:12]
    assert rows[12]["file"] == "in/caf\\udce9.png"
    for row, one in zip(rows, lines, strict=True):
        assert (row["detections"] is None) == ("error" in one)
        for box, expected in zip(row["detections"] or [], one.get("detections", []), strict=True):
            assert box["box_xyxy"] == pytest.approx(expected["box_xyxy"], abs=1e-4)
            assert box["score"] == pytest.approx(expected["score"], abs=1e-4)
            assert (box["class_id"], box["class_name"]) == (expected["class_id"], expected["class_name"])


def test_the_image_has_all_that_its_job_imports(light_server: EmbeddedServer, manifest: Path, tmp_path: Path) -> None:
    """What bulk detection loads over gRPC is in the requirements of the container image."""
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted({name.split('.')[0] for name in sys.modules}))))\n"
        "from ssd_triton.commands import main; main()"
    )
    (tmp_path / "short.jsonl").write_text('{"id": 7, "file": "in/0.png"}\n')
    arguments = ["detect", "--manifest", "short.jsonl", "--output", "out", "--url", light_server.url("grpc")]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    by_module = packages_distributions()
    modules = json.loads(result.stdout.splitlines()[-1])
    used = {canonicalize_name(name) for module in modules for name in by_module.get(module, [])}
    assert used - {"ssd-triton", "setuptools"} <= set(requirements())
    assert "tritonclient" in used
    [found] = records(tmp_path / "out")
    assert (found["file"], "error" in found) == ("in/0.png", False)


def test_without_a_server_nothing_is_written(run_main: RunScript, manifest: Path, tmp_path: Path) -> None:
    result = run_main("clients/detect.py", "--manifest", manifest, "--output", "out", "--url", free_url())
    assert_one_line_error(result, "no Triton server answers")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def wrong_lists(tmp_path: Path) -> Iterator[list[tuple[Path, Sequence[str]]]]:
    """Files that are no lists, with words of their refusal."""
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "utf16.txt").write_text("a.png\n", encoding="utf-16")
    (tmp_path / "long.txt").write_bytes(b"a" * 100_000)
    (tmp_path / "paths.jsonl").write_text('{"file": "a.png"}\n"b.png"\n')
    yield [
        (tmp_path / "absent.txt", ["absent.txt", "got no file", "one path a line"]),
        (tmp_path, ["got no file"]),
        (tmp_path / "empty.txt", ["got an empty list"]),
        (tmp_path / "utf16.txt", ["utf16.txt:1", "UTF-8"]),
        (tmp_path / "long.txt", ["long.txt:1", "UTF-8"]),
        (tmp_path / "paths.jsonl", ["paths.jsonl:2", 'no object with a "file"']),
    ]


def test_wrong_lists_are_refused(
    run_main: RunScript, light_server: EmbeddedServer, wrong_lists: list[tuple[Path, Sequence[str]]], tmp_path: Path
) -> None:
    for path, words in wrong_lists:
        result = run_main("clients/detect.py", "--manifest", path, "--output", "out", "--url", light_server.url("grpc"))
        assert_one_line_error(result, *words)
    assert not (tmp_path / "out").exists()
