"""The user's cache folder: what can be made again, kept by the content that it was made from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from facekit.writing import placed

_SETTLED = 2_000_000_000
"""Nanoseconds after which a file's times tell that it changed; the coarsest file systems count in 2 s."""

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Give the folder that the environment variable FACEKIT_CACHE names, or ~/.cache/facekit."""
    return Path(os.environ.get("FACEKIT_CACHE") or Path.home() / ".cache" / "facekit")


def state_of(path: Path) -> list[int]:
    """Give what changes when a file is written: size, times in nanoseconds, and inode."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def digest_of(path: Path) -> str:
    """Give the sha256 of a file's bytes; it is read again only if the file's state is not the one noted.

    Of a file written within the last two seconds nothing is noted: it could change again in the same tick.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    note = cache_folder() / "digests" / f"{name[:32]}.json"
    state = state_of(path)
    with suppress(OSError, ValueError, LookupError, TypeError):  # there is none, or not a whole one
        known = json.loads(note.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if state_of(path) == state and time.time_ns() - max(state[1], state[2]) > _SETTLED:
        text = json.dumps({"path": str(path), "state": state, "sha256": digest})
        publish(note, lambda file: file.write(text.encode()))
    return digest


def publish(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file of the cache whole or not at all; where that is impossible, log it and go on without."""
    try:
        with placed(path) as temporary, temporary.open("wb") as file:
            write(file)
    except OSError as error:
        _log.warning("%s: cannot be written, so the work is done again next time: %s", path, error)
