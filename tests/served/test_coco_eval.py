"""The evaluation through real servers: figures, interruptions, servers that die and come back, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssd_triton.client import DetectorClient
from ssd_triton.common.files import ROOT, sha256_of
from ssd_triton.common.journal import JournalError
from ssd_triton.config import Config
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.variants import find_variant
from ssd_triton.evaluation.dataset import Dataset, DatasetSource, load_dataset
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.evaluate import JOURNAL, Evaluation, Settings, evaluate_served
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import assert_one_line_error
from tests.evaluation.helpers import NUM_IMAGES, evaluate_network, with_content, write_crops, write_damaged
from tests.interruptible import Interruptible
from tests.light import copy_repository
from tests.served.helpers import seconds_until_asked

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = "clients/coco_eval.py"
SETTINGS = Settings("ssd", 81)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photograph: bytes, labels: tuple[str, ...]) -> Path:
    return write_crops(tmp_path_factory.mktemp("coco"), photograph, labels)


@pytest.fixture(scope="module")
def dataset(folder: Path, labels: tuple[str, ...]) -> Dataset:
    source = DatasetSource(folder / "val2017", folder / "annotations/instances_val2017.json")
    return load_dataset(source, labels)


@pytest.fixture(scope="module")
def undisturbed(
    light_grpc_detector: DetectorClient, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Evaluation:
    return evaluate_served(light_grpc_detector, dataset, tmp_path_factory.mktemp("undisturbed"), SETTINGS, name="ssd")


@pytest.fixture
def arguments(folder: Path, light_server: EmbeddedServer) -> list[object]:
    images, annotations = folder / "val2017", folder / "annotations/instances_val2017.json"
    return [
        *("--images", images, "--annotations", annotations),
        *("--url", light_server.url("grpc"), "--output", "out"),
    ]


def kept_ids(path: Path) -> list[int]:
    """Of the images in a file of results, in the order in which they came; a torn last line does not count."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    values = [json.loads(line) for line in lines if line.endswith("\n")]
    return [value["image_id"] for value in values if "image_id" in value]


def wait_for_results(path: Path, count: int, running: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while len(kept_ids(path)) < count:
        assert running(), "the evaluation ended before it could be disturbed"
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def assert_same_figures(got: Evaluation, expected: Evaluation) -> None:
    assert got.metrics.figures == expected.metrics.figures
    assert [one.ap for one in got.metrics.classes] == [one.ap for one in expected.metrics.classes]


# --- Figures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def real(data: Callable[[str], Path], config: Config, labels: tuple[str, ...]) -> Dataset:
    source = DatasetSource(data("coco/val"), data("coco/instances_dev_eval.json"), limit=4)
    return load_dataset(source, labels, config.coco.name_map)


def test_ap_is_that_of_the_offline_reference(
    grpc_detector: DetectorClient, reference_detector: ServedDetector, real: Dataset, tmp_path: Path
) -> None:
    expected = evaluate_network(reference_detector, real, batch_size=4)
    served = evaluate_served(grpc_detector, real, tmp_path, SETTINGS, name="ssd")
    assert served.metrics.ap > 0.05
    assert served.metrics.ap == pytest.approx(expected.ap, abs=find_variant("onnx_fp32").max_ap_difference)


def test_command_writes_its_folder_and_asks_nothing_twice(
    run_script: RunScript, tmp_path: Path, arguments: list[object], undisturbed: Evaluation
) -> None:
    first = run_script(SCRIPT, *arguments, "--worst-misses", 2)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0] == f"ssd: {NUM_IMAGES} images of instances_val2017.json (all images)"
    assert [line.split()[0] for line in lines[1:13]] == list(undisturbed.metrics.figures)
    assert lines[14:] == ["out/detections.json", "out/metrics.json", "out/report.html"]
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["figures"] == undisturbed.metrics.figures
    assert metrics["set"].endswith("(all images)")
    assert metrics["counts"]["images"] == NUM_IMAGES
    assert metrics["speed"]["images_per_s"] > 0
    assert metrics["served"]["models"]["ssd_detector"]["default_model_filename"] == "onnx_fp32.onnx"
    results = json.loads((tmp_path / "out/detections.json").read_text())
    assert {result["image_id"] for result in results} == {image.id for image in undisturbed.dataset.images}
    assert len(list((tmp_path / "out/misses").glob("*.jpg"))) <= 2
    kept = (tmp_path / "out" / JOURNAL).read_bytes()
    second = run_script(SCRIPT, *arguments)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "out" / JOURNAL).read_bytes() == kept
    assert second.stdout == first.stdout


def test_command_serves_by_itself(run_script: RunScript, tmp_path: Path, folder: Path, config: Config) -> None:
    arguments = ["--images", folder / "val2017", "--annotations", folder / "annotations/instances_val2017.json"]
    result = run_script(SCRIPT, *arguments, "--limit", 1, "--serve", "onnx_fp32", "--output", "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("onnx_fp32: 1 images of instances_val2017.json (all images, 1 spread evenly")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    artefact = config.model_repository / "ssd_detector/1/onnx_fp32.onnx"
    assert metrics["served"]["artefacts"]["ssd_detector"] == sha256_of(artefact)


def test_http_and_batches_give_the_same(
    light_http_detector: DetectorClient, dataset: Dataset, undisturbed: Evaluation, tmp_path: Path
) -> None:
    batched = Settings("ssd", 81, batch=3)
    found = evaluate_served(light_http_detector, dataset, tmp_path, batched, name="ssd")
    assert found.metrics.ap == pytest.approx(undisturbed.metrics.ap, abs=5e-4)
    # What gRPC began, HTTP may finish: both tell the same configuration.
    assert found.facts["served"]["models"] == undisturbed.facts["served"]["models"]


# --- Interruptions ----------------------------------------------------------------------------------------------------


def test_interrupted_runs_go_on(
    run_script: RunScript, tmp_path: Path, arguments: list[object], undisturbed: Evaluation
) -> None:
    kept = tmp_path / "out" / JOURNAL
    before: list[int] = []
    for how, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        assert disturb(arguments, tmp_path, kept, len(before) + 2, how) == code
        ids = kept_ids(kept)
        assert ids[: len(before)] == before
        assert len(before) + 2 <= len(ids) < NUM_IMAGES
        before = ids
    with kept.open("a") as file:
        file.write('{"image_id": 1, "sess')  # what a kill in the middle of a line leaves
    result = run_script(SCRIPT, *arguments)
    assert result.returncode == 0, result.stderr
    ids = kept_ids(kept)
    assert ids[: len(before)] == before
    assert sorted(ids) == sorted(image.id for image in undisturbed.dataset.images)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["figures"] == undisturbed.metrics.figures
    assert metrics["speed"]["sessions"] == 3


def disturb(arguments: list[object], folder: Path, kept: Path, count: int, how: signal.Signals) -> int:
    """Send a signal to the command once it has kept so many results; returns its exit code."""
    command = [sys.executable, str(ROOT / SCRIPT), *map(str, arguments), "--in-flight", "1"]
    with Interruptible(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for_results(kept, count, lambda: process.poll() is None)
        process.send_signal(how)
        _, stderr = process.communicate(timeout=30)
    assert "Traceback" not in stderr
    return process.returncode


def test_full_disk_is_one_line_and_loses_nothing(
    light_grpc_detector: DetectorClient, tmp_path: Path, arguments: list[object], undisturbed: Evaluation
) -> None:
    """The kernel refuses to write beyond a limit, as it does when the disk is full."""
    # The limit is set by a process of its own: forking this one would disturb the threads of gRPC.
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (7000, 7000)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    result = subprocess.run(
        [sys.executable, "-c", limited, sys.executable, str(ROOT / SCRIPT), *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_one_line_error(result, "cannot write out/results.jsonl", "all results before are kept; make room")
    before = kept_ids(tmp_path / "out" / JOURNAL)
    assert 0 < len(before) < NUM_IMAGES
    assert_same_figures(
        evaluate_served(light_grpc_detector, undisturbed.dataset, tmp_path / "out", SETTINGS, name="ssd"), undisturbed
    )
    assert kept_ids(tmp_path / "out" / JOURNAL)[: len(before)] == before


def test_other_annotations_and_other_weights_are_noticed(
    light_grpc_detector: DetectorClient, folder: Path, labels: tuple[str, ...], tmp_path: Path
) -> None:
    source = DatasetSource(folder / "val2017", folder / "annotations/instances_val2017.json", limit=2)
    small = load_dataset(source, labels)
    evaluate_served(light_grpc_detector, small, tmp_path, SETTINGS, name="ssd")
    other = tmp_path / "other.json"
    other.write_text(source.annotations.read_text() + "\n")
    changed = load_dataset(DatasetSource(source.images, other, limit=2), labels)
    with pytest.raises(JournalError, match=r"dataset\.annotations_sha256 was .*--restart"):
        evaluate_served(light_grpc_detector, changed, tmp_path, SETTINGS, name="ssd")
    # Answers that this server would not give: those of other weights under the same name. One is still to come.
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    value = json.loads(lines[2])
    value["scores"] = [score / 2 for score in value["scores"]]
    (tmp_path / JOURNAL).write_text("\n".join([*lines[:2], json.dumps(value)]) + "\n")
    with pytest.raises(EvaluationError, match="holds results of another model"):
        evaluate_served(light_grpc_detector, small, tmp_path, SETTINGS, name="ssd")
    restarted = Settings("ssd", 81, restart=True)
    assert len(evaluate_served(light_grpc_detector, small, tmp_path, restarted, name="ssd").results) > 0


# --- A server that dies and comes back --------------------------------------------------------------------------------


@pytest.fixture
def stricter_repository(light_repository: Path, tmp_path: Path) -> Path:
    """The same models, served with another threshold."""
    copy = copy_repository(light_repository, tmp_path / "model_repository")
    path = copy / "ssd_postprocess/config.pbtxt"
    text = path.read_text()
    changed = text.replace(
        'key: "score_thresh" value { string_value: "0.05" }', 'key: "score_thresh" value { string_value: "0.3" }'
    )
    assert changed != text
    path.unlink()
    path.write_text(changed)
    return copy


def disturbed(
    config: Config, dataset: Dataset, folder: Path, repository_before: Path, repository_after: Path
) -> Evaluation:
    """Evaluate while the server is killed, and another one starts at the same ports."""
    settings = config.server.for_one_run()
    with ThreadPoolExecutor(1) as pool:
        with EmbeddedServer(repository_before, "onnx_fp32", settings) as first:
            client = DetectorClient(first.url("grpc"), timeout_s=20, in_flight=2, retry_s=60)
            future = pool.submit(evaluate_served, client, dataset, folder, SETTINGS, name="ssd")
            wait_for_results(folder / JOURNAL, 2, lambda: not future.done())
            os.kill(first.pid, signal.SIGKILL)
        ports = {name: getattr(first.config, name) for name in ("grpc_port", "http_port", "metrics_port")}
        with client, EmbeddedServer(repository_after, "onnx_fp32", config.server.model_copy(update=ports)) as second:
            # All that is lost beyond the time without a server, but for the requests that it was killed with.
            assert seconds_until_asked(second) < 2
            return future.result(timeout=90)


def test_server_that_comes_back_costs_only_time(
    config: Config, dataset: Dataset, undisturbed: Evaluation, light_repository: Path, tmp_path: Path
) -> None:
    evaluation = disturbed(config, dataset, tmp_path / "out", light_repository, light_repository)
    assert_same_figures(evaluation, undisturbed)
    ids = kept_ids(tmp_path / "out" / JOURNAL)
    assert sorted(ids) == sorted(image.id for image in dataset.images)
    assert evaluation.speed is not None
    assert evaluation.speed.retries > 0


def test_server_that_comes_back_as_another_is_refused(
    config: Config, dataset: Dataset, light_repository: Path, stricter_repository: Path, tmp_path: Path
) -> None:
    words = r"came back with another model: .*score_thresh.* was 0\.05, is 0\.3"
    with pytest.raises(EvaluationError, match=words):
        disturbed(config, dataset, tmp_path / "out", light_repository, stricter_repository)
    assert 2 <= len(kept_ids(tmp_path / "out" / JOURNAL)) < NUM_IMAGES


def test_server_that_stays_away_ends_the_run(photograph: bytes) -> None:
    with DetectorClient("127.0.0.1:9", timeout_s=5, retry_s=1) as client:
        start_s = time.monotonic()
        error = client.submit(photograph).exception()
        assert "no Triton server answers" in str(error)
        assert 0.5 < time.monotonic() - start_s < 4
        assert client.retries > 1
    with DetectorClient("127.0.0.1:9", timeout_s=5, retry_s=600) as client:
        future = client.submit(photograph)
        threading.Timer(0.5, client.close).start()
        assert future.exception(timeout=10) is not None  # closing ends the waiting


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    return write_damaged(folder, tmp_path)


@pytest.mark.parametrize("batch", [1, 4])
def test_corrupt_image_counts_as_without_detections(
    run_script: RunScript, damaged: Path, light_server: EmbeddedServer, batch: int
) -> None:
    arguments = [
        "--images",
        ".",
        "--annotations",
        "instances.json",
        "--url",
        light_server.url("grpc"),
        "--batch",
        batch,
    ]
    result = run_script(SCRIPT, *arguments, "--output", "out")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "refused: 1.jpg: batch element 0: the image is damaged" in result.stderr
    metrics = json.loads((damaged / "out/metrics.json").read_text())
    assert list(metrics["counts"]["images_refused"]) == ["1.jpg"]
    assert metrics["figures"]["AR100"] <= 0.75
    results = json.loads((damaged / "out/detections.json").read_text())
    assert {one["image_id"] for one in results} == {100, 98, 97}
    if batch == 1:
        assert run_script(SCRIPT, *arguments, "--output", "out", "--allow-corrupt").returncode == 0


def test_labels_of_another_model_are_refused(
    run_script: RunScript, damaged: Path, light_server: EmbeddedServer
) -> None:
    (damaged / "labels.txt").write_text("background\nperson\n")
    make = with_content("one.json", categories=[{"id": 10, "name": "person"}])
    result = run_script(SCRIPT, *make(damaged), "--labels-path", "labels.txt", "--url", light_server.url("grpc"))
    assert_one_line_error(result, "has 81 classes, expected 2", "--labels-path")


# --- Every variant ----------------------------------------------------------------------------------------------------


@pytest.fixture
def compared(run_script: RunScript, folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return run_script(
        "tools/compare_accuracy.py",
        *("--images", folder / "val2017", "--annotations", folder / "annotations/instances_val2017.json"),
        *("--limit", 2, "--variant", "onnx_fp32", "tensorrt_fp16", "--output", tmp_path / "out"),
    )


def test_compare_accuracy(compared: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    assert compared.returncode == 0, compared.stderr
    lines = compared.stdout.splitlines()
    assert lines[0].startswith("2 images of instances_val2017.json")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["PyTorch FP32, offline", "`onnx_fp32`", "`tensorrt_fp16`"]
    assert float(rows[3][1]) == pytest.approx(float(rows[2][1]), abs=6e-4)
    assert rows[3][-1] == "ok"
    if not torch.cuda.is_available():
        assert rows[4][-1].startswith("skipped: no GPU")
    assert (tmp_path / "out/accuracy.md").read_text() == compared.stdout
    for name in ("reference", "onnx_fp32"):
        assert json.loads((tmp_path / "out" / name / "metrics.json").read_text())["counts"]["images"] == 2
    with Image.open(tmp_path / "out/accuracy.png") as plot:
        assert min(plot.size) > 300
