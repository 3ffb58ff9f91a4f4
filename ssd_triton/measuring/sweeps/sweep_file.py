"""Reads and checks sweep files, and expands them into single measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssd_triton.common.yaml_file import read_yaml
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.perf_analyzer import Protocol, SharedMemory

Count = Annotated[int, Field(ge=1, le=1024)]
Batch = Annotated[int, Field(ge=1, le=64)]
Share = Annotated[float, Field(gt=0, le=2)]
ModelName = Literal["ssd", "ssd_frames", "ssd_detector"]
BARE = "bare"
"""Used as the model name for the detector in this process, without a server."""
DEFAULT_SETTING = "as configured"
"""Name of the setting that leaves the model repository unchanged."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelTuning(_Section):
    """Changes of a setting to a model's configuration; None leaves a value unchanged.

    Attributes:
        ensemble: Whether the model is the ensemble of its ``config.pbtxt`` for every variant.
        instances: Count of every instance group.
        dynamic_batching: Whether waiting requests are batched.
        max_queue_delay_us: Queue delay of dynamic batching, microseconds.
        preferred_batch_sizes: Preferred batch sizes of dynamic batching.
        parameters: New values of existing parameters.
        accelerator_parameters: Parameters of the CPU execution accelerator, such as OpenVINO's ``num_of_threads``.
    """

    ensemble: bool = False
    instances: Count | None = None
    dynamic_batching: bool | None = None
    max_queue_delay_us: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    preferred_batch_sizes: tuple[Batch, ...] | None = None
    parameters: Mapping[str, str] = Field(default_factory=dict)
    accelerator_parameters: Mapping[str, str] = Field(default_factory=dict)


class LoadGrid(_Section):
    """Lists of load settings; every combination is a measurement.

    Attributes:
        model: Name of the model.
        batch: Images in a request.
        concurrency: Requests in flight at once.
        rate_share: Shares of the images a second at the highest ``concurrency``, sent at even intervals.
        protocol: Protocols: ``grpc``, ``http``.
        shared_memory: Kinds of shared memory for tensors: ``none``, ``system``, ``cuda``.
    """

    model: ModelName
    batch: tuple[Batch, ...] = (1,)
    concurrency: Annotated[tuple[Count, ...], Field(min_length=1)]
    rate_share: tuple[Share, ...] = ()
    protocol: tuple[Protocol, ...] = ("grpc",)
    shared_memory: tuple[SharedMemory, ...] = ("none",)


class MeasurementWindow(_Section):
    """Measurement windows; a measurement ends when three windows in a row agree.

    Attributes:
        images: Images in a window; ``requests_per_slot`` may raise the number. Leave it out for windows by time.
        requests_per_slot: Least number of requests in a window for each request in flight.
        seconds: Length of a window. Leave it out for windows by count.
        stability_percent: Largest difference between the three windows.
        max_trials: Number of windows after which the measurement counts as unstable.
        timeout_s: Time limit of the whole measurement.
    """

    images: Count | None = None
    requests_per_slot: Count = 4
    seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    stability_percent: Annotated[float, Field(gt=0, le=100)] = 30
    max_trials: Annotated[int, Field(ge=3, le=100)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 300

    @model_validator(mode="after")
    def _one_kind(self) -> MeasurementWindow:
        if (self.images is None) == (self.seconds is None):
            raise ValueError("expected either images or seconds")
        return self


class Sweep(_Section):
    """The content of a sweep file.

    Attributes:
        description: Purpose, for the report.
        target: Device that the server must have.
        variants: Variants of the detector; None takes all that run on the machine.
        rounds: How often everything is measured, in turns; the differences between rounds show the noise.
        window: Measurement windows.
        images: A folder of images; None takes the bundled photograph. Relative to the working folder.
        num_images: Number of images.
        frame_size_px: Width and height of the frames for ``ssd_frames``.
        loads: Loads to measure.
        bare_batch: Batch sizes at which the detector is also measured without a server.
        settings: Server settings to compare, by name; without any, the repository is measured as it is.
    """

    description: str
    target: Literal["cpu", "gpu"]
    variants: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    rounds: Annotated[int, Field(ge=1, le=100)] = 3
    window: MeasurementWindow
    images: Path | None = None
    num_images: Count = 1
    frame_size_px: tuple[Annotated[int, Field(ge=8, le=8192)], Annotated[int, Field(ge=8, le=8192)]] = (1280, 720)
    loads: Annotated[tuple[LoadGrid, ...], Field(min_length=1)]
    bare_batch: tuple[Batch, ...] = ()
    settings: Mapping[str, Mapping[str, ModelTuning]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One combination of variant, setting and load, which is measured in every round."""

    variant: str
    setting: str
    model: str
    batch: int
    protocol: Protocol | Literal["none"]
    shared_memory: SharedMemory
    concurrency: int
    rate_share: float | None = None

    @property
    def load(self) -> str:
        """The load in words, without variant and setting."""
        batch = "" if self.batch == 1 else f", batch {self.batch}"
        share = self.rate_share
        pace = f", {self.concurrency} in flight" if share is None else f", {share:.0%} of the highest rate"
        protocol = "" if self.protocol == "grpc" else f", {self.protocol}"
        memory = "" if self.shared_memory == "none" else f", {self.shared_memory} memory"
        return f"{self.model}{batch}{pace}{protocol}{memory}"

    def __str__(self) -> str:
        pace = f"c{self.concurrency}" if self.rate_share is None else f"r{self.rate_share:g}"
        memory = "" if self.shared_memory == "none" else f" {self.shared_memory} shm"
        setting = "" if self.setting == DEFAULT_SETTING else f" [{self.setting}]"
        return f"{self.variant}{setting} {self.model} b{self.batch} {pace} {self.protocol}{memory}"


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep's file.

    Raises:
        SweepError: The file is missing or not YAML, or a key is unknown, missing or out of range; the message names it.
    """
    sweep = read_yaml(path, Sweep, error_type=SweepError, next_step="see perf/sweeps/ for those that there are")
    on_gpu_only = any("cuda" in load.shared_memory for load in sweep.loads)
    if sweep.target == "cpu" and on_gpu_only:
        raise SweepError(f"{path}: shared_memory cuda needs target gpu")
    return sweep


def points(sweep: Sweep, variant: str) -> list[Point]:
    """Return the points of one round for a variant, by setting; a rate share comes after the load that it refers to."""
    found: list[Point] = []
    for setting in sweep.settings or (DEFAULT_SETTING,):
        for load in sweep.loads:
            paces: list[tuple[int, float | None]] = [(concurrency, None) for concurrency in load.concurrency]
            paces += [(max(load.concurrency), share) for share in load.rate_share]
            found += [
                Point(variant, setting, load.model, batch, protocol, memory, concurrency, share)
                for batch in load.batch
                for protocol in load.protocol
                for memory in load.shared_memory
                for concurrency, share in paces
            ]
        if setting == DEFAULT_SETTING:
            found += [Point(variant, setting, BARE, batch, "none", "none", 1) for batch in sweep.bare_batch]
    return list(dict.fromkeys(found))
