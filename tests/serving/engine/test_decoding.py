"""Decoding for the ensemble by an engine on a CPU, with a stand-in for a GPU's decoder."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving.engine.stand_in import CRASH, NOT_MINE, STALL, Import, Model, picture, program, wait_until


def test_what_the_gpu_does_not_take_goes_the_cpu_s_way_alone(
    start: Callable[..., Model], warnings: list[str], tmp_path: Path
) -> None:
    run = start(program(tmp_path, has_decoder=True))
    assert run.model.engine is not None and not warnings
    (there, there_px), (here, here_px), (left, left_px) = (
        picture(0),
        picture(1, progressive=True),
        picture(2, dpi=NOT_MINE),
    )
    (pixels, sizes), error, single = run([there, here, left] + [there] * 4, [there, here[:99]], [there])
    assert sizes.tolist() == [[120, 90]] * 7
    for got, expected in zip(pixels, [255 - there_px, here_px, left_px, *[255 - there_px] * 4], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert error.startswith("batch element 1: the image is damaged or of an unsupported kind")
    np.testing.assert_array_equal(single[0][0], 255 - there_px)
    assert warnings == [error]
    large, tiny = picture(0)[0], io.BytesIO()
    Image.new("RGB", (4, 4)).save(tiny, "JPEG")
    many = run([large, tiny.getvalue()])
    assert many == ["batch element 1: got 4 x 4 px, expected sides of 8 px or more"]
    assert run([there, b""]) == ["batch element 1: got 0 bytes, expected an encoded image"]
    run.model.finalize()


def test_after_two_crashes_of_the_gpu_s_decoder_all_files_are_decoded_here(
    start: Callable[..., Model], warnings: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = start(program(tmp_path, has_decoder=True))
    crashing, crashing_px = picture(3, dpi=CRASH)
    fine, fine_px = picture(4)
    ((pixels, _),) = run([fine, crashing])
    np.testing.assert_array_equal(pixels, [fine_px, crashing_px])
    assert warnings == ["the engine was ended by signal SIGSEGV, and is replaced"]
    # Nobody waits for the next engine.
    ((pixels, _),) = run([fine])
    np.testing.assert_array_equal(pixels[0], fine_px)
    wait_until(lambda: run.model.engine.decodes)
    ((pixels, _),) = run([fine])
    np.testing.assert_array_equal(pixels[0], 255 - fine_px)
    ((pixels, _),) = run([crashing, fine])
    np.testing.assert_array_equal(pixels, [crashing_px, fine_px])
    log = ""
    while "decoded by the CPU" not in log:
        log += capfd.readouterr().err
        time.sleep(0.05)
    assert "the engine was lost too often with the GPU's decoder, which a restart of the server brings back" in log
    assert log.count("Fatal Python error: Segmentation fault") == 2 and "in one\n" in log
    ((pixels, _),) = run([crashing, fine])
    np.testing.assert_array_equal(pixels, [crashing_px, fine_px])
    assert len(warnings) == 2 and not run.model.engine.decodes
    run.model.finalize()


def test_an_instance_that_had_nothing_to_do_does_not_bring_the_decoder_back(
    modules: Callable[[str], Import], start: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client_module = modules("ssd_preprocess")("engine_client")
    start_program, settings = client_module._start_program, []
    monkeypatch.setattr(client_module, "_start_program", lambda one: settings.append(one) or start_program(one))
    attacker, idle = start(program(tmp_path, has_decoder=True), instances=2)
    crashing, _ = picture(3, dpi=CRASH)
    fine, fine_px = picture(4)
    attacker([crashing])
    wait_until(lambda: attacker.model.engine.decodes)
    attacker([crashing])
    wait_until(lambda: len(settings) == 3)
    ((pixels, _),) = idle([fine])
    np.testing.assert_array_equal(pixels[0], fine_px)
    with pytest.raises(RuntimeError, match="lost too often with the GPU's decoder"):
        idle.model.engine.reconnect()
    assert [one["without_decoder"] for one in settings] == [False, False, True]
    assert not idle.model.engine.decodes
    for one in (attacker, idle):
        one.model.finalize()


def test_a_file_that_stalls_the_gpu_s_decoder_is_decoded_here(
    start: Callable[..., Model], warnings: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = start(program(tmp_path, has_decoder=True))
    run.model.engine._connection.settimeout(0.5)
    stalling, expected = picture(3, dpi=STALL)
    ((pixels, _),) = run([stalling])
    np.testing.assert_array_equal(pixels[0], expected)
    assert warnings == ["the engine did not answer for 30 s, and is replaced"]
    wait_until(lambda: run.model.engine.decodes)
    run.model.finalize()


@pytest.mark.parametrize(
    ("kind", "reason"), [("CPU", "no GPU"), ("GPU", "no GPU"), ("GPU", "the engine for cpu did not start")]
)
def test_without_a_decoder_the_cpu_decodes_everything(
    start: Callable[..., Model], warnings: list[str], tmp_path: Path, kind: str, reason: str
) -> None:
    path = program(tmp_path, has_decoder=False)
    if "start" in reason:
        path.write_text("raise SystemExit(3)", encoding="utf-8")
    run = start(path, kind)
    assert run.model.engine is None
    (line,) = warnings
    assert line.startswith(f"ssd_preprocess: all files are decoded by the CPU: {reason}")
    file, expected = picture(5)
    ((pixels, _),) = run([file])
    np.testing.assert_array_equal(pixels[0], expected)
    run.model.finalize()
