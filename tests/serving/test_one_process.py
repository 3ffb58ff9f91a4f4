"""The model that does everything in one process: which files it leaves to a GPU, and its engine, on a CPU."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ssd_triton.common.files import SHIPPED
from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.torchscript import export_postprocess_script
from tests.serving.engine.stand_in import as_another_server

MODEL = SHIPPED / "model_repository/ssd/1"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The client of the engine; the other modules of the model, which stand alone, can be imported, too."""
    monkeypatch.syspath_prepend(str(MODEL))
    yield importlib.import_module("engine_client")
    # Other models have modules of the same names.
    for path in MODEL.glob("*.py"):
        sys.modules.pop(path.stem, None)


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_only_whole_baseline_files_are_for_the_gpu(model: ModuleType, photograph: bytes) -> None:
    for_engine = importlib.import_module("baseline").for_engine
    image = Image.open(io.BytesIO(photograph)).convert("RGB")
    image.info.clear()
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side: the network sees files as they are stored
    taken: list[dict[str, object]] = [{}, {"subsampling": 0}, {"subsampling": 1}, {"optimize": True}]
    taken += [{"restart_marker_blocks": 7}, {"restart_marker_rows": 1}, {"quality": 100}, {"quality": 1}]
    for options in taken:
        file = encoded(image, **options)
        assert for_engine(file)[:2] == (image.size, file)
    more = encoded(image, exif=exif.tobytes(), comment=b"a comment", icc_profile=bytes(70_000))
    assert for_engine(more)[:2] == (image.size, encoded(image))
    for grey in (image.convert("L"), Image.new("L", (640, 481), 255)):
        assert for_engine(encoded(grey))[:2] == (grey.size, encoded(grey))
    left = [
        encoded(image, progressive=True),
        encoded(image, keep_rgb=True),
        encoded(image.convert("CMYK")),
        encoded(image.resize((8200, 8))),
        encoded(image)[:-2],
        encoded(image) + b"\0",
        encoded(image) * 2,
        b"\xff\xd8\xff\xd9",
        b"",
    ]
    assert [for_engine(file) for file in left] == [None] * len(left)


def patched(data: bytes, marker: int, at: int, new: bytes) -> bytes:
    """Replace bytes of a segment, counted from its first marker byte."""
    start = data.index(bytes([0xFF, marker]))
    return data[: start + at] + new + data[start + at + len(new) :]


def without(data: bytes, marker: int) -> bytes:
    start = data.index(bytes([0xFF, marker]))
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


DQT, SOF, DHT, SOS, DRI = 0xDB, 0xC0, 0xC4, 0xDA, 0xDD
HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "a segment longer than the file": lambda file: patched(file, DHT, 2, b"\xff\xff"),
    "a segment of length 1": lambda file: patched(file, DQT, 2, b"\0\1"),
    "no table": lambda file: without(file, DQT),
    "a short table": lambda file: patched(file, DQT, 2, b"\0\x42"),
    "a table of 16 bits": lambda file: patched(file, DQT, 4, b"\x10"),
    "a table with a zero": lambda file: patched(file, DQT, 9, b"\0"),
    "a quantisation table that is not there": lambda file: patched(file, SOF, 12, b"\3"),
    "no frame": lambda file: without(file, SOF),
    "12 bits": lambda file: patched(file, SOF, 4, b"\x0c"),
    "no width": lambda file: patched(file, SOF, 7, b"\0\0"),
    "two channels": lambda file: patched(file, SOF, 9, b"\2"),
    "255 channels": lambda file: patched(file, SOF, 9, b"\xff"),
    "channels of one name": lambda file: patched(file, SOF, 13, b"\1"),
    "a sampling of 4": lambda file: patched(file, SOF, 11, b"\x41"),
    "a sampling of 0": lambda file: patched(file, SOF, 14, b"\0\0"),
    "more pixels than bits": lambda file: patched(file, SOF, 5, b"\x1f\xff\x1f\xff"),
    "no codes": lambda file: without(file, DHT),
    "a code that is none": lambda file: patched(file, DHT, 5, b"\3"),
    "a code of ones": lambda file: patched(file, DHT, 5, b"\2"),
    "more codes than 256": lambda file: patched(file, DHT, 20, b"\xff"),
    "a DC difference of 12 bits": lambda file: patched(file, DHT, 21, b"\x0c"),
    "a table of codes twice as DC": lambda file: patched(file, DHT, 4, b"\x20"),
    "a code twice": lambda file: patched(file, DHT, 21, b"\1"),
    "a scan without a channel": lambda file: patched(file, SOS, 4, b"\2"),
    "a scan of a channel twice": lambda file: patched(file, SOS, 7, b"\1"),
    "codes that are not there": lambda file: patched(file, SOS, 6, b"\x22"),
    "some coefficients": lambda file: patched(file, SOS, 12, b"\1"),
    "another bit of them": lambda file: patched(file, SOS, 13, b"\1"),
    "a second frame": lambda file: file.replace(b"\xff\xda", file[file.index(b"\xff\xc0") :][:19] + b"\xff\xda"),
    "a marker in the pixels": lambda file: file[:-400] + b"\xff\xc4" + file[-398:],
    "a second scan": lambda file: file[:-2] + file[file.index(b"\xff\xda") :],
    "a restart that nobody asked for": lambda file: file[:-400] + b"\xff\xd0" + file[-398:],
    "a lone ff at the end": lambda file: file[:-2] + b"\xff\xff\xd9",
    "a picture in the pixels": lambda file: file[:-2] + file,
    "cut, with an end": lambda file: file[: file.index(b"\xff\xda") + 100] + b"\xff\xd9",
    "no end": lambda file: file[:-2],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_damaged_header_never_reaches_the_gpu(model: ModuleType, photograph: bytes, what: str) -> None:
    for_engine = importlib.import_module("baseline").for_engine
    file = encoded(Image.open(io.BytesIO(photograph)).convert("RGB").resize((160, 120)))
    assert for_engine(file) is not None
    assert for_engine(HOSTILE[what](file)) is None


def test_a_header_too_long_to_be_remembered_is_read_each_time(model: ModuleType, photograph: bytes) -> None:
    baseline = importlib.import_module("baseline")
    picture = encoded(Image.open(io.BytesIO(photograph)).convert("RGB").resize((160, 120)))
    _, file, _ = baseline.for_engine(picture)  # without its comment
    table = file.index(b"\xff\xdb")
    long = file[:table] + file[table : table + 69] * 40 + file[table:]
    assert len(long) - len(file) > baseline.MAX_KNOWN_BYTES
    before = baseline._read.cache_info()
    assert baseline.for_engine(long)[:2] == ((160, 120), long)
    assert baseline.for_engine(long[:-400] + b"\xff\xc4" + long[-398:]) is None
    assert baseline._read.cache_info() == before


def test_restarts_must_be_where_the_header_says(model: ModuleType, photograph: bytes) -> None:
    for_engine = importlib.import_module("baseline").for_engine
    image = Image.open(io.BytesIO(photograph)).convert("RGB").resize((160, 128))
    file = encoded(image, restart_marker_rows=1)
    assert for_engine(file) is not None
    assert for_engine(without(file, DRI)) is None
    assert for_engine(patched(file, DRI, 4, b"\0\1")) is None
    assert for_engine(patched(file, DRI, 4, b"\0\0")) is None
    assert for_engine(file.replace(b"\xff\xd1", b"\xff\xd2")) is None
    assert for_engine(file.replace(b"\xff\xd1", b"\xfe\xd1")) is None


def test_no_damage_makes_the_check_fail(model: ModuleType, photograph: bytes) -> None:
    for_engine = importlib.import_module("baseline").for_engine
    image = Image.open(io.BytesIO(photograph)).convert("RGB").resize((48, 32))
    file = encoded(image, restart_marker_rows=1)
    header = file.index(b"\xff\xda") + 14
    for place in range(len(file)):
        for_engine(file[:place] + b"\xff\xd9")
    for place in range(header):
        for value in (0, 1, 0x11, 0x7F, 0xFF):
            for_engine(file[:place] + bytes([value]) + file[place + 1 :])


def test_a_pillow_that_resizes_differently_is_refused(model: ModuleType) -> None:
    check_pillow = importlib.import_module("decoding").check_pillow
    check_pillow()
    with pytest.raises(RuntimeError, match=r"got Pillow 13\.0\.1, expected 12 or older"):
        check_pillow("13.0.1")


class Light(nn.Module):
    """A detector that finds one object, the brighter the surer."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        brightness = image.float().mean([1, 2, 3]).view(-1, 1, 1) / 255
        background = torch.zeros([1, 81, NUM_DEFAULT_BOXES])
        background[:, 0] = 9.0
        person = torch.zeros_like(background)
        person[:, 1, -1] = 1.0
        return brightness * torch.zeros([1, 4, NUM_DEFAULT_BOXES]), background + person * (9.0 + brightness)


def test_the_engine_answers_and_is_replaced_when_it_is_killed(
    model: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_another_server(model, monkeypatch, tmp_path)
    detector, postprocess = tmp_path / "detector.pt", tmp_path / "postprocess.pt"
    torch.jit.trace(Light(), torch.zeros([2, 300, 300, 3], dtype=torch.uint8)).save(str(detector))
    export_postprocess_script(postprocess, 81, PostprocessParameters())
    client = model.EngineClient(
        {"device": "cpu", "detector": str(detector), "postprocess": str(postprocess), "batch_sizes": [1, 4]}
    )
    assert not client.decodes
    pixels = importlib.import_module("protocol").PIXELS
    images = [(pixels, np.full((300, 300, 3), grey, np.uint8), (640, 480)) for grey in (0, 255, 127)]

    def scores() -> list[float]:
        (count, boxes, found, classes), failed = client.ask(images)
        assert count.ravel().tolist() == [1, 1, 1] and classes[:, 0].tolist() == [1, 1, 1] and not len(failed)
        assert np.isfinite(boxes).all()
        return [float(one) for one in found[:, 0]]

    before = scores()
    assert before[0] == pytest.approx(0.5, abs=0.01) and before[0] < before[2] < before[1]
    assert [run.stop - run.start for run in client.jobs([10] * 9)] == [4, 4, 1]
    os.kill(client._engine_pid, signal.SIGKILL)
    with pytest.raises(model.EngineLostError, match="ended by signal SIGKILL"):
        client.ask(images)
    client.reconnect()
    assert scores() == before
    client.close()
