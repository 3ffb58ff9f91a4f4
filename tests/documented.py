"""The commands and programs that the documentation shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd_triton.common.files import ROOT

PAGES = sorted(page for folder in ("", "docs", "weights") for page in (ROOT / folder).glob("*.md"))
PAGES += sorted((ROOT / "perf/results").rglob("*.md"))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")


@dataclass(frozen=True)
class Shown:
    """A piece of a page.

    Attributes:
        page: Where it is.
        text: A command as it is typed, on one line, or a program.
        is_inline: Whether it is inside a sentence, where a command may be no more than its name.
    """

    page: Path
    text: str
    is_inline: bool = False

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text}"


def shown_commands() -> Iterator[Shown]:
    """Every command of a console block, and every piece of code in a sentence."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in _BLOCK.findall(text):
            if language == "console":
                joined = re.sub(r"\\\n\s*", "", block)
                yield from (Shown(page, line[2:]) for line in joined.splitlines() if line.startswith("$ "))
        for code in _INLINE.findall(_BLOCK.sub("", text)):
            yield Shown(page, " ".join(code.split()), is_inline=True)


def shown_programs(language: str, page: Path) -> list[str]:
    """The blocks of a language in a page."""
    return [block for kind, block in _BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]
