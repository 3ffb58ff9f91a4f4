"""Utilisation of the device: as reported by the driver of a GPU, or from the CPU time of this process."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from types import TracebackType

import torch

from ssd_triton.common.cores import usable_cores

_SAMPLE_MS = 200


class DeviceBusy:
    """Percentage of the time that a device was busy since the last :meth:`restart`.

    For a GPU, the mean of ``nvidia-smi``'s ``utilization.gpu``: the fraction of the time in which a kernel ran. For a
    CPU, the CPU time of this process relative to that of all cores.
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
            # Selected by its id, since CUDA_VISIBLE_DEVICES changes the numbers of GPUs.
            gpu = f"GPU-{torch.cuda.get_device_properties(self._device).uuid}"
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--loop-ms={_SAMPLE_MS}"]
            self._monitor = subprocess.Popen(
                [program, f"--id={gpu}", *query],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is for this process only
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
        """Start a new span of time."""
        self._samples.clear()
        self._wall_s, self._process_s = time.perf_counter(), time.process_time()

    def percent(self) -> float | None:
        """The percentage so far; None for a GPU without ``nvidia-smi``, or before its first sample."""
        if self._device.type == "cuda":
            samples = list(self._samples)
            return sum(samples) / len(samples) if samples else None
        wall_s = (time.perf_counter() - self._wall_s) * usable_cores()
        return 100 * (time.process_time() - self._process_s) / wall_s if wall_s else None

    def _read(self, monitor: subprocess.Popen[str]) -> None:
        for line in monitor.stdout or ():
            value = line.strip()
            if value.isdecimal():
                self._samples.append(float(value))
