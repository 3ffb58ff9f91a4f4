"""What tests of running servers share."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.request

import numpy as np
import tritonclient.grpc as grpc_client

from ssd_triton.common.detections import Detections
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import free_url


class Gate:
    """A port that forwards to a server once it is opened, and refuses connections before.

    Attributes:
        url: Its address.
    """

    def __init__(self, target: str, delay_s: float = 0.0) -> None:
        """Prepare; ``delay_s`` passes between a client's connection and one to the server."""
        self.url = free_url()
        self._target = target
        self._delay_s = delay_s
        self._listener: socket.socket | None = None

    def open(self) -> None:
        host, port = self.url.split(":")
        self._listener = socket.create_server((host, int(port)))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        assert self._listener is not None
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        host, port = self._target.split(":")
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            time.sleep(self._delay_s)
            far = socket.create_connection((host, int(port)))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return
        finally:
            # Another thread may be reading from it, which a mere close would not end.
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)


MAX_BOX_ERROR_PX = 0.5
MAX_SCORE_ERROR = 1e-3


def assert_equal(found: Detections, expected: Detections, score_thresh: float = 0.05) -> None:
    """Same boxes to 0.5 px and scores to 1e-3, matched by class and score.

    A detection within the tolerance of the threshold may be missing on either side.
    """
    for one, other in ((found, expected), (expected, found)):
        for box, score, class_id in one:
            same = (
                (other.class_ids == class_id)
                & (np.abs(other.scores - score) <= MAX_SCORE_ERROR)
                & (np.abs(other.boxes_xyxy - box).max(axis=1) <= MAX_BOX_ERROR_PX)
            )
            assert same.any() or score <= score_thresh + MAX_SCORE_ERROR, (class_id, score, box)


def executed(server: EmbeddedServer, model: str) -> int:
    statistics = grpc_client.InferenceServerClient(server.url("grpc")).get_inference_statistics(model)
    return int(statistics.model_stats[0].inference_count)


def seconds_until_asked(server: EmbeddedServer, model: str = "ssd_preprocess", timeout_s: float = 60) -> float:
    """How long a server that has just become ready waits for the first image of a model."""
    start_s = time.monotonic()
    url = f"http://{server.url('http')}/v2/models/{model}/stats"
    while time.monotonic() - start_s < timeout_s:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            if json.load(response)["model_stats"][0]["execution_count"] > 0:
                return time.monotonic() - start_s
        time.sleep(0.01)
    raise AssertionError(f"no image came within {timeout_s:g} s")
