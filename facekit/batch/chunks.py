"""What a chunk is: a run of pictures in one place, small enough to write down, that any process can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from facekit.errors import DatasetError, ImageError
from facekit.images import SUFFIXES

Source = str | bytes | ImageError
"""A picture's path, URL or contents, or why there are none."""

Stamp = tuple[int, int]
"""A file's bytes and the time when it was last changed, nanoseconds."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of pictures.

    Attributes
    ----------
    kind : str
        files, list, csv, parquet, tar, zip, or broken: a container that ends where it should not.
    path : str
        The container: a folder, or "" for pictures that were named one by one; else a file.
    count : int
        Pictures.
    first : int
        Number of the first picture in the container, from 0.
    start : int
        Where a reader begins: byte (list, csv, tar) or row group (parquet).
    names : tuple of str
        The pictures below a folder; of a broken container, why it is.
    column : str
        Of a table.
    root : str
        Where relative paths in lists and tables begin.
    stamp : Stamp or None
        Of the container when the run was planned.
    """

    kind: str
    path: str
    count: int
    first: int = 0
    start: int = 0
    names: tuple[str, ...] = ()
    column: str = ""
    root: str = ""
    stamp: Stamp | None = None


def stamp_of(path: str) -> Stamp:
    """Give what tells a file from a changed one."""
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns


def check_unchanged(chunk: Chunk) -> None:
    """Raise DatasetError if a chunk's container is not what it was when the run was planned."""
    if chunk.stamp is not None and stamp_of(chunk.path) != tuple(chunk.stamp):
        raise DatasetError(
            f"{chunk.path}: changed since this run was planned, which finds pictures by their place in it; "
            "begin anew with another --out"
        )


def is_picture(name: str) -> bool:
    """Tell whether a file is named like a picture, and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def runs(starts: Iterable[int], size: int) -> Iterator[tuple[int, int, int]]:
    """Group the pictures of a container by their starts: number and start of a run's first, and how many."""
    waiting, first = iter(starts), 0
    while group := list(islice(waiting, size)):
        yield first, group[0], len(group)
        first += len(group)
