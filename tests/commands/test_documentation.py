"""The documentation: a short README that quotes the reports, and a site built strictly from this project alone."""

from __future__ import annotations

import csv
import html
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ssd_triton.common.files import ROOT
from tests.documented import shown_commands


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
        text = page.read_text(encoding="utf-8")
        assert "<!-- include:" not in text, page
        assert re.findall(r":\w+:<code>|::</p>", text) == [], page


def test_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]*))?\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 20
    for target, anchor in links:
        assert (ROOT / target).is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / target).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, anchor


def test_paths_in_the_documentation_exist() -> None:
    """Paths from the root of the clone; those of the architecture from that of the package, too."""
    folders = "|".join(path.name for base in (ROOT, ROOT / "ssd_triton") for path in base.iterdir() if path.is_dir())
    named = [
        (shown, path.rstrip("/"))
        for shown in shown_commands()
        if shown.is_inline and "results" not in shown.page.parts and shown.page.name != "CHANGELOG.md"
        for path in re.findall(rf"^(?:{folders})/[\w./-]+$", shown.text)
    ]
    assert len(named) > 80
    made = ("reports", "site", "weights/downloads", "ssd_triton/_data")
    missing = [
        str(shown)
        for shown, path in named
        if not ((ROOT / path).exists() or (ROOT / "ssd_triton" / path).exists() or path.startswith(made))
    ]
    assert missing == []


def _rows(report: str) -> list[dict[str, str]]:
    """The first table of a report."""
    lines = (ROOT / "perf/results" / report).read_text(encoding="utf-8").split("\n| ", 1)[1].split("\n\n")[0]
    head, _, *rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines.splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_figures_of_the_readme_are_those_of_the_reports() -> None:
    cars, no_brake, full_stack = (_rows(f"braking/{name}.md") for name in ("cars", "no_brake", "full_stack"))
    results = ROOT / "perf/results"
    with (results / "h200/benchmark.csv").open(encoding="utf-8", newline="") as lines:
        bare = {(row["variant"], row["batch"]): float(row["images_per_s"]) for row in csv.DictReader(lines)}
    gpu, cpu = (results / f"{name}/summary.md" for name in ("h200", "cpu"))
    soak = _rows("soak/soak.md")
    [at_best] = re.findall(
        r"\| `onnx_int8` \| best \|.* (\d+%) \| \d+% \|$", cpu.read_text(encoding="utf-8"), re.MULTILINE
    )
    [batches, singles] = (
        re.search(rf"one process \| `ssd` \| {load} \| grpc \| ([\d,]+) ", gpu.read_text(encoding="utf-8"))
        for load in (r"64 \| 8", r"1 \| 256")
    )
    assert batches is not None and singles is not None
    card = (ROOT / "weights/MODEL_CARD.md").read_text(encoding="utf-8")
    [reference] = re.findall(r"\| all classes \| (\S+) \|", card)
    [served] = re.findall(r"`onnx_int8` on a\s+CPU AP is (\S+)", card)
    false_brakes = sum(
        int(number) for row in no_brake for number in re.findall(r"\b\d+(?!\.?\d*°)\b", row["false brakes"])
    )
    false_warnings, false_warnings_seen = (
        sum(int(row["false WARN, drives (frames)"].split()[0]) for row in rows) for rows in (no_brake, full_stack)
    )
    verdicts = [row["verdict"] for row in full_stack if row["verdict"] != "reported"]
    total, wrong = (sum(int(row[name].replace(",", "")) for row in soak) for name in ("requests", "wrong"))
    figures = [
        f"{reference}; {served}",
        at_best,
        f"{bare['pytorch_fused_fp16', '64']:,.0f}; {batches[1]}; {singles[1]}",
        f"{total:,} requests, {wrong} wrong answers",
        f"{sum(int(row['contacts']) for row in cars)} contacts in {sum(int(row['runs']) for row in cars)} drives",
        f"{verdicts.count('passed')} of {len(verdicts)} pass, {false_warnings_seen} false "
        f"{'warning' if false_warnings_seen == 1 else 'warnings'} in "
        f"{sum(row['false brakes'] != '-' for row in full_stack)} drives",
        f"{false_brakes} false brakes, {false_warnings} false warnings in "
        f"{sum(int(row['runs']) for row in no_brake):,} drives",
    ]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [figure for figure in figures if f"| {figure} (" not in text] == []


@pytest.mark.parametrize("source", sorted((ROOT / "docs/diagrams").glob("*.dot")), ids=lambda path: path.stem)
def test_diagram_is_that_of_its_source(source: Path) -> None:
    labels = re.findall(r'label="([^"]*)"', source.read_text(encoding="utf-8"))
    lines = {line.strip() for label in labels for line in label.split(r"\n")}
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", source.with_suffix(".svg").read_text(encoding="utf-8"))
    texts = {html.unescape(text).replace("\xa0", " ").strip() for text in drawn}
    assert {" ".join(line.split()) for line in lines} <= {" ".join(text.split()) for text in texts}, (
        "run: make diagrams"
    )
