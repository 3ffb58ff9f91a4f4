"""Models in this process, with an engine on a CPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssd_triton.common.arrays import AnyArray
from tests.serving.engine.stand_in import REPOSITORY, Import, Model, as_another_server


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


@pytest.fixture
def warnings() -> list[str]:
    """What the model wrote to Triton's log."""
    return []


@pytest.fixture
def start(
    modules: Callable[[str], Import], monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> Callable[..., Model]:
    """What starts an instance of a model with an engine on the CPU."""

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

    def start(program: Path, kind: str = "GPU", model: str = "ssd_preprocess", instances: int = 1) -> Any:
        load = modules(model)
        client, module = load("engine_client"), load("model")
        monkeypatch.setattr(client, "_PROGRAM", program)
        as_another_server(client, monkeypatch, program)
        monkeypatch.setattr(load("structured_log").StructuredLog, "write", lambda self, *line: warnings.append(line[2]))
        monkeypatch.setattr(module, "_is_installed", lambda name: True, raising=False)
        on_cpu = client.EngineClient
        user = module if model == "ssd_preprocess" else load("one_process")
        monkeypatch.setattr(user, "EngineClient", lambda settings: on_cpu({**settings, "device": "cpu"}))
        with ThreadPoolExecutor() as pool:
            started = list(pool.map(lambda _: Model(module, model, kind), range(instances)))
        return started[0] if instances == 1 else started

    return start
