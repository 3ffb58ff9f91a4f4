"""The parser of a verb, with one-line usage errors and a help that shows the defaults in force."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

from ssd_triton.commands.options import KeyAction, metavar_of, shown
from ssd_triton.commands.verbs import VERBS
from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config
from ssd_triton.config.layers import FLAGS, SET, Layer, assignment, dotted_layer, file_layers, merge
from ssd_triton.config.model import value_of


class VerbModule(Protocol):
    """The interface of a verb's module."""

    __doc__: str | None
    EXAMPLE: str
    add_arguments: Callable[[argparse.ArgumentParser, Config], None]
    run: Callable[[argparse.Namespace, Config], int]


class Parser(argparse.ArgumentParser):
    """A parser with one-line errors; options cannot be abbreviated, so that new options break no script."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        hint = "" if message.endswith("?") else f"; '{_typed(self.prog)} --help' lists the options"
        self.exit(2, f"{self.prog}: error: {message}{hint}\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; the error for an unknown option suggests the nearest known one."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            known = [option for action in self._actions for option in action.option_strings]
            nearest = difflib.get_close_matches(rest[0].partition("=")[0], known, n=1)
            hint = f", did you mean '{nearest[0]}'?" if nearest else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return parsed


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows the defaults in force, with their units, and keeps the line breaks of descriptions and examples."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, is_key = action.help or "", isinstance(action, KeyAction)
        default, name = (
            (action.in_force, action.key) if isinstance(action, KeyAction) else (action.default, action.dest)
        )
        if is_key or not (default in (None, argparse.SUPPRESS, []) or action.nargs == 0):
            text += f" (default: {shown(default, name)})"
        return text.replace("%", "%%")

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return metavar_of(action)


def verb_module(name: str) -> VerbModule:
    """Import and return the module of a verb."""
    return cast(VerbModule, import_module(VERBS[name].module))


def parse_verb(
    name: str, argv: Sequence[str], *, script: str | None = None
) -> tuple[VerbModule, argparse.Namespace, Config]:
    """Parse the arguments of a verb, and merge them into the configuration.

    Configuration files and ``--set`` are read first, so that ``--help`` shows the defaults in force.

    Args:
        name: The verb.
        argv: Its arguments.
        script: Path of the script that was run instead of ``ssd-triton VERB``; None without a script.

    Returns:
        The module of the verb, its arguments (``config`` lists the files, ``layers`` holds everything that differs from
        the defaults), and the configuration in force.

    Raises:
        ConfigError: A configuration file cannot be used.
        SystemExit: Wrong usage, or ``--help``.
    """
    module = verb_module(name)
    program = script or f"ssd-triton {name}"
    first = Parser(prog=program, add_help=False)
    _add_configuration(first)
    end = argv.index("--") if "--" in argv else len(argv)
    known, rest = first.parse_known_args(argv[:end])
    layers = file_layers(known.config)
    merge(layers)
    config = _merged(first, layers, dotted_layer(SET, known.set))
    parser = verb_parser(name, program, config)
    args = parser.parse_args([*rest, *argv[end:]])
    flags = dotted_layer(FLAGS, getattr(args, "settings", {}).items())
    config = _merged(parser, layers, flags)
    _check_output(parser, args, config)
    args.config, args.layers = known.config, layers
    return module, args, config


def verb_parser(name: str, program: str, config: Config) -> Parser:
    """Return the parser of a verb, with the defaults of a configuration."""
    module = verb_module(name)
    example = module.EXAMPLE.replace(f"ssd-triton {name}", _typed(program))
    parser = Parser(prog=program, description=module.__doc__, epilog=f"example:\n  {example}")
    add_verb_arguments(parser, name, config)
    return parser


def add_verb_arguments(parser: argparse.ArgumentParser, name: str, config: Config) -> None:
    """Add the arguments of a verb to a parser, and those of the configuration."""
    verb_module(name).add_arguments(parser, config)
    _add_configuration(parser)


def _typed(program: str) -> str:
    """Return the command that a user types to run a program."""
    return program if program.startswith("ssd-triton") else f"python {program}"


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="settings that differ from the defaults, beyond those of the project's config.yml; repeat for more, later "
        "ones win",
    )
    group.add_argument(
        "--set",
        type=_assignment,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the configuration, such as server.grpc_port=9001; 'ssd-triton config' lists them",
    )


def _assignment(text: str) -> tuple[str, Any]:
    try:
        return assignment(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _check_output(parser: Parser, args: argparse.Namespace, config: Config) -> None:
    """Refuse an ``--output`` that cannot be written, before a long run begins."""
    action = next((one for one in parser._actions if "--output" in one.option_strings), None)
    if action is None:
        return
    path = value_of(config, action.key) if isinstance(action, KeyAction) else getattr(args, action.dest)
    if path is None:
        return
    is_folder = metavar_of(action) == "FOLDER"
    if path.exists() and path.is_dir() != is_folder:
        got, expected = ("folder", "file") if path.is_dir() else ("file", "folder")
        parser.error(f"argument --output: got the {got} {relative_to_cwd(path)}, expected a {expected}")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        parser.error(f"argument --output: got {relative_to_cwd(path)} below the file {relative_to_cwd(above)}")


def _merged(parser: Parser, layers: list[Layer], layer: Layer) -> Config:
    """Add a layer from the command line; an error in it is a usage error."""
    if layer.values:
        layers.append(layer)
    try:
        return merge(layers)
    except ConfigError as error:
        parser.error(str(error))
