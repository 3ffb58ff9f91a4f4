"""Runs the engine of the one process without a server, and feeds it from processes that stand for instances.

Needs neither PyTorch, which the engine's own process loads, nor Triton.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from typing import Any

import numpy as np

from ssd_triton.common.errors import ServerError
from ssd_triton.common.processes import children_ignore_interrupts, process_cpu_s
from ssd_triton.common.progress import progress
from ssd_triton.measuring.benchmark.engine_files import EngineImage, Instance, Setup
from ssd_triton.measuring.model_modules import model_module

_READY_S = 300.0
"""An engine loads PyTorch and captures graphs, as in ``engine_client.py``."""
_POLL_S = 0.2
_ENDING_S = 5.0
"""The engine ends with its last instance; after so long it is killed."""

Pipe = multiprocessing.connection.Connection


@dataclass(frozen=True)
class EngineRun:
    """What the engine did for all processes together at one number of images a job.

    Attributes:
        batch: Images in a job.
        feeders: Processes, each with one job in flight.
        images: Images that were answered.
        elapsed_s: From the first job's start to the last answer, seconds.
        cpu_s: CPU time of the engine's process meanwhile, seconds.
        latencies_ms: Time of each job from its sending to its answer, milliseconds.
    """

    batch: int
    feeders: int
    images: int
    elapsed_s: float
    cpu_s: float
    latencies_ms: Sequence[float]

    @property
    def images_per_s(self) -> float:
        """Throughput."""
        return self.images / self.elapsed_s

    @property
    def cpu_ms(self) -> float:
        """CPU time of the engine's process for an image, milliseconds."""
        return 1e3 * self.cpu_s / self.images

    def latency_ms(self, percentile: float) -> float:
        """Return a percentile of the jobs' latency."""
        return float(np.percentile(self.latencies_ms, percentile))


@dataclass(frozen=True)
class _Fed:
    """What one process fed: when, on the monotonic clock that all processes share, and the time of each job."""

    start_s: float
    end_s: float
    latencies_ms: list[float]


def measure_engine(
    setup: Setup, files: Sequence[bytes], batches: Sequence[int], *, feeders: int, seconds: float
) -> list[EngineRun]:
    """Start an engine, feed it with each number of images a job for a while, and end it.

    Args:
        setup: What runs.
        files: Encoded images, checked or decoded for every job anew, as an instance does.
        batches: Images in a job.
        feeders: Number of processes.
        seconds: Duration for each of ``batches``.

    Raises:
        ServerError: The engine does not start, or is lost.
    """
    with _engine(setup) as engine, _started_feeders(feeders, setup, files) as pipes:
        runs = []
        for batch in progress(batches, total=len(batches), description="engine", unit="batch sizes"):
            _feed_all(pipes, batch, 0.0)  # one job each, to warm up
            before_s = process_cpu_s(engine.pid)
            found = _feed_all(pipes, batch, seconds)
            cpu_s = process_cpu_s(engine.pid) - before_s
            latencies_ms = [one for fed in found for one in fed.latencies_ms]
            elapsed_s = max(fed.end_s for fed in found) - min(fed.start_s for fed in found)
            runs.append(EngineRun(batch, feeders, batch * len(latencies_ms), elapsed_s, cpu_s, latencies_ms))
        return runs


def _feed_all(pipes: Sequence[Pipe[Any, Any]], batch: int, seconds: float) -> list[_Fed]:
    """Let all processes feed at once.

    Raises:
        ServerError: The engine or one of the processes was lost.
    """
    try:
        for pipe in pipes:
            pipe.send_bytes(json.dumps([batch, seconds]).encode())
        return [_Fed(*json.loads(pipe.recv_bytes())) for pipe in pipes]
    except (EOFError, OSError) as error:
        raise ServerError("the engine was lost, or a process that feeds it: the lines above say why") from error


@contextlib.contextmanager
def _engine(setup: Setup) -> Iterator[subprocess.Popen[bytes]]:
    """Start an engine for the children of this process, wait until it is ready, and end it after the block.

    Raises:
        ServerError: It does not start.
    """
    client, protocol = (model_module(setup.model_folder, name) for name in ("engine_client", "protocol"))
    # Instances look for the engine of the process that has started them; with Triton, that is the server.
    settings = {**setup.engine_settings, "server_pid": os.getpid(), "losses": {}, "without_decoder": False}
    address = protocol.engine_address(settings)
    engine: subprocess.Popen[bytes] | None = None
    try:
        with children_ignore_interrupts():
            engine = client.start_engine(settings, address)
        if engine is None:
            raise ServerError("another engine of this process is still running: wait until it has ended")
        _wait_until_ready(engine, address, protocol.MAX_JOB_BYTES)
        yield engine
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.wait(_ENDING_S)
    finally:
        if engine is not None:
            engine.kill()
            engine.wait()


def _wait_until_ready(engine: subprocess.Popen[bytes], address: str, max_bytes: int) -> None:
    """Wait until an engine says what it can: connect as an instance does, and leave again."""
    deadline_s = time.monotonic() + _READY_S
    while engine.poll() is None and time.monotonic() < deadline_s:
        # Before it listens, it refuses; when it ends while it is loading, the connection ends.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, contextlib.suppress(OSError):
            connection.settimeout(_READY_S)
            connection.connect(address)
            if connection.recv(max_bytes):
                return
        time.sleep(_POLL_S)
    raise ServerError("the engine did not start: its own lines above say why")


@contextlib.contextmanager
def _started_feeders(count: int, setup: Setup, files: Sequence[bytes]) -> Iterator[list[Pipe[Any, Any]]]:
    """Start processes that wait for what to feed, and end them after the block; after an error, at once."""
    # Spawned, not forked: neither CUDA nor threads survive a fork.
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    pipes: list[Pipe[Any, Any]] = []
    try:
        with children_ignore_interrupts():
            for _ in range(count):
                near, far = context.Pipe()
                process = context.Process(target=_feeder, args=(far, setup, list(files)), daemon=True)
                process.start()
                far.close()
                processes.append(process)
                pipes.append(near)
        yield pipes
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(_ENDING_S)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _feeder(pipe: Pipe[Any, Any], setup: Setup, files: list[bytes]) -> None:
    """Feed the engine as one instance, as often as the other side asks, until it closes the connection."""
    instance, client_module = Instance(setup), model_module(setup.model_folder, "engine_client")
    client = client_module.EngineClient(setup.engine_settings)
    place = 0
    # An engine that is lost ends the process, whose parent sees its connection end.
    with contextlib.suppress(EOFError, client_module.EngineLostError):
        while True:
            batch, seconds = json.loads(pipe.recv_bytes())
            latencies_ms: list[float] = []
            start_s = end_s = time.monotonic()
            while not latencies_ms or end_s < start_s + seconds:
                job = [files[(place + index) % len(files)] for index in range(batch)]
                place += batch
                latencies_ms.append(_work(client, instance, job))
                end_s = time.monotonic()
            pipe.send_bytes(json.dumps([start_s, end_s, latencies_ms]).encode())
    client.close()


def _work(client: Any, instance: Instance, job: Sequence[bytes]) -> float:
    """Do what an instance does for a request, and return the time that the engine took for it, milliseconds."""
    checked = [instance.check(data) if client.decodes else None for data in job]
    images = [instance.decode(data) if image is None else image for data, image in zip(job, checked, strict=True)]
    start_s = time.perf_counter()
    sizes_bytes = [data.nbytes if isinstance(data, np.ndarray) else len(data) for _, data, _ in images]
    for run in client.jobs(sizes_bytes):
        _ask(client, instance, images[run], job[run])
    return 1e3 * (time.perf_counter() - start_s)


def _ask(client: Any, instance: Instance, images: list[EngineImage], files: Sequence[bytes]) -> None:
    """Have images detected; files that the GPU's decoder does not take are decoded here, and sent again."""
    _, undone = client.ask(images)
    if len(undone):
        for index in undone:
            images[index] = instance.decode(files[index])
        client.ask(images)
