"""How busy the device is: a GPU by its driver, a CPU by the time of this process."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from types import TracebackType

import torch

_SAMPLE_MS = 200


class DeviceBusy:
    """Part of the time, in percent, that a device worked since the last :meth:`restart`.

    A GPU's figure is the mean of ``nvidia-smi``'s ``utilization.gpu``: the part of the time in which a kernel ran. A
    CPU's is this process' time on all cores. Without ``nvidia-smi`` there is none for a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._samples: list[float] = []
        self._monitor: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.restart()

    def __enter__(self) -> DeviceBusy:
        program = shutil.which("nvidia-smi")
        if self._device.type == "cuda" and program is not None:
            # By its id: CUDA_VISIBLE_DEVICES gives GPUs other numbers than nvidia-smi does.
            gpu = f"GPU-{torch.cuda.get_device_properties(self._device).uuid}"
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--loop-ms={_SAMPLE_MS}"]
            self._monitor = subprocess.Popen(
                [program, f"--id={gpu}", *query],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is this process' own matter
            )
            self._reader = threading.Thread(target=self._read, args=(self._monitor,), daemon=True)
            self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._monitor is not None and self._reader is not None:
            self._monitor.terminate()
            self._monitor.wait()
            self._reader.join()

    def restart(self) -> None:
        """Begin a new span of time."""
        self._samples.clear()
        self._wall_s, self._process_s = time.perf_counter(), time.process_time()

    def percent(self) -> float | None:
        """Of the span so far; None where nothing could be measured."""
        if self._device.type == "cuda":
            samples = list(self._samples)
            return sum(samples) / len(samples) if samples else None
        wall_s = (time.perf_counter() - self._wall_s) * (os.cpu_count() or 1)
        return 100 * (time.process_time() - self._process_s) / wall_s if wall_s else None

    def _read(self, monitor: subprocess.Popen[str]) -> None:
        for line in monitor.stdout or ():
            value = line.strip()
            if value.isdecimal():
                self._samples.append(float(value))
