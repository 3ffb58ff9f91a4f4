"""The embedded server runs every variant that a CPU can run, and the post-processing that belongs to it."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient import grpc as grpc_client
from tritonclient.utils import np_to_triton_dtype

from ssd_triton.client import DetectorClient
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import OUTPUTS, check_detections
from ssd_triton.serving.repository.build import ensure_built
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import long

MAX_BOX_ERROR_PX = {"pytorch_fp32": 0.5, "pytorch_fp16": 2, "pytorch_fused_fp16": 2, "onnx_int8": 25}
"""Of the photograph's one box, by variant."""


def infer_postprocess(server: EmbeddedServer, arrays: dict[str, np.ndarray], times: int) -> dict[str, np.ndarray]:
    """Ask the served post-processing alone, for the arrays several times over; what it says of the last."""
    inputs = []
    for name, array in arrays.items():
        repeated = np.concatenate([array] * times)
        tensor = grpc_client.InferInput(name, list(repeated.shape), np_to_triton_dtype(repeated.dtype))
        tensor.set_data_from_numpy(repeated)
        inputs.append(tensor)
    with grpc_client.InferenceServerClient(server.url("grpc")) as client:
        result = client.infer("ssd_postprocess", inputs)
    return {name: result.as_numpy(name)[-len(arrays["loc"]) :] for name in OUTPUTS}


@pytest.mark.parametrize(
    # Without a GPU, pytorch_fp16 runs in FP32 as pytorch_fp32 does.
    "variant",
    [pytest.param(name, marks=long if name == "pytorch_fp16" else ()) for name in MAX_BOX_ERROR_PX],
)
def test_the_server_runs_it(config: Config, variant: str, photograph: bytes, grpc_detector: DetectorClient) -> None:
    ensure_built(config, lambda line: None, only=[variant])
    expected = grpc_detector.detect(photograph).filter(score_thresh=0.5)
    with (
        EmbeddedServer(config.model_repository, variant, config.server.for_one_run()) as server,
        DetectorClient(server.url("grpc"), timeout_s=60) as client,
    ):
        found = client.detect(photograph).filter(score_thresh=0.5)
        batch = client.detect_batch([photograph] * 2)
        # Requests that wait for each other run together.
        batch += [one for one in client.map([photograph] * 2) if isinstance(one, Detections)]
        # Twice the four images of the check, as one request: raw predictions in, detections out.
        check_detections(lambda inputs: infer_postprocess(server, inputs, times=2), 81, PostprocessParameters())
    assert found.class_ids.tolist() == expected.class_ids.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-2)
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=MAX_BOX_ERROR_PX[variant])
    assert len(batch) == 4
    for one in batch:
        np.testing.assert_allclose(one.filter(score_thresh=0.5).boxes_xyxy, found.boxes_xyxy, atol=0.5)
