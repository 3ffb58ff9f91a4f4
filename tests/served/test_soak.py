"""A soak: every answer checked, wrong answers and deaths noticed."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssd_triton.client import (
    ClientError,
    DetectorClient,
    RequestRefusedError,
)
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.measuring import request_cases as cases
from ssd_triton.measuring.soak.report import soak_markdown, write_report
from ssd_triton.measuring.soak.run import SoakSettings, soak
from ssd_triton.measuring.traffic import CheckedTraffic, RequestStream, same_detections
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.backend_processes import backend_processes
from tests.served.helpers import executed


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
    stream = RequestStream("ssd", cases.views()[:1], cases.refused_images()[:1], ask, same_detections, workers=1)
    with CheckedTraffic([stream], bad_fraction, seed=0) as traffic:
        deadline_s = time.monotonic() + 30
        while not traffic.tallies["ssd"].problems:
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
        backend_processes(doomed.pid)["ssd_postprocess_0_0"].kill()
        result = future.result(timeout=90)
    assert result.death is not None
    assert "the process of ssd_postprocess_0_0 has died" in result.failures()[0]
    assert "# Soak: failed" in soak_markdown(result)
