"""Results as Parquet; the columns are the keys of the JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
from pyarrow import parquet

from ssd_triton.common.files import atomic_output

if TYPE_CHECKING:
    from ssd_triton.client.results import Result, Write

_ROWS_AT_ONCE = 1000
"""Rows in a row group of the file, and the most that are in memory at once."""
_DETECTION = {
    "box_xyxy": pyarrow.list_(pyarrow.float32()),
    "score": pyarrow.float32(),
    "class_id": pyarrow.int32(),
    "class_name": pyarrow.string(),
}
_SCHEMA = pyarrow.schema(
    {
        "file": pyarrow.string(),
        "line": pyarrow.int64(),
        "frame": pyarrow.int64(),
        "time_s": pyarrow.float64(),
        "annotated": pyarrow.string(),
        "detections": pyarrow.list_(pyarrow.struct(_DETECTION)),
        "error": pyarrow.string(),
    }
)


@contextmanager
def write_parquet(path: Path, *, durable: bool = False) -> Iterator[Write]:
    """Write a row for each result; unknown values are null, and so are the detections of a refused image.

    Args:
        path: The file; it appears when the block ends without an error.
        durable: Whether the file is on the disk when the block ends.
    """
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        if rows:
            file.write_table(pyarrow.Table.from_pylist(rows, _SCHEMA))
            rows.clear()

    def write(result: Result) -> None:
        rows.append({key: _utf8(value) for key, value in result.to_json().items()})
        if len(rows) == _ROWS_AT_ONCE:
            flush()

    with atomic_output(path, durable=durable) as temporary, parquet.ParquetWriter(temporary, _SCHEMA) as file:
        yield write
        flush()


def _utf8(value: object) -> object:
    """Return a value with the bytes of a text that are not UTF-8 escaped: Parquet stores only UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
