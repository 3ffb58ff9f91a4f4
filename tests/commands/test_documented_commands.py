"""Every command that the documentation shows is one that its own parser takes."""

from __future__ import annotations

import re
import shlex
from itertools import dropwhile
from pathlib import Path

import pytest

from ssd_triton.commands.parser import parse_verb, verb_module
from ssd_triton.commands.verbs import VERBS
from ssd_triton.common.files import ROOT
from tests.documented import Shown, shown_commands

COMMANDS = list(shown_commands())
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE))
PROGRAM = re.compile(r"(?:^|[ /(])(ssd-triton|make|python (?:tools|clients|perf)/\w+\.py)(?= |$)")


def words_of(text: str) -> list[list[str]]:
    """The words of each command of a line, without what the shell takes for itself."""
    parts: list[list[str]] = [[]]
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    for word in lexer:
        if set(word) <= set("|&;<>"):
            parts.append([])
        else:
            parts[-1].append(word)
    is_setting = re.compile(r"\w+=.*").fullmatch
    commands = [list(dropwhile(is_setting, part)) for part in parts]
    return [command for command in commands if command]


def verb_and_arguments(words: list[str]) -> tuple[str, list[str]] | None:
    """The verb that a command stands for, and its arguments; None for the command of something else."""
    if Path(words[0]).name == "ssd-triton" and len(words) > 1:
        return words[1], words[2:]
    if words[0] == "python" and len(words) > 1 and re.match(r"(tools|clients|perf)/", words[1]):
        [verb] = re.findall(r'main\("(.*)"\)', (ROOT / words[1]).read_text(encoding="utf-8"))
        return verb, words[2:]
    return None


def check(words: list[str], *, is_inline: bool) -> None:
    """Parse a command of this project.

    Raises:
        SystemExit: It is wrong usage.
    """
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
        return
    found = verb_and_arguments(words)
    if found is None:
        return
    verb, arguments = found
    if verb in ("VERB", "--help", "--version"):
        return
    assert verb in VERBS
    if (is_inline and not arguments) or "..." in arguments or "--help" in arguments:
        return
    parse_verb(verb, arguments)


OURS = [command for command in COMMANDS if PROGRAM.search(command.text)]


def test_commands_are_found() -> None:
    assert len([command for command in OURS if not command.is_inline]) > 50
    assert len([command for command in OURS if command.is_inline]) > 30


@pytest.mark.parametrize("command", OURS, ids=str)
def test_documented_command_is_taken_by_its_parser(command: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in words_of(command.text):
        check(words, is_inline=command.is_inline)


@pytest.mark.parametrize("verb", VERBS)
def test_example_of_a_verb_is_taken_by_its_parser(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example = re.sub(r"\\\n\s*", "", verb_module(verb).EXAMPLE)
    assert f"ssd-triton {verb}" in example
    for line in example.splitlines():
        for words in words_of(line.strip()):
            check(words, is_inline=False)


def test_a_wrong_command_is_noticed() -> None:
    for text in ("ssd-triton serve --no-such-option", "python tools/serve.py x", "ssd-triton train --set a.b=1"):
        with pytest.raises(SystemExit):
            check(words_of(text)[0], is_inline=False)
    with pytest.raises(AssertionError):
        check(["make", "tea"], is_inline=True)


def test_make_help_lists_what_there_is() -> None:
    listed = set(re.findall(r"^# make (\w+)", MAKEFILE, re.MULTILINE))
    # The others are steps of these.
    assert TARGETS - listed == {"help", "lint", "repository", "unit"}
    assert listed <= TARGETS
