"""Decoding at a reduced scale: off as committed, exact where it does not apply, PIL's own where it does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc_client
from PIL import Image

from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.config import Config
from ssd_triton.detector.protocol import preprocess
from ssd_triton.measuring.reduced_decode import enlarged
from ssd_triton.measuring.sweeps.sweep_file import ModelTuning
from ssd_triton.measuring.sweeps.tuning import tuned_repository
from ssd_triton.serving.server import EmbeddedServer


def preprocessed(server: EmbeddedServer, encoded: bytes) -> tuple[np.ndarray, list[int]]:
    """What the served preprocessing makes of a file: UINT8 [300, 300, 3], and the size that it found."""
    client = grpc_client.InferenceServerClient(server.url("grpc"))
    image = grpc_client.InferInput("IMAGE", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[encoded]], np.object_))
    result = client.infer(PREPROCESS, [image])
    client.close()
    return result.as_numpy("image")[0], result.as_numpy("original_size")[0].tolist()


def test_as_committed_large_files_are_decoded_whole(light_server: EmbeddedServer, photograph: bytes) -> None:
    large, _ = enlarged(photograph, 1400)
    image, size_px = preprocessed(light_server, large)
    expected, expected_size_px = preprocess(large)
    assert np.array_equal(image, expected) and size_px == list(expected_size_px)


def test_with_a_ratio_only_files_that_stay_large_enough_are_reduced(
    config: Config, light_repository: Path, photograph: bytes, tmp_path: Path
) -> None:
    tuning = {PREPROCESS: ModelTuning(parameters={"reduced_decode_ratio": "1.5"})}
    repository = tuned_repository(light_repository, tuning, tmp_path / "model_repository")
    settings = config.server.for_one_run()
    at_limit, scale = enlarged(photograph, 900)
    below, _ = enlarged(photograph, 899)
    as_png = io.BytesIO()
    Image.open(io.BytesIO(at_limit)).save(as_png, "PNG")
    with EmbeddedServer(repository, "onnx_fp32", settings) as server:
        for whole in (photograph, below, as_png.getvalue()):
            assert np.array_equal(preprocessed(server, whole)[0], preprocess(whole)[0])
        image, size_px = preprocessed(server, at_limit)
    half = Image.open(io.BytesIO(at_limit))
    half.draft(None, (450, 450))
    assert half.size == (450, (round(600 * scale) + 1) // 2)
    assert np.array_equal(image, np.asarray(half.resize((300, 300), Image.Resampling.BILINEAR)))
    assert size_px == [900, round(600 * scale)]
    whole, _ = preprocess(at_limit)
    assert not np.array_equal(image, whole)
    assert np.abs(image.astype(int) - whole.astype(int)).mean() < 2
