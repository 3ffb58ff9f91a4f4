"""What `mkdocs build` adds to the pages: reports of ``perf/results``, and tables made from the code.

A line ``<!-- include: KIND ARGUMENTS -->`` in a page is replaced:

- ``table FILE [NUMBER]``: a table of a Markdown file below ``perf/results``, the first one by default;
- ``pivot FILE ROWS COLUMNS VALUES``: a table of a CSV file there, from the names of three of its columns;
- ``reports``: links to all those files;
- ``configuration SECTION``: the keys of a section of the configuration with unit, default and meaning, or of ``all``;
- ``readme HEADING``: a section of the README;
- ``commands``: every verb with its options.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ssd_triton.commands.reference import commands_reference
from ssd_triton.config.reference import section_reference

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "perf" / "results"
PUBLISHED = {".csv", ".md", ".png"}

_INCLUDE = re.compile(r"^<!-- include: (\w+) ?(.*?) -->$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^]]+)\]\(((?:\.\./)+)([^)]+)\)")
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Publish the reports and their plots as ``results/...``."""
    for path in sorted(RESULTS.rglob("*")):
        if path.suffix not in PUBLISHED:
            continue
        uri = f"results/{path.relative_to(RESULTS).as_posix()}"
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            title = "" if _TITLE.match(text) else f"# {_title(path)}\n\n"
            files.append(File.generated(config, uri, content=title + text))
        else:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    card = ROOT / "weights" / "MODEL_CARD.md"
    files.append(File.generated(config, "model-card.md", content=card.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated, and make links and pictures fit, which in the pages are those of the repository."""

    def included(found: re.Match[str]) -> str:
        kind, arguments = found.group(1), found.group(2).split()
        if kind not in INCLUDES:
            raise PluginError(f"{page.file.src_uri}: got '{kind}', expected one of {', '.join(INCLUDES)}")
        return INCLUDES[kind](*arguments)

    depth = page.file.src_uri.count("/")

    def linked(found: re.Match[str]) -> str:
        text, _, target = found.groups()
        if target.startswith("docs/"):
            return f"[{text}]({'../' * depth}{target.removeprefix('docs/')})"
        is_report = page.file.src_uri.startswith("results/")  # reports link to each other as they lie in the repository
        return found.group() if is_report else text

    return _LINK.sub(linked, _INCLUDE.sub(included, markdown).replace("](../perf/results/", "](results/"))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop the marks of reStructuredText that docstrings have and Markdown does not know."""
    return _ROLE.sub("<code>", html).replace("::</p>", ":</p>")


def table(file: str, number: str = "1") -> str:
    """A table of a report."""
    lines = (RESULTS / file).read_text(encoding="utf-8").splitlines()
    tables = ["\n".join(rows) for is_row, rows in groupby(lines, lambda line: line.startswith("|")) if is_row]
    return tables[int(number) - 1]


def pivot(file: str, rows: str, columns: str, values: str) -> str:
    """A table of a CSV file: a line for each value of one column, a column for each value of another."""
    with (RESULTS / file).open(encoding="utf-8", newline="") as lines:
        cells = {(line[rows], line[columns]): line[values] for line in csv.DictReader(lines)}
    names, heads = dict.fromkeys(row for row, _ in cells), dict.fromkeys(column for _, column in cells)
    table = [[f"{rows}, {columns}", *heads], ["---"] * (len(heads) + 1)]
    table += [[name, *(f"{float(cells[name, head]):,.0f}" for head in heads)] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def reports() -> str:
    """Links to all reports."""
    paths = sorted(RESULTS.rglob("*.md"))
    return "\n".join(f"- [{_title(path)}](results/{path.relative_to(RESULTS).as_posix()})" for path in paths)


def readme(*heading: str) -> str:
    """A section of the README, without its heading."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [section] = re.findall(rf"^## {' '.join(heading)}\n\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    return str(section).replace("](docs/", "](").rstrip()


def configuration(section: str) -> str:
    """Tables of the keys of a section, and of the sections in it; ``all`` for every section."""
    return section_reference("" if section == "all" else section)


INCLUDES: dict[str, Callable[..., str]] = {
    "table": table,
    "pivot": pivot,
    "reports": reports,
    "readme": readme,
    "configuration": configuration,
    "commands": commands_reference,
}


def _title(path: Path) -> str:
    heading = _TITLE.match(path.read_text(encoding="utf-8"))
    folder = path.parent.relative_to(RESULTS).as_posix().replace("_", " ")
    name = path.stem.replace("_", " ")
    return heading.group(1) if heading else f"{folder}: {name}".removeprefix(".: ")
