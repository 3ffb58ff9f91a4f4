"""Reads and merges ``config.pbtxt`` files with Triton's own protobuf."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd

ModelConfig = Any
"""``inference.ModelConfig``; the generated module has no type annotations."""


def load_model_config(path: Path) -> ModelConfig:
    """Parse a ``.pbtxt`` file.

    Raises:
        ConfigError: The file is missing or not UTF-8, or holds a field that Triton does not know.
    """
    if not path.is_file():
        raise ConfigError(f"model configuration not found: {relative_to_cwd(path)}; set model_repository or variant")
    return parse_model_config(read_config_text(path), path)


def read_config_text(path: Path) -> str:
    """Read a file of the repository.

    Raises:
        ConfigError: It is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{relative_to_cwd(path)}: byte {error.start} is not UTF-8: correct the file") from None


def parse_model_config(text: str, path: Path) -> ModelConfig:
    """Parse the text of a ``.pbtxt`` file.

    Args:
        text: The text.
        path: The file of the text, for the error.

    Raises:
        ConfigError: The text holds a field that Triton does not know.
    """
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise ConfigError(f"{relative_to_cwd(path)}:{error}") from error
    return config


def overlaid(base: ModelConfig, overlay: ModelConfig) -> ModelConfig:
    """Merge an overlay into a copy of the base: its values and lists replace those of the base, maps merge by key."""
    result = model_config_pb2.ModelConfig()
    result.CopyFrom(base)
    for field, value in overlay.ListFields():
        if hasattr(value, "extend"):  # a list
            result.ClearField(field.name)
    result.MergeFrom(overlay)
    return result


def to_text(config: ModelConfig) -> str:
    """Format a configuration as ``.pbtxt``."""
    return str(text_format.MessageToString(config, use_short_repeated_primitives=True))


def first_difference(got: ModelConfig, expected: ModelConfig) -> str:
    """Describe the first field that differs between two configurations, with both values."""
    values, wanted = dict(_leaves(_to_dict(got))), dict(_leaves(_to_dict(expected)))
    field = next(name for name in {**wanted, **values} if values.get(name) != wanted.get(name))
    return f"{field} is {values.get(field, 'missing')}, expected {wanted.get(field, 'none')}"


def _to_dict(config: ModelConfig) -> Any:
    return json_format.MessageToDict(config, preserving_proto_field_name=True)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every scalar value with its path, in which tensors and steps appear by name instead of by index."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{inner.get('name', index)}]")
    else:
        yield path, value
