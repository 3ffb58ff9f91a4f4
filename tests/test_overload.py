"""More requests than a server answers, and a soak: refusals at once, every answer checked, deaths noticed."""

from __future__ import annotations

import csv
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from PIL import Image

from ssd_triton.client import (
    ClientError,
    DeadlineExceededError,
    DetectorClient,
    RequestRefusedError,
    ServerOverloadedError,
)
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.measuring.overload.report import plot, table
from ssd_triton.measuring.overload.run import Outcome, OverloadSettings, measure_overload
from ssd_triton.measuring.soak import cases
from ssd_triton.measuring.soak.report import report, write_report
from ssd_triton.measuring.soak.run import SoakSettings, soak
from ssd_triton.measuring.soak.traffic import Lane, Traffic, same_detections
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.stubs import find_stubs
from tests.light import copy_repository

QUEUE = 2


@pytest.fixture(scope="module")
def limited(
    config: Config, tmp_path_factory: pytest.TempPathFactory, server: EmbeddedServer
) -> Iterator[EmbeddedServer]:
    """The same models, with room for two requests before the detector."""
    assert server.pid
    copy = copy_repository(config.model_repository, tmp_path_factory.mktemp("limited") / "model_repository")
    path = copy / "ssd_detector/configs/onnx_fp32.pbtxt"
    text, count = re.subn(r"max_queue_size: \d+", f"max_queue_size: {QUEUE}", path.read_text())
    assert count == 1
    path.unlink()
    path.write_text(text)
    settings = config.server.for_one_run()
    with EmbeddedServer(copy, "onnx_fp32", settings) as running:
        yield running


# --- Overload ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_full_queue_has_an_error_of_its_own(
    limited: EmbeddedServer, protocol: Literal["grpc", "http"], photograph: bytes
) -> None:
    with DetectorClient(limited.url(protocol), protocol=protocol, timeout_s=60, in_flight=8) as client:
        expected = client.detect(photograph)
        futures = [client.submit(photograph) for _ in range(8)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        answers = [future.result() for future in futures if future.exception() is None]
        assert all(same_detections(answer, expected) for answer in answers)
        # What is refused is tried again, after pauses.
        assert client.retries > 0
        assert client.retries >= 3 * len(errors)
    assert len(answers) >= QUEUE
    for error in errors:
        assert isinstance(error, ServerOverloadedError)
        assert "Exceeds maximum queue size: more requests come than the server answers" in str(error)


def test_a_full_queue_on_a_stream(limited: EmbeddedServer, photograph: bytes) -> None:
    with DetectorClient(limited.url("grpc"), timeout_s=60, in_flight=8) as client:
        with pytest.raises(ServerOverloadedError, match="Exceeds maximum queue size"):
            list(client.stream([photograph] * 8))


def wait_idle(server: EmbeddedServer, photograph: bytes) -> None:
    """What a client has given up may still be computed."""
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    deadline_s = time.monotonic() + 60
    pending = re.compile(rb"^nv_inference_pending_request_count\{.*\} ([1-9]\d*)", re.MULTILINE)
    while pending.search(urllib.request.urlopen(url, timeout=10).read()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    with DetectorClient(server.url("grpc"), timeout_s=60, retry_s=60) as client:
        client.detect(photograph)


def executed(server: EmbeddedServer, model: str) -> int:
    statistics = grpc_client.InferenceServerClient(server.url("grpc")).get_inference_statistics(model)
    return int(statistics.model_stats[0].inference_count)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_nobody_waits_for_is_not_computed(
    limited: EmbeddedServer, protocol: Literal["grpc", "http"], photograph: bytes
) -> None:
    """The client's deadline is the request's own in the queue."""
    wait_idle(limited, photograph)
    with (
        DetectorClient(limited.url("grpc"), timeout_s=60) as client,
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
    answered_s, refused_s = (result.latencies_s(outcome) for outcome in (Outcome.ANSWERED, Outcome.REFUSED))
    assert len(answered_s) + len(refused_s) == len(result.requests)
    assert min(len(answered_s), len(refused_s)) > 0
    assert result.max_queue_size == QUEUE
    # Generous, since the rate of a busy machine changes meanwhile; perf/overload.py holds to the bound itself.
    assert max(answered_s) < 4 * result.bound_s + max(result.unloaded_s)
    assert np.median(refused_s) < np.median(answered_s)
    assert result.first_answer_s < 4 * result.bound_s + max(result.unloaded_s)
    assert "| answered |" in table(result)
    unlimited = replace(result, requests=[one for one in result.requests if one.outcome is Outcome.ANSWERED])
    assert "nothing was refused" in " ".join(unlimited.failures())
    broken = replace(result, requests=[replace(one, outcome=Outcome.FAILED, problem="why") for one in result.requests])
    assert f"{len(result.requests)} requests failed: why" in broken.failures()
    plot(tmp_path / "overload.png", result)
    with Image.open(tmp_path / "overload.png") as picture:
        assert min(picture.size) > 300


# --- Soak -------------------------------------------------------------------------------------------------------------


def test_a_short_soak(light_server: EmbeddedServer, tmp_path: Path) -> None:
    settings = SoakSettings(seconds=4.0, preprocess_per_s=40.0, bad_fraction=0.3, sample_s=0.5, max_growth=10.0)
    result = soak(light_server, settings)
    assert result.failures() == []
    assert set(result.tallies) == {"ssd", "ssd_frames", "ssd_preprocess, grpc", "ssd_preprocess, http"}
    for kind, tally in result.tallies.items():
        assert tally.wrong == 0, tally.problems
        assert tally.answered + tally.refused > 0, kind
    preprocess = [tally for kind, tally in result.tallies.items() if kind.startswith("ssd_preprocess")]
    assert sum(tally.refused for tally in preprocess) >= 5
    assert sum(tally.answered for tally in preprocess) >= 20
    markdown, samples, picture = write_report(tmp_path, result)
    assert markdown.read_text().startswith("# Soak: passed")
    with samples.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 6
    assert float(rows[-1]["tritonserver rss_mib"]) > 10
    with Image.open(picture) as image:
        assert min(image.size) > 600
    grown = replace(result, settings=replace(settings, max_growth=-1.0))
    assert "resident memory grew by" in grown.failures()[0]


def wrong_answers(detector: DetectorClient) -> dict[str, Callable[[cases.Case], Any]]:
    other = detector.detect(cases.views()[2].image)  # type: ignore[arg-type]

    def fail(_: cases.Case) -> Detections:
        raise ClientError("no luck")

    return {"another answer": lambda _: other, "an error": fail, "an answer to what is bad": detector_of(detector)}


def detector_of(detector: DetectorClient) -> Callable[[cases.Case], Detections]:
    return lambda _: detector.detect(cases.views()[0].image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("another answer", "view 0: got another answer than at the beginning"),
        ("an error", "view 0: got ClientError: no luck"),
        ("an answer to what is bad", "empty: got an answer, expected the refusal 'got 0 bytes"),
    ],
)
def test_a_soak_notices_wrong_answers(light_grpc_detector: DetectorClient, case: str, words: str) -> None:
    later = wrong_answers(light_grpc_detector)[case]
    asked = 0

    def ask(one: cases.Case) -> Detections:
        """Right for as long as the traffic prepares itself."""
        nonlocal asked
        asked += 1
        return light_grpc_detector.detect(one.image) if asked <= 3 else later(one)  # type: ignore[arg-type]

    bad_fraction = 1.0 if "bad" in case else 0.0
    lane = Lane("ssd", cases.views()[:1], cases.refused_images()[:1], ask, same_detections, workers=1)
    with Traffic([lane], bad_fraction, seed=0) as traffic:
        deadline_s = time.monotonic() + 30
        while not traffic.tallies["ssd"].wrong:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    assert traffic.tallies["ssd"].problems[0].startswith(words)


def test_every_bad_case_is_refused_for_its_reason(light_grpc_detector: DetectorClient) -> None:
    for case in cases.refused_images():
        with pytest.raises(RequestRefusedError, match=re.escape(str(case.reason))):
            light_grpc_detector.detect(case.image)  # type: ignore[arg-type]


def test_a_soak_notices_a_death(config: Config, light_repository: Path) -> None:
    # What waits for the dead process is never answered: its server need not wait for that when it ends.
    settings = config.server.for_one_run().model_copy(update={"shutdown_timeout_s": 1.0})
    with EmbeddedServer(light_repository, "onnx_fp32", settings) as doomed, ThreadPoolExecutor(1) as pool:
        future = pool.submit(soak, doomed, SoakSettings(seconds=60.0, preprocess_per_s=20.0, sample_s=0.5))
        while executed(doomed, "ssd_preprocess") < 60:  # more than what prepares the traffic
            assert not future.done()
            time.sleep(0.05)
        find_stubs(doomed.pid)["ssd_postprocess_0_0"].kill()
        result = future.result(timeout=90)
    assert result.death is not None
    assert "the process of ssd_postprocess_0_0 has died" in result.failures()[0]
    assert "# Soak: failed" in report(result)


@pytest.mark.parametrize("script", ["perf/overload.py", "perf/soak.py"])
def test_help_shows_an_example_and_defaults(
    run_main: Callable[..., subprocess.CompletedProcess[str]], script: str
) -> None:
    result = run_main(script, "--help")
    assert result.returncode == 0, result.stderr
    assert f"python {script}" in result.stdout
    assert "(default: " in result.stdout
