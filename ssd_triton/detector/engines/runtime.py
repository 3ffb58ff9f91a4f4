"""TensorRT and TensorRT-RTX behind one interface.

Both libraries have the same Python API, and Polygraphy drives both. Polygraphy reads
``polygraphy.config.USE_TENSORRT_RTX`` only once, when its TensorRT backend is first imported. A process can therefore
build with only one of the libraries.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from types import ModuleType
from typing import Any, TypeVar

from ssd_triton.config import RuntimeName
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.plan import MODULES

Result = TypeVar("Result")

_SIGNAL_POLL_S = 0.1


@dataclass(frozen=True)
class Runtime:
    """A builder library: its name in the configuration, its module and its version."""

    name: RuntimeName
    module: Any
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX, which can also build for other GPUs than this machine's."""
        return self.name == "tensorrt-rtx"

    def ahead_of_time_capabilities(self) -> tuple[str, ...]:
        """List the compute capabilities, such as ``8.6``, for which it can build without a GPU; none for TensorRT."""
        if not self.is_rtx:
            return ()
        members = self.module.ComputeCapability.__members__
        numbers = [name.removeprefix("SM") for name in members if name.startswith("SM")]
        return tuple(f"{number[:-1]}.{number[-1]}" for number in numbers)


@dataclass
class BuilderLog:
    """What TensorRT logged while the log was captured: all messages, and the errors among them."""

    messages: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def layer_text(self) -> str | None:
        """Return the text about the engine's layers, or None if the builder did not log it."""
        return next((message for message in reversed(self.messages) if "LayerType: " in message), None)


def import_runtime(name: RuntimeName) -> Runtime:
    """Import a library to run engines with it.

    Raises:
        EngineError: It is not installed.
    """
    module: Any = _import(MODULES[name], name)
    return Runtime(name, module, str(module.__version__))


def load_runtime(name: RuntimeName) -> Runtime:
    """Import a library, and configure Polygraphy for it, to build engines with it.

    Raises:
        EngineError: It or Polygraphy is not installed, or this process already builds with the other one.
    """
    runtime = import_runtime(name)
    config: Any = _import("polygraphy.config", name)
    wants_rtx = runtime.is_rtx
    if "polygraphy.backend.trt" in sys.modules and wants_rtx != config.USE_TENSORRT_RTX:
        raise EngineError(f"this process already builds with another library, got {name}: start a new process")
    config.USE_TENSORRT_RTX = wants_rtx
    return runtime


@contextmanager
def captured_log() -> Iterator[BuilderLog]:
    """Collect what TensorRT and Polygraphy log, at full verbosity, instead of printing thousands of lines."""
    logger_module: Any = importlib.import_module("polygraphy.logger")
    polygraphy_logger = logger_module.G_LOGGER
    log = BuilderLog()
    handler = _CollectingHandler(log)
    python_logger = logging.getLogger("Polygraphy")  # the name under which Polygraphy uses Python's logging
    # No colours, since Polygraphy prints a warning to stdout if their package is missing; and no "[E]" before an error.
    polygraphy_logger.colors = polygraphy_logger.letter = False
    before = (polygraphy_logger.use_python_logging_system, polygraphy_logger.module_severity)
    polygraphy_logger.use_python_logging_system = True
    polygraphy_logger.module_severity = polygraphy_logger.EXTRA_VERBOSE  # TensorRT's own VERBOSE
    level, propagate = python_logger.level, python_logger.propagate
    python_logger.addHandler(handler)
    python_logger.setLevel(1)
    python_logger.propagate = False
    try:
        yield log
    finally:
        python_logger.removeHandler(handler)
        python_logger.setLevel(level)
        python_logger.propagate = propagate
        polygraphy_logger.use_python_logging_system, polygraphy_logger.module_severity = before


def run_cancellable(trt: ModuleType, build: Callable[[Any], Result]) -> Result:
    """Run a build that Ctrl-C can stop at once; TensorRT by itself reacts only minutes later.

    Python handles signals in the main thread, so the build runs in another thread. After every step, TensorRT asks its
    progress monitor whether to continue.

    Args:
        trt: The module of the builder library.
        build: Takes an ``IProgressMonitor`` for the builder's configuration, and builds.
    """
    cancelled = Event()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # pybind11 does not accept super()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Nothing: only cancelling matters."""

        def phase_finish(self, phase_name: str) -> None:
            """Nothing: only cancelling matters."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Whether to continue."""
            return not cancelled.is_set()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tensorrt") as executor:
        try:
            future = executor.submit(build, Monitor())
            # With a timeout, since a signal that another thread received does not end a wait without one.
            while not future.done():
                wait([future], timeout=_SIGNAL_POLL_S)
            return future.result()
        except KeyboardInterrupt:
            cancelled.set()
            raise


def _import(module: str, name: RuntimeName) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        # OSError: the Python module is installed, but one of its shared libraries is missing.
        other = "; or build with --runtime tensorrt-rtx" if name == "tensorrt" else ""
        raise EngineError(f"{name} cannot be imported ({error}): pip install -e '.[{name}]'{other}") from error


class _CollectingHandler(logging.Handler):
    """Puts records into a :class:`BuilderLog`."""

    def __init__(self, log: BuilderLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self._log.messages.append(message)
        if record.levelno == logging.ERROR:  # critical is Polygraphy's summary, which its exception holds too
            self._log.errors.append(" ".join(message.split()))
