"""Print a script that adds completion of verbs, options, choices and files to a shell."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.verbs import VERBS
from ssd_triton.config import Config

EXAMPLE = """source <(ssd-triton completion bash)
  ssd-triton completion zsh > ~/.zfunc/_ssd-triton"""
_SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("shell", choices=_SHELLS, help="shell")


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the script."""
    import shtab

    print(shtab.complete(_whole_parser(config), args.shell))
    return 0


def _whole_parser(config: Config) -> argparse.ArgumentParser:
    """Return one parser with every verb as a sub-command."""
    from ssd_triton.commands.parser import Parser, add_verb_arguments

    parser = Parser(prog="ssd-triton", description="SSD300 object detection on NVIDIA's Triton Inference Server.")
    verbs = parser.add_subparsers(metavar="VERB")
    for verb in VERBS.values():
        one = verbs.add_parser(verb.name, help=verb.summary)
        add_verb_arguments(one, verb.name, config)
        _complete_files(one)
    return parser


def _complete_files(parser: argparse.ArgumentParser) -> None:
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_files(inner)
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
