"""Generates the reference of all verbs for the documentation."""

from __future__ import annotations

from functools import partial

from ssd_triton.commands.parser import HelpFormatter, verb_parser
from ssd_triton.commands.verbs import VERBS
from ssd_triton.config import Config

_WIDTH = 100


def commands_reference() -> str:
    """Return all verbs by group, in Markdown: description, options with their defaults, and an example."""
    lines: list[str] = []
    group = ""
    for verb in VERBS.values():
        if verb.group != group:
            group = verb.group
            lines += [f"## {group.capitalize()}", ""]
        parser = verb_parser(verb.name, f"ssd-triton {verb.name}", Config())
        parser.formatter_class = partial(HelpFormatter, width=_WIDTH)
        lines += [f"### `ssd-triton {verb.name}`", "", "```text", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines)
