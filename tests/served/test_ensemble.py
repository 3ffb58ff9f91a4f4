"""The ensembles on the real server: equal to the reference, batched, in order, over every way in."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from PIL import Image

from ssd_triton.client import DetectorClient
from ssd_triton.common.detections import Detections
from ssd_triton.detector import protocol
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import long
from tests.served.helpers import assert_equal


def views(photograph_rgb: np.ndarray, count: int) -> list[bytes]:
    """Different JPEGs of different sizes, each with detections of its own."""
    image = Image.fromarray(photograph_rgb)
    encoded = []
    for index in range(count):
        buffer = io.BytesIO()
        image.crop((0, 10 * index, 512 - 20 * index, 600)).save(buffer, "JPEG", quality=95)
        encoded.append(buffer.getvalue())
    return encoded


def test_photograph_holds_one_person(detector: DetectorClient, photograph: bytes, labels: tuple[str, ...]) -> None:
    found = detector.detect(photograph).filter(score_thresh=0.5)
    assert [labels[class_id] for class_id in found.class_ids] == ["person"]
    left, top, right, bottom = found.boxes_xyxy[0]
    assert left < 60 and top < 120 and right > 420 and bottom > 520


@pytest.fixture(scope="module")
def expected_of_views(reference_detector: ServedDetector, photograph_rgb: np.ndarray) -> list[Detections]:
    return [protocol.detect(reference_detector, encoded) for encoded in views(photograph_rgb, 3)]


def test_equals_the_reference(
    detector: DetectorClient, expected_of_views: list[Detections], photograph_rgb: np.ndarray
) -> None:
    """Alone and in a batch."""
    first, *others = views(photograph_rgb, 3)
    for found, expected in zip(
        [detector.detect(first), *detector.detect_batch(others)], expected_of_views, strict=True
    ):
        assert len(expected) > 0
        assert_equal(found, expected)


@pytest.mark.parametrize("count", [12, pytest.param(50, marks=long)])
def test_equals_the_reference_on_real_images(
    grpc_detector: DetectorClient, reference_detector: ServedDetector, data: Callable[[str], Path], count: int
) -> None:
    files = sorted(data("coco/val").glob("*.jpg"))[:count]
    assert len(files) == count
    encoded = [path.read_bytes() for path in files]
    for image, found in zip(encoded, grpc_detector.map(encoded), strict=True):
        assert isinstance(found, Detections)
        assert_equal(found, protocol.detect(reference_detector, image))


def test_frames_equal_the_same_pixels_encoded(light_detector: DetectorClient, photograph_rgb: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph_rgb).save(buffer, "PNG")
    from_file = light_detector.detect(buffer.getvalue())
    from_frame = light_detector.detect_frame(photograph_rgb)
    assert len(from_file) > 0
    assert_equal(from_frame, from_file)


def test_a_strided_frame_is_taken_as_it_looks(light_grpc_detector: DetectorClient, photograph_rgb: np.ndarray) -> None:
    mirrored = photograph_rgb[:, ::-1]
    assert not mirrored.flags["C_CONTIGUOUS"]
    assert_equal(light_grpc_detector.detect_frame(mirrored), light_grpc_detector.detect_frame(mirrored.copy()))


def test_responses_come_in_request_order_under_concurrency(
    light_detector: DetectorClient, photograph_rgb: np.ndarray
) -> None:
    images = views(photograph_rgb, 4)
    alone = [light_detector.detect(image) for image in images]
    assert len({tuple(found.scores[:2].tolist()) for found in alone}) == 4
    for found, expected in zip(light_detector.map(images * 2), alone * 2, strict=True):
        assert isinstance(found, Detections)
        assert_equal(found, expected)


def test_stream_answers_in_order(light_grpc_detector: DetectorClient, photograph_rgb: np.ndarray) -> None:
    images = views(photograph_rgb, 3)
    alone = [light_grpc_detector.detect(image) for image in images]
    for found, expected in zip(light_grpc_detector.stream(images * 2), alone * 2, strict=True):
        assert isinstance(found, Detections)
        assert_equal(found, expected)


def test_streaming_needs_grpc(http_detector: DetectorClient, photograph: bytes) -> None:
    with pytest.raises(ValueError, match="grpc"):
        next(http_detector.stream([photograph]))


def test_a_batch_in_one_request(light_detector: DetectorClient, photograph_rgb: np.ndarray) -> None:
    images = views(photograph_rgb, 3)
    for found, image in zip(light_detector.detect_batch(images), images, strict=True):
        assert_equal(found, light_detector.detect(image))


def test_concurrent_requests_share_executions(
    server: EmbeddedServer, grpc_detector: DetectorClient, photograph: bytes
) -> None:
    """Dynamic batching: fewer executions of the detector than requests, counted by the server itself."""
    client = grpc_client.InferenceServerClient(server.url("grpc"))

    def counts() -> tuple[int, int]:
        stats = client.get_inference_statistics("ssd_detector").model_stats[0]
        return stats.inference_count, stats.execution_count

    inferences, executions = counts()
    start = threading.Barrier(5)

    def send() -> Detections:
        start.wait()
        return grpc_detector.detect(photograph)

    with ThreadPoolExecutor(5) as pool:
        results = [future.result() for future in [pool.submit(send) for _ in range(5)]]
    assert len({len(found) for found in results}) == 1
    after = counts()
    assert after[0] - inferences == 5
    assert after[1] - executions < 5


def test_frames_of_different_sizes_in_flight_together(
    light_grpc_detector: DetectorClient, photograph_rgb: np.ndarray
) -> None:
    frames = [photograph_rgb, photograph_rgb[:300], photograph_rgb[100:, :400], photograph_rgb[:, 50:]]
    alone = [light_grpc_detector.detect_frame(frame) for frame in frames]
    futures = [light_grpc_detector.submit_frame(frame) for frame in frames * 2]
    for future, expected in zip(futures, alone * 2, strict=True):
        assert_equal(future.result(), expected)
