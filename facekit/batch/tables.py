"""Lists, and tables with a column of paths or of pictures: text, CSV and Parquet."""

from __future__ import annotations

import base64
import binascii
import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from facekit.batch.chunks import Chunk, Source, Stamp, check_unchanged, runs, stamp_of
from facekit.errors import ConfigError, DatasetError, ImageError

COLUMNS = (
    "path",
    "image",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image_path",
    "img_path",
    "url",
    "image_bytes",
    "bytes",
)
"""Columns that are taken where none is named, the first that is there."""

LONGEST_CELL = 1 << 29
"""Characters of a CSV cell; a picture in base64 may stand in it."""

BOM = "\ufeff"


def list_chunks(path: str, size: int, root: str) -> Iterator[Chunk]:
    """Cut a text file of one path or URL a line into chunks."""
    stamp = stamp_of(path)
    for first, start, count in runs((begin for begin, _ in _lines(path, 0)), size):
        yield Chunk("list", path, count, first, start, root=root, stamp=stamp)


def read_list(chunk: Chunk) -> Iterator[tuple[str, Source]]:
    """Give the paths of a chunk twice: as the pictures' names and as where they are."""
    check_unchanged(chunk)
    for (_, line), _place in zip(_lines(chunk.path, chunk.start), range(chunk.count), strict=False):
        name = joined(chunk.root, line)
        yield name, name


def csv_chunks(path: str, size: int, column: str | None, root: str) -> Iterator[Chunk]:
    """Cut a CSV or TSV file into chunks of so many rows."""
    stamp = stamp_of(path)
    chosen = _choose(path, _header(path), column)
    starts = (begin for begin, _ in _rows(path, 0))
    next(starts, None)  # the header
    for first, start, count in runs(starts, size):
        yield Chunk("csv", path, count, first, start, column=chosen, root=root, stamp=stamp)


def read_csv(chunk: Chunk) -> Iterator[tuple[str, Source]]:
    """Give name and source of a chunk's pictures; a column named "...bytes" or "...base64" holds base64."""
    check_unchanged(chunk)
    place = _header(chunk.path).index(chunk.column)
    encoded = chunk.column.lower().endswith(("bytes", "base64"))
    for (_, cells), row in zip(
        _rows(chunk.path, chunk.start), range(chunk.first, chunk.first + chunk.count), strict=False
    ):
        cell = cells[place].strip() if place < len(cells) else ""
        yield _cell(chunk, row, _from_base64(cell) if cell and encoded else cell)


def parquet_chunks(path: str, size: int, most: int, column: str | None, root: str) -> Iterator[Chunk]:
    """Cut a Parquet file into chunks of so many paths, or of up to `most` pictures of a row group.

    A row group is read as a whole, so that smaller chunks would read its pictures again and again.
    """
    stamp = stamp_of(path)
    arrow, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            chosen = _choose(path, file.schema_arrow.names, column)
            of_paths = arrow.types.is_string(file.schema_arrow.field(chosen).type)
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    except (arrow.ArrowException, OSError) as error:
        yield Chunk("broken", path, 1, names=(f"not a Parquet file: {error}",))
        return
    before = 0
    for group, rows in enumerate(sizes):
        for first, _, count in runs(range(rows), size if of_paths else most):
            yield Chunk("parquet", path, count, before + first, group, column=chosen, root=root, stamp=stamp)
        before += rows


def read_parquet(chunk: Chunk) -> Iterator[tuple[str, Source]]:
    """Give name and source of a chunk's pictures."""
    check_unchanged(chunk)
    arrow, _ = import_pyarrow()
    rows = range(chunk.first, chunk.first + chunk.count)
    try:
        before, cells = _row_group(chunk.path, chunk.stamp, chunk.start, chunk.column)
    except (arrow.ArrowException, OSError) as error:
        fault = ImageError(f"row group {chunk.start} is damaged: {error}; get the file anew")
        yield from (_cell(chunk, row, fault) for row in rows)
        return
    for row in rows:
        yield _cell(chunk, row, _value(cells[row - before]))


def joined(root: str, path: str) -> str:
    """Give a path of a list from where relative ones begin; URLs and absolute paths stay as they are."""
    return path if "://" in path else os.path.join(root, path)  # noqa: PTH118  (a Path would drop "./")


def _cell(chunk: Chunk, row: int, value: Any) -> tuple[str, Source]:
    name = os.path.join(chunk.path, str(row))  # noqa: PTH118
    if isinstance(value, dict):  # as the datasets library stores pictures
        data, path = value.get("bytes"), value.get("path")
        value = data or path
        name = os.path.join(chunk.path, path) if data and path else name  # noqa: PTH118
    if isinstance(value, str) and value:
        path = joined(chunk.root, value)
        return path, path
    if isinstance(value, (bytes, ImageError)) and value:
        return name, value
    expected = "expected a path or a picture"
    found = "nothing" if not value else f"a value of type {type(value).__name__}"
    return name, ImageError(f"column {chunk.column!r} holds {found}; {expected}")


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        return ImageError(f"not text: {error}")


def _from_base64(cell: str) -> Source:
    try:
        return base64.b64decode(cell, validate=True)
    except (binascii.Error, ValueError) as error:
        return ImageError(f"not base64: {error}")


def _choose(path: str, names: Sequence[str], column: str | None) -> str:
    if column is not None:
        if column not in names:
            raise ConfigError(f"{path}: no column {column!r}; it has {', '.join(names)}")
        return column
    lower = {name.strip().lower(): name for name in reversed(names)}
    chosen = next((lower[name] for name in COLUMNS if name in lower), None)
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen is None:
        raise ConfigError(f"{path}: which column holds the pictures? It has {', '.join(names)}; see --column")
    return chosen


def _lines(path: str, start: int) -> Iterator[tuple[int, str]]:
    """Give the lines of a text file that say something, and the byte at which each begins."""
    with Path(path).open("rb") as file:
        file.seek(start)
        for line in file:
            text = os.fsdecode(line).removeprefix(BOM).strip("\r\n")
            if text.strip():
                yield start, text
            start += len(line)


def _header(path: str) -> list[str]:
    header = next((row for _, row in _rows(path, 0)), None)
    if not header:
        raise DatasetError(f"{path}: the file is empty; expected a header and rows")
    return [header[0].removeprefix(BOM), *header[1:]]


def _rows(path: str, start: int) -> Iterator[tuple[int, list[str]]]:
    """Give the rows of a CSV file, and the byte at which each begins."""
    if csv.field_size_limit() < LONGEST_CELL:
        csv.field_size_limit(LONGEST_CELL)
    end = start

    def lines(file: Iterable[bytes]) -> Iterator[str]:
        nonlocal end
        for line in file:
            end += len(line)
            yield os.fsdecode(line)

    with Path(path).open("rb") as file:
        file.seek(start)
        rows = csv.reader(lines(file), delimiter="\t" if path.lower().endswith(".tsv") else ",")
        try:
            for row in rows:
                if row:
                    yield start, row
                start = end
        except csv.Error as error:
            raise DatasetError(f"{path}: not CSV at byte {start:,}: {error}") from error


@lru_cache(maxsize=1)
def _row_group(path: str, _stamp: Stamp | None, group: int, column: str) -> tuple[int, Any]:
    """Read a column of a row group; the next chunk is likely to be in the same one."""
    _, parquet = import_pyarrow()
    with parquet.ParquetFile(path) as file:
        before = sum(file.metadata.row_group(earlier).num_rows for earlier in range(group))
        return before, file.read_row_group(group, columns=[column]).column(0)


def import_pyarrow() -> tuple[Any, Any]:
    """Give pyarrow and its parquet; raise ConfigError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}; Parquet needs it: install facekit with its extra `ray`") from error
    return pyarrow, pyarrow.parquet
