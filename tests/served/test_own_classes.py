"""Classes of the user's own, from a checkpoint and a labels file to detections through the real server."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ssd_triton.client import DetectorClient
from ssd_triton.common.files import ROOT
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.detector.network.ssd import SSD300, ServedDetector, predict
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import postprocess
from ssd_triton.detector.protocol import preprocess
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.serving.repository.repository import ModelRepository
from ssd_triton.serving.server import EmbeddedServer

LABELS = ("background", "fox", "owl", "newt", "hare", "otter")
RunMain = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network of five classes with random weights that detects something in every image."""
    torch.manual_seed(5)
    network = SSD300("resnet50", len(LABELS)).eval()
    with torch.no_grad():
        for head in network.conf:
            head.weight.mul_(20)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_one_option_serves_other_classes(
    config: Config, weights: Path, tmp_path: Path, photograph: bytes, run_main: RunMain
) -> None:
    skip = shutil.ignore_patterns("*.onnx", "*.pt", "*.plan", "*.json")
    tree = Path(shutil.copytree(ROOT / "model_repository", tmp_path / "model_repository", ignore=skip))
    labels = tmp_path / "my_labels.txt"
    labels.write_bytes("\r\n".join(LABELS).encode("utf-8-sig"))
    options = ["--labels", labels, "--weights-path", weights, "--model-repository", tree, "--variant", "onnx_fp32"]
    result = run_main("tools/build_repository.py", *options)
    assert result.returncode == 0, result.stderr
    written = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("written")]
    assert any(path.endswith("ssd_detector/labels.txt") for path in written)
    assert load_labels(tree / "ssd_detector/labels.txt") == LABELS
    again = run_main("tools/build_repository.py", *options)
    assert {line.split()[0] for line in again.stdout.splitlines()} == {"current"}

    network = ServedDetector(WeightsFile(weights).load_network(config.backbone, len(LABELS))).eval()
    image, size_px = preprocess(photograph)
    [loc], [conf] = predict(network, image[np.newaxis])
    expected = postprocess(loc, conf, size_px, PostprocessParameters())
    with (
        EmbeddedServer(tree, "onnx_fp32", config.server.for_one_run()) as server,
        DetectorClient(server.url("grpc"), timeout_s=60) as client,
    ):
        found = client.detect(photograph)
    assert ModelRepository(tree).num_labels == len(LABELS)
    assert len(found) == len(expected) > 0
    assert set(found.class_ids.tolist()) == set(expected.class_ids.tolist()) <= set(range(1, len(LABELS)))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
