"""Building blocks of all reports: tables, pages in Markdown and HTML, plots, and data files, in one style.

    report = ReportFolder(Path("reports/speed"))
    speeds = Table(["variant", "images/s"], [["`onnx_int8`", "18.2"]])
    report.picture("speed.png", lambda figure: figure.subplots().bar(["onnx_int8"], [18.2]))
    report.text("speed.md", markdown("On one machine.", speeds))
    report.text("speed.html", html_page("Speed", "On one machine.", Picture("speed.png", "Speed"), speeds))
    print(report.written)

Plots need matplotlib; without it they are left out, and a line in the log says so.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image as PilImage

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import atomic_output, relative_to_cwd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ssd_triton.common.arrays import UInt8Array

_log = logging.getLogger(__name__)
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Distinct for all kinds of colour vision: Okabe and Ito, "Color universal design", 2008."""
BLUE, ORANGE, GREEN, PURPLE, RED = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[5]
_WIDTH_INCH, _HEIGHT_INCH, _PANEL_WIDTH_INCH, _PANEL_HEIGHT_INCH = 8.0, 4.8, 4.8, 3.6
_DPI = 110
_JPEG_QUALITY = 88
_NUMBER = re.compile(r"[–+-]?[\d.,]*(%| ± \d+%)?")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1b2430; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } td.number { text-align: right; }
td, th { padding: .15rem .8rem; border-bottom: 1px solid #d7dde5; text-align: left; }
figure { margin: 1.5rem 0; } img { max-width: 100%; }
pre { overflow-x: auto; background: #f3f5f8; padding: 1rem; font-size: 12px; }
"""

Draw = Callable[["Figure"], object]
"""Draws into an empty figure; a figure that gets no axes is not written."""


class ReportError(UserError):
    """A report cannot be written."""


@dataclass(frozen=True)
class Table:
    """A table of texts, with an optional title above it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def markdown(self) -> str:
        """Return Markdown, with the title as a third-level heading."""
        lines = [_markdown_row(self.header), "|---" * len(self.header) + "|", *map(_markdown_row, self.rows)]
        return "\n".join([*([f"### {self.title}", ""] if self.title else []), *lines])

    def html(self) -> str:
        """Return HTML, with numbers aligned to the right."""
        title = f"<h3>{_inline_html(self.title)}</h3>" if self.title else ""
        head = "".join(f"<th>{_inline_html(name)}</th>" for name in self.header)
        body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.rows)
        return f"{title}<table><tr>{head}</tr>{body}</table>"


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    text: str
    level: int = 2

    def markdown(self) -> str:
        """Markdown."""
        return f"{'#' * self.level} {self.text}"

    def html(self) -> str:
        """HTML."""
        return f"<h{self.level}>{_inline_html(self.text)}</h{self.level}>"


@dataclass(frozen=True)
class Bullets:
    """A list of lines."""

    lines: Sequence[str]

    def markdown(self) -> str:
        """Markdown."""
        return "\n".join(f"- {line}" for line in self.lines)

    def html(self) -> str:
        """HTML."""
        items = "".join(f"<li>{_inline_html(line)}</li>" for line in self.lines)
        return f"<ul>{items}</ul>" if items else ""


@dataclass(frozen=True)
class Picture:
    """A picture by its path relative to the page, with a caption."""

    path: str
    caption: str

    def html(self) -> str:
        """Return HTML that loads the picture only when it is scrolled into view."""
        image = f"<img src='{escape(self.path)}' alt='' loading='lazy'>"
        return f"<figure>{image}<figcaption>{escape(self.caption)}</figcaption></figure>"


@dataclass(frozen=True)
class Json:
    """The facts behind a report's figures, shown as JSON."""

    value: object

    def html(self) -> str:
        """HTML."""
        return f"<pre>{escape(json.dumps(self.value, indent=1))}</pre>"


Block = str | Table | Heading | Bullets
"""A part of a page in Markdown or HTML; a text is a paragraph, with ```code``` and ``**bold**`` as in Markdown."""


def markdown(*blocks: Block) -> str:
    """Return a page in Markdown; empty texts and lists leave no gap."""
    texts = [block if isinstance(block, str) else block.markdown() for block in blocks]
    return "\n\n".join(filter(None, texts)) + "\n"


def html_page(title: str, *blocks: Block | Picture | Json) -> str:
    """Return an HTML page that needs no other file except its pictures; markup in texts is escaped."""
    body = [f"<p>{_inline_html(block)}</p>" if isinstance(block, str) else block.html() for block in blocks if block]
    head = f"<!doctype html>\n<html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
    return "\n".join([head, f"<style>{_STYLE}</style>", f"<h1>{escape(title)}</h1>", *body, "</html>", ""])


class ReportFolder:
    """Writes the files of a report, each whole or not at all.

    Attributes:
        folder: The folder; created with the first file.
        written: The files written so far.

    Raises:
        ReportError: By any method: a file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare; nothing is written yet."""
        self.folder = folder
        self.written: list[Path] = []
        self._has_warned = False

    def text(self, name: str, content: str) -> None:
        """Write a text unchanged."""
        with self._writing(name) as path:
            path.write_text(content, encoding="utf-8")

    def json(self, name: str, value: object, *, indent: int | None = 1) -> None:
        """Write JSON.

        Raises:
            ValueError: The value holds a NaN or an infinity, which JSON cannot express.
        """
        self.text(name, json.dumps(value, indent=indent, allow_nan=False) + "\n")

    def csv(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Write rows as CSV, with the keys as column names and numbers to six digits."""
        columns = dict.fromkeys(key for row in rows for key in row)
        with self._writing(name) as path, path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows({key: _csv_value(value) for key, value in row.items()} for row in rows)

    def photo(self, name: str, image_rgb: UInt8Array) -> None:
        """Write pixels, UINT8 [H, W, 3] RGB, as JPEG."""
        with self._writing(name) as path:
            PilImage.fromarray(image_rgb).save(path, quality=_JPEG_QUALITY)

    def picture(
        self, name: str, draw: Draw, *, rows: int = 1, columns: int = 1, height_inch: float | None = None
    ) -> bool:
        """Draw a picture with matplotlib, unless it is not installed or there is nothing to show.

        Args:
            name: File name; its suffix chooses the format.
            draw: Adds axes to the figure and draws into them.
            rows: Rows of axes, which set the height.
            columns: Columns of axes, which set the width.
            height_inch: Height of the whole picture; None derives it from ``rows``.

        Returns:
            Whether it was written.
        """
        if find_spec("matplotlib") is None:
            if not self._has_warned:
                _log.warning("no pictures: matplotlib is not installed; run 'pip install matplotlib'")
            self._has_warned = True
            return False
        import matplotlib as mpl
        from cycler import cycler
        from matplotlib.figure import Figure

        width_inch = max(_WIDTH_INCH, columns * _PANEL_WIDTH_INCH)
        height_inch = height_inch or max(_HEIGHT_INCH, rows * _PANEL_HEIGHT_INCH)
        style = {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.25,
            "axes.titlesize": 10,
            "legend.fontsize": 8,
        }
        with mpl.rc_context(style):
            # pyplot would open windows, share state and need closing.
            figure = Figure((width_inch, height_inch), layout="constrained")
            draw(figure)
            if not figure.axes:
                return False
            with self._writing(name) as path:
                figure.savefig(path, dpi=_DPI)
        return True

    def clear(self, pattern: str) -> None:
        """Remove the files of an earlier report that match a pattern."""
        for path in self.folder.glob(pattern):
            path.unlink()

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        path = self.folder / name
        try:
            with atomic_output(path) as temporary:
                yield temporary
        except OSError as error:
            raise ReportError(
                f"cannot write {relative_to_cwd(path)} ({error.strerror or error}): make room or choose another "
                "folder, and run the same command again"
            ) from error
        self.written.append(path)


def log2_axis(axes: Axes, values: Sequence[int]) -> None:
    """Mark powers of two, such as batch sizes, on a horizontal axis."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])


def _markdown_row(cells: Sequence[str]) -> str:
    """Return a table row whose texts cannot end a cell or the line."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _html_cell(cell: str) -> str:
    kind = " class='number'" if _NUMBER.fullmatch(cell) else ""
    return f"<td{kind}>{_inline_html(cell)}</td>"


def _inline_html(text: str) -> str:
    code = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", code)


def _csv_value(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
