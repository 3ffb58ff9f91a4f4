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
_MAX_LEVELS = 100


def read_yaml(path: Path, model: type[Model], *, error_type: type[UserError], next_step: str) -> Model:
    """Read a YAML file into a pydantic model.

    Args:
        path: The file.
        model: The pydantic model; its own settings decide whether unknown keys are refused.
        error_type: Type of all errors about the file.
        next_step: What to do when the file cannot be read, for the message.

    Raises:
        UserError: The file is missing or not YAML, or a key is unknown, repeated, missing or out of range; the
            message names the file, the key and, for an unknown key, the nearest known one.
    """
    values = read_mapping(path, error_type=error_type, next_step=next_step)
    return validated(values, model, name=relative_to_cwd(path), error_type=error_type)


def read_mapping(path: Path, *, error_type: type[UserError], next_step: str, empty: bool = False) -> dict[str, object]:
    """Read a YAML file as a mapping, without checking its keys and values.

    Args:
        path: The file.
        error_type: Type of all errors about the file.
        next_step: What to do when the file cannot be read, for the message.
        empty: Whether a file without any key is allowed.

    Raises:
        UserError: The file is missing or not YAML, does not hold a mapping, or repeats a key.
    """
    name = relative_to_cwd(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise error_type(f"cannot read {name} ({error}); {next_step}") from error
    values = parse_yaml(text, name=name, error_type=error_type)
    if values is None and empty:
        return {}
    if not isinstance(values, dict):
        raise error_type(f"{name}: got {type(values).__name__}, expected keys and values")
    return values


def parse_yaml(text: str, *, name: str, error_type: type[UserError]) -> Any:
    """Parse YAML from a user, and refuse aliases, repeated keys, and more than 100 levels.

    Args:
        text: The YAML.
        name: Name of the source, for the message.
        error_type: Type of all errors about the text.

    Raises:
        UserError: The text is not YAML, or has something that is refused.
    """
    try:
        # The loader below is a SafeLoader: it builds plain values only.
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506
    except yaml.YAMLError as error:
        raise error_type(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error


def validated(values: Mapping[str, object], model: type[Model], *, name: str, error_type: type[UserError]) -> Model:
    """Check values against a pydantic model.

    Args:
        values: Values by key.
        model: The pydantic model.
        name: Name of the file, for the message.
        error_type: Type of all errors about the values.

    Raises:
        UserError: A key is unknown, missing or out of range; see :func:`read_yaml`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(problem, model) for problem in error.errors())
        raise error_type(f"{name}: {problems}") from None


class _StrictLoader(yaml.SafeLoader):
    """A loader that refuses YAML that expands to far more than its size, or whose values are not what they seem."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, which can grow without bound, and deep nesting, which would overflow the stack."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases are not allowed, got one in line {self.line + 1}")
        self._level += 1
        if self._level > _MAX_LEVELS:
            raise yaml.YAMLError(f"more than {_MAX_LEVELS} levels in line {self.line + 1}")
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Refuse values that Python cannot hold, such as the 31st of February, and integers beyond 64 bits."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error
        if isinstance(value, int) and abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(None, None, "integer beyond 64 bits", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated key, of which PyYAML would silently keep the last, and a key that is not a plain value."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain value", key_node.start_mark)
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"repeated key '{key}'", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def describe(problem: Any) -> str:
    """Format one problem that pydantic reports as 'key: what is wrong'."""
    key = ".".join(str(part) for part in problem["loc"])
    got = "" if problem["type"] in ("missing", "value_error") else f", got {problem['input']!r}"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {text[0].lower()}{text[1:]}{got}"


def _describe(problem: Any, model: type[BaseModel]) -> str:
    """Format a problem as :func:`describe` does, with the nearest known key for an unknown one."""
    if problem["type"] != "extra_forbidden":
        return describe(problem)
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    section: type[BaseModel] = model
    for part in location[:-1]:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return f"unknown key '{key}'"
        section = annotation
    nearest = difflib.get_close_matches(location[-1], section.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known keys: {', '.join(section.model_fields)}"
    return f"unknown key '{key}': {hint}"
