"""Options of verbs: flags for keys of the configuration, and the types of all other values."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config
from ssd_triton.config.model import fields, value_of
from ssd_triton.config.section import unit_of

FIELDS = dict(fields())


class Typed:
    """An argparse type that parses and checks a text with pydantic, and refuses NaN and infinity.

    Attributes:
        metavar: Name of the value in the help; None for a text.
    """

    def __init__(self, kind: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
        kinds = (kind, *get_args(kind))
        self.metavar = "N" if int in kinds else "X" if float in kinds else None

    def __call__(self, text: str) -> Any:
        """Return the value of a text."""
        try:
            return self._adapter.validate_python(text)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise argparse.ArgumentTypeError(f"{message[0].lower()}{message[1:]}, got '{text}'") from None


POSITIVE = Typed(Annotated[int, Field(ge=1)])
"""A count of at least 1."""
COUNT = Typed(Annotated[int, Field(ge=0)])
"""A count that may be 0."""
NUMBER = Typed(float)
POSITIVE_NUMBER = Typed(Annotated[float, Field(gt=0)])
SECONDS = Typed(Annotated[float, Field(gt=0, le=86_400)])
"""Seconds, at most a day, which is far below the limits of sockets and timers."""
FRACTION = Typed(Annotated[float, Field(ge=0, le=1)])
"""A fraction from 0 to 1."""
SHARE = Typed(Annotated[float, Field(gt=0, lt=1)])
"""A fraction between 0 and 1, both excluded."""


def name_and_value(text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``; the value may be empty."""
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError(f"got '{text}', expected NAME=VALUE")
    return name, value


class KeyAction(argparse.Action):
    """Stores the value of an option in ``args.settings`` under its key of the configuration.

    Attributes:
        key: Dotted key of the configuration.
        in_force: The value without the option, for ``--help``.
    """

    def __init__(self, *, key: str, in_force: Any, **others: Any) -> None:
        super().__init__(default=argparse.SUPPRESS, **others)
        self.key = key
        self.in_force = in_force

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the value."""
        if self.nargs == 0:
            values = option is not None and not option.startswith("--no-")
        elif isinstance(self.in_force, Mapping):
            values = dict(values)
        settings = {**getattr(namespace, "settings", {}), self.key: values}
        namespace.settings = settings


def add_option(
    container: argparse._ActionsContainer,
    config: Config,
    flag: str,
    key: str,
    *,
    description: str | None = None,
    metavar: str | None = None,
) -> None:
    """Add a flag for a key of the configuration, with the key's type, limits, choices, default and help.

    Args:
        container: A parser, or a group of its arguments.
        config: The configuration without flags.
        flag: Name of the flag, such as ``--score-thresh``.
        key: Dotted key, such as ``detect.score_thresh``.
        description: Help text that replaces the key's own.
        metavar: Name of the value in the help; None takes the one from :func:`metavar_of`.
    """
    field, in_force = FIELDS[key], value_of(config, key)
    kind = _without_none(field.annotation)
    options: dict[str, Any] = {}
    flags = [flag]
    if kind is bool:
        flags, options["nargs"] = [flag, f"--no-{flag.removeprefix('--')}"], 0
    elif get_origin(kind) is Literal:
        literals = {str(literal): literal for literal in get_args(kind)}
        options.update(choices=list(literals.values()), type=lambda text: literals.get(text, text))
    elif get_origin(kind) is dict:
        options.update(nargs="+", type=name_and_value, metavar=metavar or "NAME=VALUE")
    elif get_origin(kind) is tuple:
        options.update(nargs="+", type=str, metavar=metavar or "NAME")
    else:
        options.update(type=Path if kind is Path else Typed(Annotated[kind, field]), metavar=metavar)
    container.add_argument(
        *flags,
        action=KeyAction,
        key=key,
        in_force=in_force,
        dest=argparse.SUPPRESS,
        help=description or field.description,
        **options,
    )


def given(args: argparse.Namespace, keys: Iterable[str]) -> list[str]:
    """Return the keys that flags have set."""
    settings = getattr(args, "settings", {})
    return [key for key in keys if key in settings]


def shown(value: Any, name: str) -> str:
    """Format a value for the help, with the unit at the end of its name."""
    unit = unit_of(name)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Path):
        return relative_to_cwd(value)
    if isinstance(value, Mapping):
        return " ".join(f"{key}={one}" for key, one in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(shown(one, "") for one in value) or "none"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text}{unit}" if unit == "°" else f"{text} {unit}".rstrip()


def _without_none(kind: Any) -> Any:
    """Return a type without its alternative None."""
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        return kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007
    return kind


def metavar_of(action: argparse.Action) -> str:
    """Return the name of an option's value in the help: its unit, type or destination."""
    name = action.key.rpartition(".")[2] if isinstance(action, KeyAction) else action.dest
    if unit_of(name):
        return name.rpartition("_")[2].upper()
    if isinstance(action.type, Typed) and action.type.metavar is not None:
        return action.type.metavar
    if action.type is Path:
        return "FOLDER" if (action.help or "").startswith("folder") else "FILE"
    return name.upper()
