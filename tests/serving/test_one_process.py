"""The model that does everything in one process: which files it leaves to a GPU, and its engine, on a CPU."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
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
    baseline_size = importlib.import_module("baseline").baseline_size
    image = Image.open(io.BytesIO(photograph)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side: the network sees files as they are stored
    taken = [{}, {"subsampling": 0}, {"subsampling": 1}, {"optimize": True}, {"exif": exif.tobytes()}]
    assert [baseline_size(encoded(image, **options)) for options in taken] == [image.size] * len(taken)
    assert baseline_size(encoded(image.convert("L"))) == image.size
    left = [
        encoded(image, progressive=True),
        encoded(image, keep_rgb=True),
        encoded(image.convert("CMYK")),
        encoded(image.resize((8200, 8))),
        encoded(image)[:-2],
        encoded(image) + b"\0",
        b"\xff\xd8\xff\xd9",
        b"",
    ]
    assert [baseline_size(file) for file in left] == [None] * len(left)


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


def test_the_engine_answers_and_is_replaced_when_it_is_killed(model: ModuleType, tmp_path: Path) -> None:
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
    with pytest.raises(model.EngineLostError):
        client.ask(images)
    assert scores() == before
    client.close()
