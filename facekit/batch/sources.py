"""What SRC stands for: folders, globs, lists, tables and archives become chunks of pictures."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from facekit.batch.archives import read_tar, read_zip, tar_chunks, zip_chunks
from facekit.batch.chunks import Chunk, Source
from facekit.batch.tables import (
    csv_chunks,
    joined,
    list_chunks,
    parquet_chunks,
    read_csv,
    read_list,
    read_parquet,
)
from facekit.errors import ConfigError, ImageError
from facekit.images import names_below

LISTS, TABLES = (".txt", ".lst", ".list"), (".csv", ".tsv")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def find_chunks(
    sources: Sequence[str], size: int, most: int, column: str | None = None, root: str | None = None
) -> Iterator[Chunk]:
    """Cut what was given into chunks, always in the same order.

    Parameters
    ----------
    sources : sequence of str
        Folders, globs, lists (.txt, .lst, .list), tables (.csv, .tsv, .parquet), archives (.tar, .zip),
        pictures and URLs.
    size : int
        Pictures of a chunk: they go through the network together.
    most : int
        Pictures of a chunk where smaller ones would read the same again.
    column : str, optional
        Of tables; None: the first of tables.COLUMNS.
    root : str, optional
        Where relative paths in lists and tables begin; None: the folder in which the list lies.

    Raises
    ------
    ConfigError
        A source is not there, or stands for nothing.
    DatasetError
        A table cannot be read.
    """
    loose: list[str] = []
    for path in _expanded(sources):
        chunks = _container(path, size, most, column, root)
        if chunks is None:
            loose.append(path)
        if loose and (chunks is not None or len(loose) == size):
            yield Chunk("files", "", len(loose), names=tuple(loose))
            loose = []
        yield from chunks or ()
    if loose:
        yield Chunk("files", "", len(loose), names=tuple(loose))


def read_chunk(chunk: Chunk) -> Iterator[tuple[str, Source]]:
    """Give the name of each picture of a chunk, and the picture's path, URL or contents.

    Raises
    ------
    DatasetError
        The chunk's container was changed.
    """
    return READERS[chunk.kind](chunk)


def _expanded(sources: Sequence[str]) -> Iterator[str]:
    for given in sources:
        if "://" in given or Path(given).exists():
            yield given
        elif glob.has_magic(given):
            matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207  (Path takes no absolute patterns)
            if not matches:
                raise ConfigError(f"{given}: no file matches")
            yield from matches
        else:
            raise ConfigError(f"{given}: no such file or folder; check the path")


def _container(
    path: str, size: int, most: int, column: str | None, root: str | None
) -> Iterator[Chunk] | None:
    """Give the chunks of a container; None for a single picture."""
    lower = path.lower()
    below = os.path.dirname(path) if root is None else root  # noqa: PTH120
    if "://" in path:
        return None
    if Path(path).is_dir():
        return _folder_chunks(path, size)
    if lower.endswith(COMPRESSED):
        raise ConfigError(f"{path}: pictures are found by their place in an archive; unpack the compression")
    if lower.endswith(".tar"):
        return tar_chunks(path, size)
    if lower.endswith(".zip"):
        return zip_chunks(path, size)
    if lower.endswith(".parquet"):
        return parquet_chunks(path, size, most, column, below)
    if lower.endswith(TABLES):
        return csv_chunks(path, size, column, below)
    if lower.endswith(LISTS):
        return list_chunks(path, size, below)
    return None


def _folder_chunks(folder: str, size: int) -> Iterator[Chunk]:
    pictures, empty = names_below(folder), True
    while names := tuple(islice(pictures, size)):
        empty = False
        yield Chunk("files", folder, len(names), names=names)
    if empty:
        raise ConfigError(f"{folder}: no pictures in this folder; name archives and tables by a glob")


def _read_files(chunk: Chunk) -> Iterator[tuple[str, Source]]:
    for name in chunk.names:
        path = joined(chunk.path, name)
        yield path, path


def _read_broken(chunk: Chunk) -> Iterator[tuple[str, Source]]:
    yield chunk.path, ImageError(chunk.names[0])


READERS: Mapping[str, Callable[[Chunk], Iterator[tuple[str, Source]]]] = MappingProxyType(
    {
        "files": _read_files,
        "list": read_list,
        "csv": read_csv,
        "parquet": read_parquet,
        "tar": read_tar,
        "zip": read_zip,
        "broken": _read_broken,
    }
)
