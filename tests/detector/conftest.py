"""Fixtures of the detector's tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ssd_triton.config import Config
from ssd_triton.detector.engines.engine import Engine
from ssd_triton.detector.export.samples import photographs
from ssd_triton.detector.quantization.calibration import calibrate, load_images
from ssd_triton.detector.quantization.ranges import CalibrationRanges
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.serving.repository.build import ensure_built
from tests.detector.engines import buildable_engine
from tests.detector.quantized import OUTPUTS, TENSORS
from tests.detector.site import Site


@pytest.fixture(scope="module")
def onnx_int8(config: Config) -> Path:
    """The file that ONNX Runtime and OpenVINO serve."""
    ensure_built(config, lambda line: None, only=["onnx_int8"])
    return config.model_repository / "ssd_detector/1/onnx_int8.onnx"


@pytest.fixture(scope="module")
def onnx_fp32(onnx_int8: Path) -> Path:
    """What INT8 was made from, hence built before it."""
    return onnx_int8.with_name("onnx_fp32.onnx")


@pytest.fixture
def buildable(config: Config, onnx_fp32: Path, tmp_path: Path) -> Engine:
    """An engine that builds; tests change one thing of it."""
    return buildable_engine(config, onnx_fp32, tmp_path / "engines/detector.plan")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(BaseHTTPRequestHandler):
        """Follows the plan."""

        site: ClassVar[Site]

        def do_GET(self) -> None:
            """Answer one request."""
            self.site.num_requests += 1
            (self.site.plan.popleft() if self.site.plan else self.site.answer)(self)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.site = Site(url=f"http://127.0.0.1:{server.server_port}/model.pt")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield Handler.site
        server.shutdown()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "model.pt"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP32: stem, MaxPool, a residual block with a convolution on its skip side, and two heads on one map."""
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["pixels"]),
    ]
    constants = [numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")]

    def conv(name: str, source: str, sides: tuple[int, int, int], stride: int = 1) -> None:
        out_channels, in_channels, kernel = sides
        weight = random.normal(0, 0.3, (out_channels, in_channels, kernel, kernel)).astype(np.float32)
        bias = random.normal(0, 0.1, out_channels).astype(np.float32)
        constants.extend([numpy_helper.from_array(weight, f"{name}.weight"), numpy_helper.from_array(bias, name)])
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [source, f"{name}.weight", name], [f"{name}_out"], pads=pads, strides=[stride] * 2)
        )

    conv("stem", "pixels", (8, 3, 3), stride=10)
    nodes.append(helper.make_node("Relu", ["stem_out"], ["stem_relu"]))
    nodes.append(helper.make_node("MaxPool", ["stem_relu"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]))
    conv("main", "pooled", (8, 8, 3))
    conv("skip", "pooled", (8, 8, 1))
    nodes.append(helper.make_node("Add", ["main_out", "skip_out"], ["sum"]))
    nodes.append(helper.make_node("Relu", ["sum"], ["map"]))
    conv("loc_head", "map", (4, 8, 3))
    conv("conf_head", "map", (3, 8, 3))
    nodes.append(helper.make_node("Identity", ["loc_head_out"], ["loc"]))
    nodes.append(helper.make_node("Identity", ["conf_head_out"], ["conf"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 300, 300, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n, 15, 15]) for name, n in OUTPUTS],
        constants,
    )
    path = tmp_path_factory.mktemp("tiny") / "fp32.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> WeightsFile:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"stands for weights")
    return WeightsFile(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight real views, named as COCO does."""
    folder = tmp_path_factory.mktemp("train")
    for index, view in enumerate(photographs(None, 8)):
        Image.fromarray(view).save(folder / f"{index + 100:012d}.png")
    return folder


@pytest.fixture
def ranges(tiny: Path, images: Path, weights: WeightsFile) -> CalibrationRanges:
    return calibrate(tiny, TENSORS, load_images(images, 4), "minmax", weights=weights, weight_bits=8)
