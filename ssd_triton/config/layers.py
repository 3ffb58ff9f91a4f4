"""The configuration in force: defaults, the project's file, other files, ``--set``, a command's flags; later ones win.

A layer holds only what differs. Mappings (sections, ``accuracy``, ``coco.name_map``, ...) are merged key by key, other
values are replaced.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import ROOT, fill_root, relative_to_cwd
from ssd_triton.common.yaml_file import describe, parse_yaml, read_mapping
from ssd_triton.config.model import Config, fields, section_of, takes_path
from ssd_triton.config.section import Section

PROJECT_FILE = ROOT / "config.yml"
"""Read before all other files, where there is one."""
DEFAULT = "default"
"""Origin of values that no layer sets."""
SET, FLAGS = "--set", "flags"
"""Origins of what a command line says; it is above all files."""

_CHANGED_KEYS: Mapping[str, str] = {"world": "renamed to 'simulation'"}
"""What became of keys that earlier versions had: 'renamed to NEW', or why there is none any more."""


@dataclass(frozen=True)
class Layer:
    """Values from one place.

    Attributes:
        origin: The place, for messages: a file's name, ``--set``, or a flag.
        values: By key, nested as the sections are; relative paths are relative to the working folder.
    """

    origin: str
    values: Mapping[str, Any]


def load_config(path: Path | None = None) -> Config:
    """The configuration of the project's file and of another one; paths are absolute.

    Raises:
        ConfigError: The file is missing or no YAML, or a key is unknown, repeated or out of range; the message names
            the file, the key and, for an unknown key, the nearest known one.
    """
    return merge(file_layers([] if path is None else [path]))


def file_layers(paths: Sequence[Path]) -> list[Layer]:
    """A layer for the project's file, where there is one, and one for each other file.

    Raises:
        ConfigError: A file is missing or no YAML.
    """
    fill_root()
    others = [path for path in paths if path.resolve() != PROJECT_FILE]
    return [_file_layer(path) for path in (PROJECT_FILE, *others) if path != PROJECT_FILE or path.is_file()]


def with_file(layers: Sequence[Layer], path: Path) -> list[Layer]:
    """Layers with one more file, above other files and below the command line.

    Raises:
        ConfigError: The file is missing or no YAML.
    """
    files = [layer for layer in layers if layer.origin not in (SET, FLAGS)]
    return [*files, _file_layer(path), *layers[len(files) :]]


def assignment(text: str) -> tuple[str, Any]:
    """A key and its value, of ``KEY=VALUE`` with the value in YAML.

    Raises:
        ConfigError: It has another form.
    """
    key, separator, value = text.partition("=")
    if not (separator and key):
        raise ConfigError(f"got '{text}', expected KEY=VALUE, such as detect.score_thresh=0.3")
    return key, parse_yaml(value, name=key, error_type=ConfigError)


def dotted_layer(origin: str, values: Iterable[tuple[str, Any]]) -> Layer:
    """A layer of dotted keys."""
    nested: dict[str, Any] = {}
    for key, value in values:
        for name in reversed(key.split(".")):
            value = {name: value}  # noqa: PLW2901
        nested = _merged(nested, value)
    return Layer(origin, nested)


def merge(layers: Sequence[Layer]) -> Config:
    """The configuration that layers make of the defaults, checked; its paths are absolute.

    Raises:
        ConfigError: A key is unknown, was renamed or removed, or its value is out of range; the message names the
            layer, the key and, for an unknown key, the nearest known one.
    """
    values: dict[str, Any] = Config().model_dump()
    for layer in layers:
        values = _merged(values, layer.values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        for problem in error.errors():
            place = problem["loc"][:-1] if problem["type"] == "missing" else problem["loc"]
            origin = next((one.origin for one in reversed(layers) if _sets(one.values, place)), DEFAULT)
            problems.setdefault(origin, []).append(_description(problem))
        raise ConfigError("; ".join(f"{origin}: {'; '.join(texts)}" for origin, texts in problems.items())) from None
    resolved: Config = _with_absolute_paths(config)
    return resolved


def origins(layers: Sequence[Layer]) -> dict[str, str]:
    """The origin of every key that a layer sets; all other keys have their defaults."""
    return {key: layer.origin for layer in layers for key, _ in flattened(layer.values)}


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values, of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _file_layer(path: Path) -> Layer:
    values = read_mapping(path, error_type=ConfigError, next_step="name another one with --config FILE", empty=True)
    return Layer(relative_to_cwd(path), _resolved(values, Config, path.resolve().parent))


def _resolved(values: Mapping[str, Any], model: type[Section], base: Path) -> dict[str, Any]:
    """Values of a file, whose relative paths are relative to its folder."""
    resolved = dict(values)
    for name, value in values.items():
        field = model.model_fields.get(name)
        section = None if field is None else section_of(field)
        if section is not None and isinstance(value, Mapping):
            resolved[name] = _resolved(value, section, base)
        elif field is not None and takes_path(field) and isinstance(value, str):
            resolved[name] = str(base / value)
    return resolved


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        merged[key] = _merged(below[key], value) if both else value
    return merged


def _sets(values: Any, location: Sequence[int | str]) -> bool:
    """Whether a layer has a value at a location, or around it."""
    for name in location:
        if not isinstance(values, Mapping):
            return True
        if name not in values:
            return False
        values = values[name]
    return True


def _description(problem: Any) -> str:
    """One problem as 'key: what is wrong'."""
    if problem["type"] != "extra_forbidden":
        return describe(problem)
    key = ".".join(str(part) for part in problem["loc"])
    if key in _CHANGED_KEYS:
        return f"key '{key}' of an earlier version: {_CHANGED_KEYS[key]}"
    known = [name for name, _ in fields()] + list(Config.model_fields)
    name = key.rpartition(".")[2]
    nearest = [one for one in known if one.rpartition(".")[2] == name] or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else "'ssd-triton config' lists all keys"
    return f"unknown key '{key}': {hint}"


def _with_absolute_paths(section: Any) -> Any:
    """Resolve every path of a section, and of the sections in it, against the working folder."""
    resolved: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            resolved[name] = _with_absolute_paths(value)
        elif isinstance(value, Path):
            resolved[name] = Path.cwd() / value
    return section.model_copy(update=resolved)
