"""Runs the decoder under test in its own process, which may crash or hang."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssd_triton.common.errors import ServerError
from ssd_triton.measuring.model_modules import model_module
from ssd_triton.serving.repository.model_config import load_model_config

DecodeOutcome = Literal["decoded", "refused", "exception", "crash", "hang"]
_MAX_REASON_CHARACTERS = 400
_START_TIMEOUT_S = 60.0
_READY = b"ready"


@dataclass(frozen=True)
class DecodeResult:
    """Outcome of one input.

    Attributes:
        outcome: Outcome; ``decoded`` and ``refused`` are right, all others are findings.
        reason: Reason for every outcome except ``decoded``.
        time_s: Time taken.
        resident_bytes: Resident memory of the process afterwards.
        peak_bytes: Highest resident memory of the process so far.
    """

    outcome: DecodeOutcome
    reason: str
    time_s: float
    resident_bytes: int
    peak_bytes: int


class DecoderProcess:
    """A process that runs the code of ``ssd_preprocess``, and is restarted after each crash or hang."""

    def __init__(self, model_folder: Path, timeout_s: float) -> None:
        """Prepare; nothing is started yet.

        Args:
            model_folder: Folder ``ssd_preprocess`` of a model repository.
            timeout_s: Time limit for an input.
        """
        self._model_folder = model_folder
        self._timeout_s = timeout_s
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: multiprocessing.connection.Connection[Any, Any] | None = None

    def __enter__(self) -> DecoderProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def decode(self, data: bytes) -> DecodeResult:
        """Send one input to the process, and wait for the outcome."""
        connection = self._connection or self._start()
        start_s = time.monotonic()
        try:
            connection.send_bytes(data)
            if connection.poll(self._timeout_s):
                return DecodeResult(*json.loads(connection.recv_bytes()))
            problem: DecodeOutcome = "hang"
            reason = f"no answer within {self._timeout_s:g} s"
        except (EOFError, OSError):
            problem = "crash"
            reason = self._exit_reason()
        self._stop()
        return DecodeResult(problem, reason, time.monotonic() - start_s, 0, 0)

    def _start(self) -> multiprocessing.connection.Connection[Any, Any]:
        # A fresh interpreter, free of the parent's libraries and threads.
        context = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        process = context.Process(target=_serve, args=(far, str(self._model_folder)), daemon=True)
        process.start()
        far.close()
        self._process, self._connection = process, near
        if not near.poll(_START_TIMEOUT_S) or near.recv_bytes() != _READY:
            self._stop()
            raise ServerError(f"the decoder did not start within {_START_TIMEOUT_S:g} s: see the lines above")
        return near

    def _exit_reason(self) -> str:
        if self._process is None:
            return "the process has ended"
        self._process.join(self._timeout_s)
        return f"the process has ended with code {self._process.exitcode}"

    def _stop(self) -> None:
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.join()


def _serve(connection: multiprocessing.connection.Connection[Any, Any], model_folder: str) -> None:
    """Decode inputs until the other side closes the connection."""
    decoding = model_module(Path(model_folder), "decoding")
    parameters = load_model_config(Path(model_folder) / "config.pbtxt").parameters
    limits = decoding.DecodingLimits.from_parameters(
        {key: {"string_value": parameters[key].string_value} for key in parameters}
    )
    connection.send_bytes(_READY)
    while True:
        try:
            data = connection.recv_bytes()
        except (EOFError, KeyboardInterrupt):
            return
        start_s = time.perf_counter()
        outcome, reason = _decode(lambda data: decoding.decode(data, limits), decoding.RefusedInputError, data)
        answer = (outcome, reason, time.perf_counter() - start_s, *_memory_bytes())
        # JSON, since the parent must not unpickle data from a process that has seen hostile inputs.
        connection.send_bytes(json.dumps(answer).encode())


def _decode(decode: Callable[[bytes], Any], refusal: type[Exception], data: bytes) -> tuple[DecodeOutcome, str]:
    try:
        image, (width, height) = decode(data)
    except refusal as error:
        text = str(error)
        if "\n" in text or len(text) > _MAX_REASON_CHARACTERS:
            return "exception", f"the refusal is no short line: {text!r}"
        return "refused", text
    except Exception:
        return "exception", traceback.format_exc()
    if image.dtype != np.uint8 or image.shape != (300, 300, 3) or min(width, height) < 1:
        return "exception", f"got {image.dtype} {image.shape} of {width} x {height} px, expected uint8 (300, 300, 3)"
    return "decoded", ""


def _memory_bytes() -> tuple[int, int]:
    """Return the resident memory of this process and its peak.

    The peak of getrusage would include that of the parent process.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    now, highest = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, highest
