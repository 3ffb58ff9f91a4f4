"""More requests than a server answers: refusals at once."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from ssd_triton.client import (
    DeadlineExceededError,
    DetectorClient,
    ServerOverloadedError,
)
from ssd_triton.config import Config
from ssd_triton.measuring.overload.report import write_report
from ssd_triton.measuring.overload.run import OverloadSettings, RequestOutcome, measure_overload
from ssd_triton.measuring.traffic import same_detections
from ssd_triton.serving.repository.build import ensure_built
from ssd_triton.serving.server import EmbeddedServer
from tests.light import copy_repository
from tests.served.helpers import executed

QUEUE = 2
MANY = 24
"""Requests at once: more than the queue and a batch of the detector hold."""


@pytest.fixture(scope="module")
def limited(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The default variant, with room for two requests before the detector."""
    ensure_built(config, lambda line: None, only=[config.variant])
    copy = copy_repository(config.model_repository, tmp_path_factory.mktemp("limited") / "model_repository")
    path = copy / f"ssd_detector/configs/{config.variant}.pbtxt"
    text, count = re.subn(r"max_queue_size: \d+", f"max_queue_size: {QUEUE}", path.read_text())
    assert count == 1
    path.unlink()
    path.write_text(text)
    settings = config.server.for_one_run()
    with EmbeddedServer(copy, config.variant, settings) as running:
        yield running


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_full_queue_has_an_error_of_its_own(
    limited: EmbeddedServer, protocol: Literal["grpc", "http"], photograph: bytes
) -> None:
    with DetectorClient(limited.url(protocol), protocol=protocol, timeout_s=60, in_flight=MANY) as client:
        expected = client.detect(photograph)
        futures = [client.submit(photograph) for _ in range(MANY)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        answers = [future.result() for future in futures if future.exception() is None]
        assert all(same_detections(answer, expected) for answer in answers)
        # What is refused is tried again, after pauses.
        assert client.retries > 0
        assert client.retries >= 3 * len(errors)
    assert len(answers) >= QUEUE
    for error in errors:
        assert isinstance(error, ServerOverloadedError)
        assert "Exceeds maximum queue size: more requests arrive than the server can answer" in str(error)


def test_a_full_queue_on_a_stream(limited: EmbeddedServer, photograph: bytes) -> None:
    with DetectorClient(limited.url("grpc"), timeout_s=60, in_flight=MANY) as client:
        with pytest.raises(ServerOverloadedError, match="Exceeds maximum queue size"):
            list(client.stream([photograph] * MANY))


def wait_idle(server: EmbeddedServer, photograph: bytes) -> None:
    """What a client has given up may still be computed."""
    url = f"http://127.0.0.1:{server.config.metrics_port}/metrics"
    deadline_s = time.monotonic() + 60
    pending = re.compile(rb"^nv_inference_pending_request_count\{.*\} ([1-9]\d*)", re.MULTILINE)
    while pending.search(urllib.request.urlopen(url, timeout=10).read()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    with DetectorClient(server.url("grpc"), timeout_s=60, retry_s=60) as client:
        client.detect(photograph)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_nobody_waits_for_is_not_computed(
    limited: EmbeddedServer, protocol: Literal["grpc", "http"], photograph: bytes
) -> None:
    """The client's deadline is the request's own in the queue."""
    wait_idle(limited, photograph)
    with (
        # Requests that are late keep their places in the queue until the server drops them.
        DetectorClient(limited.url("grpc"), timeout_s=60, retry_s=60) as client,
        DetectorClient(limited.url(protocol), protocol=protocol, timeout_s=0.05, in_flight=2) as hasty,
    ):
        before, preprocessed = executed(limited, "ssd_detector"), executed(limited, "ssd_preprocess") + 3
        # A batch that keeps the detector busy while the others wait.
        busy = client.submit_batch([photograph] * 3)
        while executed(limited, "ssd_preprocess") < preprocessed:
            time.sleep(0.01)
        late = [hasty.submit(photograph) for _ in range(2)]
        for future in late:
            assert isinstance(future.exception(), DeadlineExceededError | ServerOverloadedError)
        assert len(busy.result()) == 3
        assert len(client.detect(photograph)) > 0
        assert executed(limited, "ssd_detector") - before == 3 + 1


def test_an_overload_is_refused_at_once_and_passes(limited: EmbeddedServer, photograph: bytes, tmp_path: Path) -> None:
    wait_idle(limited, photograph)
    settings = OverloadSettings(saturate_s=1.5, offer_s=3.0, in_flight=2, timeout_s=60.0)
    result = measure_overload(limited, photograph, settings)
    answered, refused = RequestOutcome.ANSWERED, RequestOutcome.REFUSED
    answered_s, refused_s = (result.latencies_s(outcome) for outcome in (answered, refused))
    assert len(answered_s) + len(refused_s) == len(result.requests)
    assert min(len(answered_s), len(refused_s)) > 0
    assert result.max_queue_size == QUEUE
    # Generous, since the rate of a busy machine changes meanwhile; perf/overload.py holds to the bound itself.
    rate_per_s = min(result.saturated_per_s, result.goodput_per_s)
    bound_s = 4 * (result.max_queue_size + result.largest_batch) / rate_per_s + max(result.unloaded_s)
    assert max(answered_s) < bound_s
    assert np.median(refused_s) < np.median(answered_s)
    assert result.first_answer_s < bound_s
    assert "| answered |" in write_report(tmp_path, result)
    unlimited = replace(result, requests=[one for one in result.requests if one.outcome is answered])
    assert "nothing was refused" in " ".join(unlimited.failures())
    broken = replace(
        result, requests=[replace(one, outcome=RequestOutcome.FAILED, problem="why") for one in result.requests]
    )
    assert f"{len(result.requests)} requests failed: why" in broken.failures()
    with Image.open(tmp_path / "overload.png") as picture:
        assert min(picture.size) > 300
