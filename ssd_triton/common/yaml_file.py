"""YAML files whose keys and values are checked, with one-line errors that name the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path, model: type[Model], *, error_type: type[UserError], next_step: str) -> Model:
    """Read a YAML file into a pydantic model.

    Args:
        path: The file.
        model: What it holds; its own settings say whether unknown keys are refused.
        error_type: Raised for everything that is wrong with the file.
        next_step: What to do when the file cannot be read, for the message.

    Raises:
        UserError: The file is missing or no YAML, or a key is unknown, repeated, missing or out of range; the
            message names the file, the key and, for an unknown key, the nearest known one.
    """
    values = read_mapping(path, error_type=error_type, next_step=next_step)
    return validated(values, model, name=relative_to_cwd(path), error_type=error_type)


def read_mapping(path: Path, *, error_type: type[UserError], next_step: str) -> dict[str, object]:
    """Read a YAML file of keys and values, unchecked.

    Raises:
        UserError: The file is missing or no YAML, holds something else, or repeats a key.
    """
    name = relative_to_cwd(path)
    try:
        # The loader below is a SafeLoader: it builds plain values only.
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise error_type(f"cannot read {name} ({error}); {next_step}") from error
    except yaml.YAMLError as error:
        raise error_type(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise error_type(f"{name}: got {type(values).__name__}, expected keys and values")
    return values


def validated(values: Mapping[str, object], model: type[Model], *, name: str, error_type: type[UserError]) -> Model:
    """Check values against a pydantic model.

    Args:
        values: By key.
        model: What they are checked against.
        name: Of the file, for the message.
        error_type: Raised for everything that is wrong with them.

    Raises:
        UserError: As of :func:`read_yaml`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(problem, model) for problem in error.errors())
        raise error_type(f"{name}: {problems}") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without repeated keys, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated key, then build the mapping as usual."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"repeated key '{key}'", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _describe(problem: Any, model: type[BaseModel]) -> str:
    """One pydantic problem as 'key: what is wrong'."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] != "extra_forbidden":
        got = "" if problem["type"] == "missing" else f", got {problem['input']!r}"
        return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{got}"
    section: type[BaseModel] = model
    for part in location[:-1]:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return f"unknown key '{key}'"
        section = annotation
    nearest = difflib.get_close_matches(location[-1], section.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known keys: {', '.join(section.model_fields)}"
    return f"unknown key '{key}': {hint}"
