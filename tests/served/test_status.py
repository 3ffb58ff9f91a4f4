"""The state of a running server, and what its backends log, against real servers."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from ssd_triton.client import DetectorClient, RequestRefusedError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.log_events import read_events
from tests.conftest import free_url
from tests.interruptible import Interruptible

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
MODELS = {"ssd", "ssd_frames", "ssd_preprocess", "ssd_preprocess_frames", "ssd_detector", "ssd_postprocess"}


def status_of(run_script: RunScript, server: EmbeddedServer, protocol: str, *more: str) -> dict[str, object]:
    url = server.url(protocol)  # type: ignore[arg-type]
    command = ("tools/status.py", "--json", "--url", url, "--protocol", protocol, "--metrics-url", server.metrics_url)
    result = run_script(*command, *more)
    assert result.returncode == 0, result.stderr
    status: dict[str, object] = json.loads(result.stdout)
    return status


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_status_tells_what_has_happened(
    run_script: RunScript,
    server: EmbeddedServer,
    grpc_detector: DetectorClient,
    photograph: bytes,
    protocol: str,
) -> None:
    before = status_of(run_script, server, protocol)
    grpc_detector.detect(photograph)
    with pytest.raises(RequestRefusedError):
        grpc_detector.detect(b"no image")
    after = status_of(run_script, server, protocol)
    assert after["ready"] is True
    assert after["problems"] == ["models that could not be loaded are not listed: that takes --admin-key-file"]
    assert set(after["models"]) == MODELS
    changes = {
        name: {key: model[key] - before["models"][name][key] for key in ("succeeded", "failed", "images")}
        for name, model in after["models"].items()
    }
    assert changes["ssd_detector"] == {"succeeded": 1, "failed": 0, "images": 1}
    assert changes["ssd"]["succeeded"] == 1
    assert changes["ssd"]["failed"] >= 1
    refused = [status["models"]["ssd_preprocess"]["refused"] for status in (before, after)]
    assert refused[1] - refused[0] == 1
    detector_status = after["models"]["ssd_detector"]
    assert detector_status["variant"] == "onnx_fp32"
    assert detector_status["instances"] == "1 x KIND_CPU"
    means = detector_status["mean_ms"]
    assert means["compute_infer"] > means["queue"] >= 0
    assert means["request"] >= means["compute_infer"]
    assert 0 < after["machine"]["cpu_memory_used_bytes"] < after["machine"]["cpu_memory_total_bytes"]


def test_status_as_a_table(run_script: RunScript, light_server: EmbeddedServer) -> None:
    result = run_script("tools/status.py", "--url", light_server.url("grpc"), "--metrics-url", light_server.metrics_url)
    assert result.returncode == 0
    head, _, _, header, *rows = result.stdout.splitlines()
    assert "Triton 2.51.0, ready, variant onnx_fp32" in head
    assert header.split()[0] == "model"
    assert {row.split()[0] for row in rows} == MODELS


def test_status_without_metrics_says_so(run_script: RunScript, light_server: EmbeddedServer) -> None:
    result = run_script(
        "tools/status.py", "--url", light_server.url("grpc"), "--metrics-url", f"http://{free_url()}/metrics"
    )
    assert result.returncode == 0
    assert "no metrics at http://127.0.0.1" in result.stderr
    assert "ssd_detector" in result.stdout


def test_watching_shows_rates_until_interrupted(
    light_server: EmbeddedServer, light_grpc_detector: DetectorClient, photograph: bytes
) -> None:
    command = (
        sys.executable,
        ROOT / "tools/status.py",
        "--watch",
        "0.5",
        "--url",
        light_server.url("grpc"),
        "--no-metrics",
    )
    with Interruptible(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert "since the models were loaded" in watching.stdout.readline()
        light_grpc_detector.detect(photograph)
        output, rows = "", []
        # A sample may come before the detection: the table of the next one has it.
        for line in watching.stdout:
            output += line
            if line.startswith("ssd_detector"):
                rows.append(line.split())
                if len(rows) > 1 and int(rows[-1][8]) >= 1:
                    break
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=20)
    assert watching.returncode == 130
    assert "Traceback" not in errors
    assert "over the last 0." in output or "over the last 1." in output
    assert float(rows[-1][7]) > 0


# --- Logs -------------------------------------------------------------------------------------------------------------


def events(server: EmbeddedServer, request_id: str | None, timeout_s: float = 10) -> list[dict[str, object]]:
    """What the log holds about a request, once it is written."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        with server.log_path.open(encoding="utf-8", errors="replace") as lines:
            found = [event for event in read_events(lines) if request_id in event["request_ids"]]
        if found or time.monotonic() > deadline_s:
            return found
        time.sleep(0.1)


def test_a_refusal_is_logged_with_its_request(light_server: EmbeddedServer, light_detector: DetectorClient) -> None:
    with pytest.raises(RequestRefusedError) as error:
        light_detector.detect(b'quotes " and\nlines } ]')
    [event] = events(light_server, error.value.request_id)
    assert event["event"] == "refused"
    assert event["model"] == "ssd_preprocess"
    assert event["reason"] == str(error.value)
    assert len(event["request_ids"]) == 1


def test_a_refusal_on_a_stream_is_logged_too(light_server: EmbeddedServer, light_grpc_detector: DetectorClient) -> None:
    [refusal] = light_grpc_detector.stream([b"no image on a stream"])
    assert isinstance(refusal, RequestRefusedError)
    assert len(events(light_server, refusal.request_id)) == 1


BROKEN_CONFIG = """
name: "ssd_detector" platform: "onnxruntime_onnx" max_batch_size: 0 default_model_filename: "broken.onnx"
input [ { name: "index" data_type: TYPE_INT64 dims: [ 1 ] } ]
output [ { name: "value" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""


def test_a_failure_of_a_backend_is_logged(config: Config, tmp_path: Path) -> None:
    """A real model that fails on some of its inputs: an index beyond the end of a table."""
    table = numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        "broken",
        [helper.make_tensor_value_info("index", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [1])],
        [table],
    )
    folder = tmp_path / "model_repository/ssd_detector"
    (folder / "1").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "configs/broken.pbtxt").write_text(BROKEN_CONFIG)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "1/broken.onnx").write_bytes(model.SerializeToString())
    with EmbeddedServer(folder.parent, "broken", config.server.for_one_run()) as server:
        client = grpc_client.InferenceServerClient(server.url("grpc"))
        for index, fails in ((3, False), (9, True)):
            tensor = grpc_client.InferInput("index", [1], "INT64")
            tensor.set_data_from_numpy(np.array([index]))
            with pytest.raises(InferenceServerException) if fails else contextlib.nullcontext():
                client.infer("ssd_detector", [tensor], request_id=f"index-{index}")
        [event] = events(server, "index-9")
        assert event["event"] == "failed"
        assert event["model"] == "ssd_detector"
        assert "Gather" in str(event["reason"])
        assert events(server, "index-3", timeout_s=0) == []


def test_floods_of_refusals_are_counted_and_not_written(
    light_server: EmbeddedServer, light_grpc_detector: DetectorClient
) -> None:
    """Whoever sends bad requests shall not fill a disk."""
    flood = 400
    size_before = light_server.log_path.stat().st_size
    for future in [light_grpc_detector.submit_preprocess(b"bad") for _ in range(flood)]:
        with pytest.raises(RequestRefusedError):
            future.result()
    time.sleep(1.2)
    with pytest.raises(RequestRefusedError) as error:
        light_grpc_detector.detect(b"the next one")
    assert events(light_server, error.value.request_id)
    assert light_server.log_path.stat().st_size - size_before < flood * 200
    with light_server.log_path.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(size_before)
        written = list(read_events(lines))
    # Which of the written lines tell of the suppressed ones is a matter of time: every one is in one of them.
    assert len(written) + sum(event["suppressed_before"] for event in written) == flood + 1
    assert len(written) < flood / 2
