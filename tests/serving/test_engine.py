"""The engine on a CPU, with stand-ins for a GPU: decoding for the ensemble, a full memory, a broken device."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.files import SHIPPED

REPOSITORY = SHIPPED / "model_repository"
PARAMETERS = {
    **{"max_file_bytes": "1000000", "max_pixels": "500000", "max_request_pixels": "2000000", "max_cpu_s": "2"},
    **{"min_side_px": "8", "reduced_decode_ratio": "0", "decode_threads": "2", "decode_on_gpu": "yes"},
}
_PROGRAM = """
import io, os, sys
import numpy as np
sys.path.insert(0, {folder!r})
import engine, torch
from network import Detections
from PIL import Image

class Decoder:
    # Negatives: whoever looks at the pixels sees where a file was decoded.
    def decode(self, files, spare):
        return [self.one(file.tobytes()) for file in files]
    def one(self, data):
        if b"crash" in data:
            os._exit(9)
        return None if b"not mine" in data else Image.open(io.BytesIO(data)).convert("RGB")

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

if {has_decoder}:
    engine._image_kernels = lambda device: (Decoder(), Resizer(), "")
engine.Network, engine.LONELY_S = Network, 2.0
engine.main()
"""
Import = Callable[[str], ModuleType]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Import]]:
    """What imports the modules of a model of the repository."""
    imported = set()

    def of_model(model: str) -> Import:
        folder = REPOSITORY / model / "1"
        monkeypatch.syspath_prepend(str(folder))
        imported.update(path.stem for path in folder.glob("*.py"))
        return importlib.import_module

    yield of_model
    # Other models have modules of the same names.
    for name in imported:
        sys.modules.pop(name, None)


def program(folder: Path, *, has_decoder: bool) -> Path:
    """An engine whose GPU is a stand-in."""
    path = folder / "program.py"
    path.write_text(_PROGRAM.format(folder=str(REPOSITORY / "ssd/1"), has_decoder=has_decoder), encoding="utf-8")
    return path


# --- decoding for the ensemble ----------------------------------------------------------------------------------------


class Preprocess:
    """The model ``ssd_preprocess`` in this process, as Triton would run it on a GPU."""

    def __init__(self, module: ModuleType, kind: str = "GPU") -> None:
        self.model = module.TritonPythonModel()
        config = {"max_batch_size": 64, "parameters": {key: {"string_value": one} for key, one in PARAMETERS.items()}}
        self.model.initialize(
            {
                **{"model_config": json.dumps(config), "model_name": "ssd_preprocess", "model_instance_kind": kind},
                **{"model_instance_device_id": "0", "model_instance_name": "ssd_preprocess_0_0"},
            }
        )

    def __call__(self, *requests: list[bytes]) -> list[Any]:
        """Pixels and sizes of each request, or the text of its error."""
        return self.model.execute([np.array(files, object).reshape(-1, 1) for files in requests])


@pytest.fixture
def warnings() -> list[str]:
    """What the model wrote to Triton's log."""
    return []


@pytest.fixture
def preprocess(
    modules: Callable[[str], Import], monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> Callable[..., Preprocess]:
    """What starts the model with an engine on the CPU."""

    def tensor(name: str, array: AnyArray) -> AnyArray:
        return array

    def response(tensors: list[AnyArray] | None = None, error: str = "") -> Any:
        return error or tuple(tensors or ())

    def refusal(message: str, code: int) -> str:
        return message

    triton = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(as_numpy=lambda: request),
        Logger=SimpleNamespace(log_warn=warnings.append, log_error=warnings.append),
        Tensor=tensor,
        InferenceResponse=response,
        TritonError=refusal,
    )
    refusal.INVALID_ARG = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)  # type: ignore[arg-type]

    def start(program: Path, kind: str = "GPU") -> Preprocess:
        load = modules("ssd_preprocess")
        client, module = load("engine_client"), load("model")
        monkeypatch.setattr(client, "_PROGRAM", program)
        # Of another server than that of the test before.
        monkeypatch.setattr(client, "os", SimpleNamespace(**{**vars(os), "getppid": lambda: hash(str(program))}))
        monkeypatch.setattr(load("structured_log").StructuredLog, "write", lambda self, *line: warnings.append(line[2]))
        monkeypatch.setattr(module, "_is_installed", lambda name: True)
        on_cpu = client.EngineClient
        monkeypatch.setattr(module, "EngineClient", lambda settings: on_cpu({**settings, "device": "cpu"}))
        return Preprocess(module, kind)

    return start


def picture(seed: int, **options: Any) -> tuple[bytes, AnyArray]:
    """A file, and what PIL makes of it."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((120, 90)).save(file, **{"format": "JPEG", **options})
    image = Image.open(file).convert("RGB").resize((300, 300), Image.Resampling.BILINEAR)
    return file.getvalue(), np.asarray(image)


def test_what_the_gpu_does_not_take_goes_the_cpu_s_way_alone(
    preprocess: Callable[..., Preprocess], warnings: list[str], tmp_path: Path
) -> None:
    run = preprocess(program(tmp_path, has_decoder=True))
    assert run.model.engine is not None and not warnings
    (there, there_px), (here, here_px), (left, left_px) = (
        picture(0),
        picture(1, progressive=True),
        picture(2, comment=b"not mine"),
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


def test_a_file_that_crashes_the_gpu_s_decoder_is_decoded_here(
    preprocess: Callable[..., Preprocess], warnings: list[str], tmp_path: Path
) -> None:
    run = preprocess(program(tmp_path, has_decoder=True))
    crashing, crashing_px = picture(3, comment=b"crash")
    fine, fine_px = picture(4)
    ((pixels, _),) = run([fine, crashing])
    np.testing.assert_array_equal(pixels, [fine_px, crashing_px])
    assert warnings == ["the engine crashed or stalled, another one is ready"]
    ((pixels, _),) = run([fine])
    np.testing.assert_array_equal(pixels[0], 255 - fine_px)
    run.model.finalize()


@pytest.mark.parametrize(
    ("kind", "reason"), [("CPU", "no GPU"), ("GPU", "no GPU"), ("GPU", "the engine for cpu did not start")]
)
def test_without_a_decoder_the_cpu_decodes_everything(
    preprocess: Callable[..., Preprocess], warnings: list[str], tmp_path: Path, kind: str, reason: str
) -> None:
    path = program(tmp_path, has_decoder=False)
    if "start" in reason:
        path.write_text("raise SystemExit(3)", encoding="utf-8")
    run = preprocess(path, kind)
    assert run.model.engine is None
    (line,) = warnings
    assert line.startswith(f"ssd_preprocess: all files are decoded by the CPU: {reason}")
    file, expected = picture(5)
    ((pixels, _),) = run([file])
    np.testing.assert_array_equal(pixels[0], expected)
    run.model.finalize()


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
    with pytest.raises(client_module.EngineLostError):
        scores(13)
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
    start, started = client_module._start_program, []
    monkeypatch.setattr(client_module, "_start_program", lambda settings: started.append(1) or start(settings))
    settings = {"device": "cpu", "batch_sizes": [4]}
    with ThreadPoolExecutor() as pool:
        clients = list(pool.map(lambda _: client_module.EngineClient(settings), range(4)))
    assert len({one._engine_pid for one in clients}) == len(started) == 1
    for one in clients:
        one.close()
