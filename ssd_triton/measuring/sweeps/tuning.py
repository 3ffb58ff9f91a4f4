"""Makes a model repository with other settings: changed configurations beside links to the artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format

from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.sweep_file import ModelTuning
from ssd_triton.serving.repository.model_config import ModelConfig, load_model_config


def tuned_repository(repository: Path, setting: Mapping[str, ModelTuning], folder: Path) -> Path:
    """Make a model repository that differs from another one in the configurations of some models.

    Args:
        repository: The repository to start from; its artefacts are linked.
        setting: Changes by model.
        folder: Folder of the new repository; it must not exist.

    Raises:
        SweepError: There is no such model, or its configuration lacks a value that the setting changes.
    """
    unknown = [name for name in setting if not (repository / name / "config.pbtxt").is_file()]
    if unknown:
        raise SweepError(f"settings: no model '{unknown[0]}' in {repository}")
    for model in sorted(path for path in repository.iterdir() if (path / "config.pbtxt").is_file()):
        target = folder / model.name
        target.mkdir(parents=True)
        for entry in model.iterdir():
            if entry.name not in ("config.pbtxt", "configs"):
                (target / entry.name).symlink_to(entry.resolve())
        tuning = setting.get(model.name, ModelTuning())
        of_variants = [] if tuning.ensemble else sorted((model / "configs").glob("*.pbtxt"))
        for config in (model / "config.pbtxt", *of_variants):
            copied = target / config.relative_to(model)
            copied.parent.mkdir(exist_ok=True)
            message = load_model_config(config)
            apply_tuning(message, tuning)
            copied.write_text(text_format.MessageToString(message), encoding="utf-8")
    return folder


def apply_tuning(config: ModelConfig, tuning: ModelTuning) -> None:
    """Change a model's configuration in place.

    A value that only some variants have, such as an execution accelerator, is changed only in those.

    Raises:
        SweepError: The model has no such parameter.
    """
    if tuning.instances is not None:
        for group in config.instance_group:
            group.count = tuning.instances
    if tuning.dynamic_batching is False:
        config.ClearField("dynamic_batching")
    elif tuning.dynamic_batching:
        config.dynamic_batching.SetInParent()
    if tuning.max_queue_delay_us is not None:
        config.dynamic_batching.max_queue_delay_microseconds = tuning.max_queue_delay_us
    if tuning.preferred_batch_sizes is not None:
        config.dynamic_batching.preferred_batch_size[:] = tuning.preferred_batch_sizes
    for name, value in tuning.parameters.items():
        if name not in config.parameters:
            known = ", ".join(sorted(config.parameters)) or "none"
            raise SweepError(f"settings: {config.name} has no parameter '{name}'; it has: {known}")
        config.parameters[name].string_value = value
    for accelerator in config.optimization.execution_accelerators.cpu_execution_accelerator:
        for name, value in tuning.accelerator_parameters.items():
            accelerator.parameters[name] = value
