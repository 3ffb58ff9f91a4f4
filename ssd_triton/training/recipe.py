"""Recipes: files that override some keys of ``training`` in the configuration, for one kind of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.yaml_file import read_mapping, validated
from ssd_triton.config import TrainingConfig


def with_recipe(settings: TrainingConfig, path: Path | None) -> TrainingConfig:
    """The settings with what a recipe overrides; sections of it need not be whole.

    Raises:
        ConfigError: The file is missing or no YAML, or a key is unknown, repeated or out of range.
    """
    if path is None:
        return settings
    values = read_mapping(path, error_type=ConfigError, next_step="give another one with --recipe FILE")
    merged = _merged(settings.model_dump(), values)
    return validated(merged, TrainingConfig, name=relative_to_cwd(path), error_type=ConfigError)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        merged[key] = _merged(below[key], value) if both else value
    return merged
