"""Engines of the one process for tests: a stand-in for the one on a GPU, and a server of its own for each test."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.files import SHIPPED

REPOSITORY = SHIPPED / "model_repository"
_PROGRAM = """
import io, os, signal, sys, time
import numpy as np
sys.path.insert(0, {folder!r})
import engine, torch
from network import Detections
from PIL import Image

class Decoder:
    # Negatives: whoever looks at the pixels sees where a file was decoded. Its resolution says what a file does.
    def decode(self, files, spare):
        return [self.one(file.tobytes()) for file in files]
    def one(self, data):
        image = Image.open(io.BytesIO(data))
        does = image.info.get("dpi", [0])[0]
        if does == CRASH:
            signal.raise_signal(signal.SIGSEGV)  # in this thread, as a crash is
        elif does == STALL:
            time.sleep(60)
        return None if does == NOT_MINE else image.convert("RGB")

class Resizer:
    source_of = staticmethod(lambda image: image)
    def __call__(self, sources, targets, resized):
        if len(sources) > 2:
            raise RuntimeError("CUDA: CUDA_ERROR_OUT_OF_MEMORY")
        for source, target in zip(sources, targets):
            resized[target] = 255 - torch.from_numpy(np.array(source.resize((300, 300), Image.Resampling.BILINEAR)))

class Network:
    detections, outputs = 1, (("int32", 1), ("float32", 1, 4), ("float32", 1), ("int32", 1))
    def __init__(self, detector, postprocess, device, batch_sizes):
        self.batch_sizes = batch_sizes
    def host_outputs(self, *, pinned):
        return {{}}
    def __call__(self, images, sizes):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if (images == 13).all():
            raise RuntimeError("CUDA error: unspecified launch failure")
        found = Detections(len(images), 1, torch.device("cpu"))
        found.views[2].copy_(images[:, 0, 0, :1] / 255)
        return found

CRASH, STALL, NOT_MINE = 90, 91, 92

def image_kernels(device, without_decoder):
    return (None if without_decoder else Decoder()), Resizer(), "not any more"

if {has_decoder}:
    engine._image_kernels = image_kernels
engine.Network, engine.LONELY_S = Network, 2.0
engine.main()
"""
CRASH, STALL, NOT_MINE = ((dpi, dpi) for dpi in (90, 91, 92))
"""Resolutions of files that end or stall the decoder, or that it does not take."""


def program(folder: Path, *, has_decoder: bool) -> Path:
    """An engine whose GPU is a stand-in."""
    path = folder / "program.py"
    path.write_text(_PROGRAM.format(folder=str(REPOSITORY / "ssd/1"), has_decoder=has_decoder), encoding="utf-8")
    return path


def as_another_server(client_module: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let clients look for an engine that belongs to this test alone.

    By themselves they share the engine of their parent process: that of the test before, which may not have ended, or
    that of a test in another of pytest's processes.
    """
    monkeypatch.setattr(client_module, "os", SimpleNamespace(**{**vars(os), "getppid": lambda: hash(str(folder))}))


PARAMETERS = {
    **{"max_file_bytes": "1000000", "max_pixels": "500000", "max_request_pixels": "2000000", "max_cpu_s": "2"},
    **{"detector": "none", "postprocess": "none", "batch_sizes": "1,8"},
    **{"min_side_px": "8", "reduced_decode_ratio": "0", "decode_threads": "2", "decode_on_gpu": "yes"},
}
Import = Callable[[str], ModuleType]


class Model:
    """A model in this process, as Triton would run it on a GPU."""

    def __init__(self, module: ModuleType, name: str, kind: str = "GPU") -> None:
        self.model = module.TritonPythonModel()
        config = {"max_batch_size": 64, "parameters": {key: {"string_value": one} for key, one in PARAMETERS.items()}}
        self.model.initialize(
            {
                **{"model_config": json.dumps(config), "model_name": name, "model_instance_kind": kind},
                **{
                    "model_instance_device_id": "0",
                    "model_instance_name": f"{name}_0_0",
                    "model_repository": "/none/ssd",
                },
            }
        )

    def __call__(self, *requests: list[bytes]) -> list[Any]:
        """Outputs of each request, or the text of its error."""
        return self.model.execute([np.array(files, object).reshape(-1, 1) for files in requests])


def picture(seed: int, **options: Any) -> tuple[bytes, AnyArray]:
    """A file, and what PIL makes of it."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((120, 90)).save(file, **{"format": "JPEG", **options})
    image = Image.open(file).convert("RGB").resize((300, 300), Image.Resampling.BILINEAR)
    return file.getvalue(), np.asarray(image)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
