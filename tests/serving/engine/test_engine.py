"""The engine on a CPU, with stand-ins for a GPU: the one process, a full memory, a broken device."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.arrays import AnyArray
from tests.serving.engine.stand_in import (
    CRASH,
    NOT_MINE,
    Import,
    Model,
    as_another_server,
    picture,
    program,
    wait_until,
)


def test_refused_requests_leave_the_engine_alone(
    start: Callable[..., Model], warnings: list[str], tmp_path: Path
) -> None:
    run = start(program(tmp_path, has_decoder=True), model="ssd")
    engine_pid = run.model.engine._engine_pid
    fine, fine_px = picture(4)
    for _ in range(3):
        assert run([b""]) == ["batch element 0: got 0 bytes, expected an encoded image"]
        refused, answer = run([b""], [fine])
        assert isinstance(refused, str)
        assert round(float(answer[2][0, 0]) * 255) == 255 - int(fine_px[0, 0, 0])
    assert run.model.engine._engine_pid == engine_pid
    assert {line.partition(":")[0] for line in warnings} == {"batch element 0"}
    with pytest.raises(ValueError, match="got no images"):
        run.model.engine.ask([])
    run.model.finalize()


def test_files_that_crash_the_decoder_again_and_again_cost_no_request(
    modules: Callable[[str], Import],
    start: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    warnings: list[str],
) -> None:
    client_module = modules("ssd")("engine_client")
    start_program, settings = client_module._start_program, []
    monkeypatch.setattr(client_module, "_start_program", lambda one: settings.append(one) or start_program(one))
    attacker, *others = start(program(tmp_path, has_decoder=True), model="ssd", instances=3)
    crashing, crashing_px = picture(3, dpi=CRASH)
    fine, fine_px = picture(4)
    ended = threading.Event()

    def score(answer: Any) -> int:
        assert not isinstance(answer, str), answer
        return round(float(answer[2][0, 0]) * 255)

    def ask(run: Model) -> list[int]:
        found = []
        while not ended.is_set() or len(found) < 3:
            found.append(score(run([fine])[0]))
            time.sleep(0.01)
        return found

    here, there = int(fine_px[0, 0, 0]), 255 - int(fine_px[0, 0, 0])
    with ThreadPoolExecutor() as pool:
        good = [pool.submit(ask, run) for run in others]
        for turn in range(3):
            answers = attacker([crashing], [fine], [crashing])
            assert [score(one) for one in answers] in (
                [int(crashing_px[0, 0, 0]), one, int(crashing_px[0, 0, 0])] for one in (here, there)
            )
            assert attacker.model.engine.decodes == (turn == 0)
        ended.set()
        found = [one.result() for one in good]
    assert all(set(one) <= {there, here} and one[-1] == here for one in found)
    assert [one["without_decoder"] for one in settings] == [False, False, True]
    assert any("was ended by signal SIGSEGV" in line for line in warnings)
    for one in (attacker, *others):
        one.model.finalize()


@pytest.mark.parametrize("is_full", [False, True])
def test_frames_on_a_gpu_are_resized_there_or_if_its_memory_is_full_here(
    start: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_full: bool
) -> None:
    torch = pytest.importorskip("torch")
    run = start(program(tmp_path, has_decoder=False), model="ssd_frames")
    calls = []

    def resized(frames: list[Any]) -> list[AnyArray | None]:
        """What the GPU does: negatives tell where a frame was resized."""
        calls.append(len(frames))
        images = [Image.fromarray(frame.numpy()).resize((300, 300), Image.Resampling.BILINEAR) for frame in frames]
        return [None if is_full else 255 - np.asarray(image) for image in images]

    monkeypatch.setattr(sys.modules["model"], "resized", resized)

    def request(*greys: int, on_gpu: bool) -> Any:
        frames = np.array([np.full((90, 120, 3), grey, np.uint8) for grey in greys])
        return SimpleNamespace(
            is_cpu=lambda: not on_gpu, as_numpy=lambda: frames, to_dlpack=lambda: torch.from_numpy(frames).__dlpack__()
        )

    def score(answer: Any) -> list[int]:
        return [round(float(one) * 255) for one in answer[2][:, 0]]

    here, mixed = request(10, 20, on_gpu=False), [request(30, 40, on_gpu=True), request(50, on_gpu=True)]
    monkeypatch.setattr(sys.modules["triton_python_backend_utils"], "get_input_tensor_by_name", lambda one, _: one)
    answers = [score(one) for one in run.model.execute([mixed[0], here, mixed[1]])]
    expected = [[30, 40], [10, 20], [50]] if is_full else [[225, 215], [10, 20], [205]]
    assert answers == expected
    assert calls == [3]
    run.model.finalize()


def test_memory_that_large_images_needed_is_given_back(
    modules: Callable[[str], Import], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load = modules("ssd")
    client_module, protocol = load("engine_client"), load("protocol")
    monkeypatch.setattr(client_module, "_PROGRAM", program(tmp_path, has_decoder=True))
    as_another_server(client_module, monkeypatch, tmp_path)
    client = client_module.EngineClient(
        {"device": "cpu", "detector": "none", "postprocess": "none", "batch_sizes": [1, 8]}
    )
    pixels = np.full((300, 300, 3), 30, np.uint8)
    large = np.full(100 << 20, 7, np.uint8)
    for _ in range(2):
        # What the engine does not take is not decoded, but it has been in memory.
        _, failed = client.ask([(protocol.FILE, picture(0, dpi=NOT_MINE)[0] + large.tobytes(), (120, 90))])
        assert failed.tolist() == [0]
        held = os.fstat(client._descriptor).st_blocks * 512
        assert held < protocol.KEPT_BYTES + (1 << 20)
    (_, _, found, _), failed = client.ask([(protocol.PIXELS, pixels, (640, 480))])
    assert round(float(found[0, 0]) * 255) == 30 and not len(failed)
    client.close()


# --- a full memory, and a broken device -------------------------------------------------------------------------------


def test_a_full_memory_halves_the_batches_and_any_other_error_ends_the_engine(
    modules: Callable[[str], Import],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    load = modules("ssd")
    client_module, pixels = load("engine_client"), load("protocol").PIXELS
    monkeypatch.setattr(client_module, "_PROGRAM", program(tmp_path, has_decoder=False))
    as_another_server(client_module, monkeypatch, tmp_path)
    client = client_module.EngineClient(
        {"device": "cpu", "detector": "none", "postprocess": "none", "batch_sizes": [1, 8]}
    )

    def scores(*greys: int) -> list[float]:
        images = [(pixels, np.full((300, 300, 3), grey, np.uint8), (640, 480)) for grey in greys]
        (_, _, found, _), failed = client.ask(images)
        assert not len(failed)
        return [round(float(one) * 255) for one in found[:, 0]]

    greys = list(range(20, 28))
    assert scores(*greys) == greys
    assert "out of memory: batches of 4 from now on (CUDA out of memory." in (log := capfd.readouterr().err)
    assert "batches of 2 from now on" in log and "batches of 1" not in log
    with pytest.raises(client_module.EngineLostError, match="ended with code 1"):
        scores(13)
    client.reconnect()
    assert "ssd engine: ends: CUDA error: unspecified launch failure" in capfd.readouterr().err
    assert scores(*greys) == greys
    client.close()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("CUDA error: out of memory", True),
        ("CUDA: CUDA_ERROR_OUT_OF_MEMORY", True),
        ("nvJPEG: NVJPEG_STATUS_ALLOCATOR_FAILURE", True),
        ("cudaErrorMemoryAllocation", True),
        ("CUDA Runtime failure: '#2' at decoder.cpp:30", True),
        ("CUDA Runtime failure: '#219' at decoder.cpp:30", False),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA: CUDA_ERROR_LAUNCH_FAILED", False),
        ("", False),
    ],
)
def test_which_errors_mean_a_full_memory(modules: Callable[[str], Import], words: str, expected: bool) -> None:
    assert modules("ssd")("engine").is_out_of_memory(RuntimeError(words)) == expected


def test_instances_that_start_at_once_share_one_engine(
    modules: Callable[[str], Import], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client_module = modules("ssd")("engine_client")
    monkeypatch.setattr(client_module, "_PROGRAM", program(tmp_path, has_decoder=True))
    as_another_server(client_module, monkeypatch, tmp_path)
    start, started = client_module._start_program, []
    monkeypatch.setattr(client_module, "_start_program", lambda settings: started.append(1) or start(settings))
    settings = {"device": "cpu", "batch_sizes": [4]}
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(client_module.EngineClient, settings) for _ in range(4)]
        # An instance that ends while the engine is loading does no harm.
        address = client_module.engine_address({**settings, "server_pid": client_module.os.getppid()})
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            wait_until(lambda: not connection.connect_ex(address))
        clients = [one.result() for one in waiting]
    assert len({one._engine_pid for one in clients}) == len(started) == 1
    assert all(one._settings["losses"] == {} for one in clients)
    # Without connections enough, decoder and network take turns on a GPU.
    environment = Path(f"/proc/{clients[0]._engine_pid}/environ").read_bytes()
    assert b"CUDA_DEVICE_MAX_CONNECTIONS=32" in environment.split(b"\0")
    for one in clients:
        one.close()
