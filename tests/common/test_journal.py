"""Journals that survive kills, and refuse what does not belong to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssd_triton.common.journal import JournalError, open_journal, read_records

WRITER = """
import sys
from pathlib import Path
from ssd_triton.common.journal import open_journal

with open_journal(Path(sys.argv[1]), {"of": "numbers"}) as journal:
    number = sum(1 for _ in journal.records())
    print("open", flush=True)
    while number < int(sys.argv[2]):
        journal.append({"number": number, "text": "x" * (number % 300)})
        number += 1
"""


def test_three_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    def command(count: int) -> list[str]:
        return [sys.executable, "-c", WRITER, str(path), str(count)]

    for _ in range(3):
        writer = subprocess.Popen(command(10**9), stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with path.open("ab") as file:
            file.write(b'{"number": 1')
    count = sum(1 for _ in read_records(path)) + 1000
    subprocess.run(command(count), check=True, stdout=subprocess.DEVNULL)
    assert [record["number"] for record in read_records(path)] == list(range(count))


def test_a_long_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, {}) as journal:
        journal.append({"number": 1})
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    assert [record["number"] for record in read_records(path)] == [1]
    with open_journal(path, {}):
        assert path.read_bytes() == whole
    path.write_bytes(whole[:10])
    with open_journal(path, {}) as journal:
        assert list(journal.records()) == []


def test_other_results_are_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, {"model": {"name": "ssd"}, "limit": None}) as journal:
        journal.append({"number": 1})
        with pytest.raises(JournalError, match="another process is writing"):
            open_journal(path, {"model": {"name": "ssd"}, "limit": None})
    before = path.read_bytes()
    with pytest.raises(
        JournalError, match=r"model\.name was ssd, is other; limit was None, is 5\. --restart"
    ) as caught:
        open_journal(path, {"model": {"name": "other"}, "limit": 5})
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    with open_journal(path, {"limit": 5}, restart=True) as journal:
        assert list(journal.records()) == []


@pytest.mark.parametrize("content", ["something of the user's\n", '{"format": 0, "fingerprint": {}}\n', "[]\n"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(JournalError, match="no results that this version can resume"):
        open_journal(path, {})
    assert path.read_text(encoding="utf-8") == content


@pytest.mark.parametrize("line", ["{torn in the middle", "[1]"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, {}) as journal:
        journal.append({"number": 1})
    with path.open("a", encoding="utf-8") as file:
        file.write(f'{line}\n{{"number": 2}}\n')
    with open_journal(path, {}) as journal, pytest.raises(JournalError, match=r"journal\.jsonl:3 is damaged"):
        list(journal.records())
