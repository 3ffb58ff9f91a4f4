"""How a TensorRT plan is run, with a stand-in for TensorRT whose engine is a TorchScript on the CPU."""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssd_triton.common.files import SHIPPED
from ssd_triton.detector.engines.plan import OUTPUTS, Plan, PlanError

DTYPES = {"image": (torch.uint8, 1), "loc": (torch.float32, 4), "conf": (torch.float32, 4)}


class Small(nn.Module):
    """A detector of eight boxes and three labels."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        grey = image.float().mean([1, 2, 3]).view(-1, 1, 1)
        return grey.expand(-1, 4, 8), grey.expand(-1, 3, 8) / 2


class Context:
    """What TensorRT's execution context does, at once and on the CPU."""

    def __init__(self, script: Any) -> None:
        self.script, self.addresses, self.batch, self.shapes_set = script, {}, 0, 0
        self.memory = (0, 0)

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = (address, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.batch, self.shapes_set = shape[0], self.shapes_set + 1
        return shape[0] <= 4

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {"image": (self.batch, 300, 300, 3), "loc": (self.batch, 4, 8), "conf": (self.batch, 3, 8)}[name]

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        found = self.script(self.at("image"))
        for name, value in zip(OUTPUTS, found, strict=True):
            self.at(name).copy_(value)
        return stream == 77

    def at(self, name: str) -> Tensor:
        dtype, size = DTYPES[name]
        shape = self.get_tensor_shape(name)
        memory = (ctypes.c_char * (size * torch.Size(shape).numel())).from_address(self.addresses[name])
        return torch.frombuffer(memory, dtype=dtype).view(shape)


class StandIn:
    """TensorRT's engine."""

    device_memory_size_v2 = 1024

    def __init__(self, data: bytes) -> None:
        self.script = torch.jit.script(Small())
        self.contexts: list[Context] = []

    def create_execution_context(self, how: object = None) -> Context:
        self.contexts.append(Context(self.script))
        return self.contexts[-1]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the stand-in takes."""
    library = SimpleNamespace(
        __version__="10.0",
        Logger=type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None}),
        Runtime=lambda log: SimpleNamespace(
            deserialize_cuda_engine=lambda data: StandIn(data) if data == b"plan" else None
        ),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=1),
    )
    monkeypatch.setitem(sys.modules, "tensorrt", library)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=77))
    path = tmp_path / "mine.plan"
    path.write_bytes(b"plan")
    return path


def test_each_batch_size_has_a_context_that_keeps_its_shape(plan: Path) -> None:
    detector = Plan(plan, "tensorrt")
    for size in (1, 4, 1, 4):
        images = torch.randint(0, 256, [size, 300, 300, 3], dtype=torch.uint8)
        for got, expected in zip(detector(images), Small()(images), strict=True):
            assert torch.equal(got, expected)
    contexts = detector.engine.contexts
    assert [one.batch for one in contexts] == [1, 4]
    assert [one.shapes_set for one in contexts] == [1, 1]
    (memory,) = {one.memory for one in contexts}
    assert memory[1] == 1024


def test_a_plan_that_does_not_fit_is_refused(plan: Path) -> None:
    detector = Plan(plan, "tensorrt")
    with pytest.raises(PlanError, match=r"refuses a batch of the shape \[5, 300, 300, 3\]"):
        detector(torch.zeros([5, 300, 300, 3], dtype=torch.uint8))
    plan.write_bytes(b"of another GPU")
    with pytest.raises(PlanError, match=r"tensorrt 10\.0 cannot load mine\.plan: see its log"):
        Plan(plan, "tensorrt")


def test_a_missing_library_is_named(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"mine\.plan needs tensorrt-rtx for this Python"):
        Plan(plan, "tensorrt-rtx")


def test_the_engine_s_network_takes_a_plan(
    plan: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    folder = SHIPPED / "model_repository/ssd/1"
    monkeypatch.syspath_prepend(str(folder))
    # Other models have modules of the same names.
    for path in folder.glob("*.py"):
        request.addfinalizer(partial(sys.modules.pop, path.stem, None))
    network = importlib.import_module("network")
    with pytest.raises(RuntimeError, match=r"mine\.plan runs on a GPU, got cpu"):
        network._load_detector(plan, torch.device("cpu"))
    with pytest.raises(RuntimeError, match=r"has no metadata, expected mine\.engine\.json"):
        network._load_detector(plan, torch.device("cuda:0"))
    plan.with_suffix(".engine.json").write_text(json.dumps({"runtime": "tensorrt"}), encoding="utf-8")
    detector = network._load_detector(plan, torch.device("cuda:0"))
    loc, _ = detector(torch.full([2, 300, 300, 3], 7, dtype=torch.uint8))
    assert loc.tolist() == torch.full([2, 4, 8], 7.0).tolist()
