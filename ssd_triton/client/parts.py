"""Files of results of bulk detection, as JSON lines or Parquet: a record for each line of the list."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssd_triton.common.detections import Detections

PartFormat = Literal["jsonl", "parquet"]
_ROWS_AT_ONCE = 1000
"""Rows of a group in a Parquet file: no more are in memory at once."""


@dataclass(frozen=True)
class LineResult:
    """What became of a line of the list.

    Attributes:
        line: Its number in the list, from 1; no other result has it.
        file: The image, as the list names it.
        found: The detections, with class names, or why the image was refused.
    """

    line: int
    file: str
    found: Detections | str

    def to_json(self) -> dict[str, object]:
        """``line``, ``file``, and ``detections`` or ``error``."""
        record: dict[str, object] = {"line": self.line, "file": self.file}
        if isinstance(self.found, str):
            return record | {"error": self.found}
        return record | {"detections": self.found.to_json()}


PartWriter = Callable[[Path, Iterable[LineResult]], None]
"""Writes results to a new file as they come; few of them are in memory at once."""


def part_writer(kind: PartFormat) -> PartWriter:
    """Return the writer of a format.

    Raises:
        ModuleNotFoundError: The format is Parquet and PyArrow is not installed.
    """
    return _write_json_lines if kind == "jsonl" else _parquet_writer()


def _write_json_lines(path: Path, results: Iterable[LineResult]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(result.to_json())}\n" for result in results)


def _parquet_writer() -> PartWriter:
    """Rows have the keys of the JSON lines; ``detections`` is null where an image was refused."""
    import pyarrow
    from pyarrow import parquet

    detection = {
        "box_xyxy": pyarrow.list_(pyarrow.float32(), 4),
        "score": pyarrow.float32(),
        "class_id": pyarrow.int32(),
        "class_name": pyarrow.string(),
    }
    schema = pyarrow.schema(
        {
            "line": pyarrow.int64(),
            "file": pyarrow.string(),
            "detections": pyarrow.list_(pyarrow.struct(detection)),
            "error": pyarrow.string(),
        }
    )

    def write(path: Path, results: Iterable[LineResult]) -> None:
        with parquet.ParquetWriter(path, schema) as file:
            rows: list[dict[str, Any]] = []
            for result in results:
                rows.append({key: _utf8(value) for key, value in result.to_json().items()})
                if len(rows) == _ROWS_AT_ONCE:
                    file.write_table(pyarrow.Table.from_pylist(rows, schema))
                    rows = []
            if rows:
                file.write_table(pyarrow.Table.from_pylist(rows, schema))

    return write


def _utf8(value: object) -> object:
    """Return a value with what is not UTF-8 in a text escaped: Parquet has no other texts."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
