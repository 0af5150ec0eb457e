"""Files that get their name when all of them is written."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Give an empty file beside a path; when the block ends well it moves there, if it is still there.

    A file that is replaced hands on its mode; a new one has what the umask leaves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else None
    temporary = path.with_name(f".{path.name}.{token_hex(4)}{path.suffix}")
    temporary.touch(0o666 if mode is None else 0o600, exist_ok=False)
    try:
        yield temporary
        if temporary.exists():
            if mode is not None:
                temporary.chmod(mode)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written(path: Path) -> Iterator[IO[str]]:
    """Open a text file that appears at its place when the block ends well."""
    # File names that are no UTF-8 come through as they are.
    with (
        placed(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        yield stream


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file."""
    with placed(path) as temporary:
        temporary.write_bytes(data)
