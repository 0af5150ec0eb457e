"""CSV files that hold a picture in each row as numbers, parsed in bulk and cached as memory-mapped arrays."""

from __future__ import annotations

import gzip
import logging
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from facekit.data.cache import cache_folder, digest_of, publish, state_of
from facekit.data.files import header_names, require_columns
from facekit.data.samples import Skipped
from facekit.errors import DatasetError

SUFFIXES = (".csv", ".csv.xz", ".csv.gz", ".csv.zip", ".zip")

_BLOCK = 2 << 20
"""Bytes parsed at a time: a few arrays of this length stay in the processor's cache."""

_FORM = 1
"""Raised when the parser or the form of the stored arrays changes, so that older ones are not used."""

_BROKEN = (EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile)

_IN_PIXELS = np.zeros(256, np.bool_)
_IN_PIXELS[list(b'0123456789 \t\r"')] = True

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelTable:
    """The rows of a CSV file with pictures.

    Attributes
    ----------
    pixels : (N, P) uint8
        Pictures of the readable rows.
    rows : (N,) int64
        Their 0-based data rows.
    columns : mapping of lower-case name to (M,) str
        The other columns of all M data rows; "" where a row has not as many fields as the header.
    faults : mapping of data row to str
        Why each of the other M - N rows is no picture.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    columns: dict[str, NDArray[np.str_]]
    faults: dict[int, str]

    def __len__(self) -> int:
        return len(self.rows) + len(self.faults)


def table_header(path: Path) -> tuple[str, ...]:
    """Give the lower-case column names of a plain or compressed CSV file; none if it is no such file.

    Raises
    ------
    DatasetError
        The file is compressed and broken.
    """
    if not path.name.lower().endswith(SUFFIXES) or not path.is_file():
        return ()
    with _opened(path) as file:
        return header_names(file.readline(1 << 20))


def read_pixel_table(path: Path, pixel_column: str, pixels: int, needed: Sequence[str] = ()) -> PixelTable:
    """Read a CSV file with a picture in each row; a second time it comes from the cache.

    Parameters
    ----------
    path : Path
        A .csv file, plain or inside .xz, .gz or .zip.
    pixel_column : str
        Lower-case name of the column that holds a picture as numbers between spaces.
    pixels : int
        Numbers a picture.
    needed : sequence of str
        Other columns that must be there.

    Raises
    ------
    DatasetError
        The file lacks a column, has no rows, or cannot be unpacked.
    """
    before = state_of(path)
    stem = cache_folder() / "pixels" / f"{digest_of(path)}-{pixel_column}-{pixels}-{_FORM}"
    table = _stored(stem)
    if table is None:
        table = _parse(path, pixel_column, pixels)
        if len(table.rows) and state_of(path) == before:
            table = _store(stem, table)
    require_columns(path, [pixel_column, *table.columns], needed)
    return table


def load_picture(
    pixels: NDArray[np.uint8], side: int, places: NDArray[np.int64], place: int
) -> NDArray[np.uint8]:
    """Copy a picture (side, side) out of a table's pixels, of whose rows `places` are a dataset's samples."""
    return np.array(pixels[places[place]]).reshape(side, side)


def skipped_rows(path: Path, faults: Mapping[int, str]) -> tuple[Skipped, ...]:
    """List the rows of a file that are left out, in order."""
    return tuple(Skipped(row, f"{path.name}:{row}", faults[row]) for row in sorted(faults))


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    try:
        match path.suffix.lower():
            case ".xz":
                with lzma.open(path) as file:
                    yield file
            case ".gz":
                with gzip.open(path) as file:
                    yield file
            case ".zip":
                with zipfile.ZipFile(path) as archive:
                    tables = [info for info in archive.infolist() if info.filename.lower().endswith(".csv")]
                    if not tables:
                        raise DatasetError(f"{path}: the archive holds no .csv file")
                    with archive.open(max(tables, key=lambda info: info.file_size)) as member:
                        yield cast(BufferedIOBase, member)
            case _:
                with path.open("rb") as file:
                    yield file
    except _BROKEN as error:
        raise DatasetError(f"{path}: cannot be unpacked: {error}; is the file complete?") from error


def _blocks(file: BufferedIOBase) -> Iterator[bytes]:
    """Cut a file into blocks of whole lines; the last line gets its end where that is missing.

    Of a compressed file that breaks off, the whole lines come first and then the decompressor's error.
    """
    text = bytearray()
    try:
        while chunk := file.read1(_BLOCK):
            text += chunk
            if len(text) >= _BLOCK:
                end = text.rfind(b"\n") + 1
                yield bytes(text[:end])
                del text[:end]
    except _BROKEN:
        yield bytes(text[: text.rfind(b"\n") + 1])
        raise
    yield bytes(text) + b"\n"


@dataclass
class _Rows:
    """What a block of lines holds; see PixelTable. `faults` are the reasons of lines that are no pictures."""

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    texts: list[list[str]] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)


def _parse(path: Path, pixel_column: str, pixels: int) -> PixelTable:
    parts, count = [_Rows(np.empty((0, pixels), np.uint8), np.empty(0, np.int64))], 0
    faults: dict[int, str] = {}
    with _opened(path) as file:
        header = header_names(file.readline())
        require_columns(path, header, [pixel_column])
        place = header.index(pixel_column)
        try:
            for block in filter(None, _blocks(file)):
                part = _parse_block(block, len(header), place, pixels)
                parts.append(part)
                part.rows += count
                faults |= {row + count: reason for row, reason in part.faults.items()}
                count += len(part.rows) + len(part.faults)
        except _BROKEN as error:
            faults[count] = f"the file breaks off here: {error}"
    if not count:
        raise DatasetError(f"{path}: no rows below the header; is the file complete?")
    others = [name for name in header if name != pixel_column]
    return PixelTable(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.rows for part in parts]),
        {
            name: np.array([text for part in parts[1:] for text in part.texts[column]], np.str_)
            for column, name in enumerate(others)
        },
        faults,
    )


def _parse_block(block: bytes, fields: int, pixel_field: int, pixels: int) -> _Rows:
    """Parse whole lines; rows are counted from the block's first line, blank lines left out."""
    data = np.frombuffer(block, np.uint8)
    starts, stops = _lines(data)
    commas = np.flatnonzero(data == ord(","))
    first = np.searchsorted(commas, starts)
    found = np.searchsorted(commas, stops) - first + 1
    whole = np.flatnonzero(found == fields)
    edges = np.empty((len(whole), fields + 1), np.int64)
    edges[:, 0], edges[:, -1] = starts[whole] - 1, stops[whole]
    edges[:, 1:-1] = commas[first[whole, None] + np.arange(fields - 1)]
    texts = [[""] * len(starts) for _ in range(fields)]
    for row, bounds in zip(whole.tolist(), edges.tolist(), strict=True):
        for column, text in enumerate(texts):
            if column != pixel_field:
                content = block[bounds[column] + 1 : bounds[column + 1]]
                text[row] = content.decode("utf-8", "replace").strip(' \t\r"')
    del texts[pixel_field]

    left, right = edges[:, pixel_field] + 1, edges[:, pixel_field + 1]
    numbers, places = _numbers(data)
    begin, end = np.searchsorted(places, left), np.searchsorted(places, right)
    strange = np.flatnonzero(~_IN_PIXELS[data])
    good = (np.searchsorted(strange, left) == np.searchsorted(strange, right)) & (end - begin == pixels)
    pictures = np.empty((len(whole), pixels), np.uint8)
    for place in np.flatnonzero(good):
        values = numbers[begin[place] : end[place]]
        good[place] = values.max() <= 255
        pictures[place] = values
    odd = np.flatnonzero(found != fields)
    faults = {int(row): f"expected {fields} fields, got {found[row]}" for row in odd}
    for place in np.flatnonzero(~good):
        cell = block[left[place] : right[place]].decode("utf-8", "replace")
        faults[int(whole[place])] = _why_not(cell, pixels)
    return _Rows(pictures[good], whole[good], texts, dict(sorted(faults.items())))


def _lines(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give where the lines of a text that are not blank start and stop."""
    stops = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate([[0], stops[:-1] + 1])
    filled = (stops - starts > 1) | ((stops > starts) & (data[starts] != ord("\r")))
    return starts[filled], stops[filled]


def _numbers(data: NDArray[np.uint8]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Read every run of digits: its value, 999 if it has more than three, and the place of its last digit."""
    digits = np.full(len(data) + 3, 255, np.uint8)
    np.subtract(data, np.uint8(ord("0")), out=digits[3:])
    inside = digits < 10
    digits[~inside] = 0
    places = np.flatnonzero(inside[3:-1] & ~inside[4:])
    ones, tens, hundreds, more = (places + step for step in (3, 2, 1, 0))
    numbers = digits[ones].astype(np.uint16)
    numbers += np.uint16(10) * digits[tens]
    # the digit two places back belongs to this run only if there is one between
    numbers += np.uint16(100) * (digits[hundreds] * inside[tens])
    numbers[inside[tens] & inside[hundreds] & inside[more]] = 999
    return numbers, places


def _why_not(text: str, pixels: int) -> str:
    words = text.replace('"', " ").split()
    if len(words) != pixels:
        return f"expected {pixels} pixels, got {len(words)}"
    for place, word in enumerate(words):
        if not (word.isascii() and word.isdigit() and len(word) <= 3 and int(word) <= 255):
            return f"pixel {place} is {word[:20]!r}; expected a whole number from 0 to 255"
    return "the pixels are not numbers between spaces"


def _store(stem: Path, table: PixelTable) -> PixelTable:
    """Put a table into the cache and give it memory-mapped, or as it is where the cache cannot be written."""
    arrays: dict[str, Any] = {f"column:{name}": column for name, column in table.columns.items()}
    arrays |= {"rows": table.rows, "faulty": np.array([*table.faults], np.int64)}
    arrays["reasons"] = np.array([*table.faults.values()], np.str_)
    publish(stem.with_suffix(".npy"), lambda file: np.save(file, table.pixels))
    publish(stem.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
    return _stored(stem) or table


def _stored(stem: Path) -> PixelTable | None:
    """Give a table from the cache, or None where it is not there or not whole."""
    pixels_file, rows_file = stem.with_suffix(".npy"), stem.with_suffix(".npz")
    if not (pixels_file.is_file() and rows_file.is_file()):
        return None
    try:
        pixels = np.load(pixels_file, mmap_mode="r", allow_pickle=False)
        with rows_file.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        faults = dict(zip(arrays["faulty"].tolist(), arrays["reasons"].tolist(), strict=True))
        rows = arrays["rows"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        _log.warning("%s: broken, so the CSV file is parsed again: %s", pixels_file, error)
        return None
    columns = {name.partition(":")[2]: column for name, column in arrays.items() if ":" in name}
    return PixelTable(pixels, rows, columns, faults)
