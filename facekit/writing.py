"""Files that get their name when all of them is written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def _placed(path: Path) -> Iterator[int]:
    """Open a file under a temporary name beside its place; when the block ends well, it moves there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        yield handle
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def written(path: Path) -> Iterator[IO[str]]:
    """Open a text file that appears at its place when the block ends well."""
    # File names that are no UTF-8 come through as they are.
    with (
        _placed(path) as handle,
        os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        yield stream


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file."""
    with _placed(path) as handle, os.fdopen(handle, "wb") as stream:
        stream.write(data)
