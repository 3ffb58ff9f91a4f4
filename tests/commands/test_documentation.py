"""The documentation site: it builds strictly, loads nothing from elsewhere, and its diagrams fit their sources."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ssd_triton.common.files import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return folder


class Loaded(HTMLParser):
    """Addresses that a browser loads by itself, unlike those of links."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("img", "link", "script", "iframe", "source", "video"):
            self.addresses += [value for name, value in attrs if name in ("src", "href") and value]


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = Loaded()
    for page in pages:
        loaded.feed(page.read_text(encoding="utf-8"))
        # Material's script fetches Mermaid from a content delivery network when a page has a diagram for it.
        assert 'class="mermaid"' not in page.read_text(encoding="utf-8"), page
    assert loaded.addresses
    assert [address for address in loaded.addresses if re.match(r"(https?:)?//", address)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?https?:[^)]*|@import", styles) == []


def test_nothing_generated_is_left_out(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "<!-- include:" not in page.read_text(encoding="utf-8"), page


@pytest.mark.parametrize("source", sorted((ROOT / "docs/diagrams").glob("*.dot")), ids=lambda path: path.stem)
def test_diagram_is_that_of_its_source(source: Path) -> None:
    labels = re.findall(r'label="([^"]*)"', source.read_text(encoding="utf-8"))
    lines = {line.strip() for label in labels for line in label.split(r"\n")}
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", source.with_suffix(".svg").read_text(encoding="utf-8"))
    texts = {html.unescape(text).replace("\xa0", " ").strip() for text in drawn}
    assert {" ".join(line.split()) for line in lines} <= {" ".join(text.split()) for text in texts}, (
        "run: make diagrams"
    )
