"""Files that a command writes: whole or not at all, and never one of its inputs."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING

from facekit import writing
from facekit.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_STEM = 200
"""Bytes; systems take 255 with everything that is added."""


@contextmanager
def written(target: str) -> Iterator[IO[str]]:
    """Open a text file that takes its name when all of it is written; "-" is stdout."""
    path = Path(target).resolve()
    if target == "-":
        yield sys.stdout
    elif path.exists() and not path.is_file():  # a pipe or device cannot be replaced
        with path.open("w", encoding="utf-8") as stream:
            yield stream
    else:
        with writing.written(path) as stream:
            yield stream


def refuse_inputs(targets: Iterable[str | None], taken: set[str]) -> None:
    """Raise ConfigError if a file that is to be written has the key of an input, see `keys_of`."""
    for target in targets:
        if target not in (None, "-") and keys_of([target]) <= taken:
            raise ConfigError(f"{target}: this is an input; give the output another name")


class PictureFolder:
    """A folder in which every picture gets a name of its own.

    Parameters
    ----------
    folder : str
    taken : set of str
        Keys of files that must not be overwritten, see `keys_of`; those of the pictures are added, so that
        two of these may write to one folder.
    """

    def __init__(self, folder: str, taken: set[str]) -> None:
        self.folder, self._taken = Path(folder), taken
        self._counts: Counter[Path] = Counter()

    def save(self, place: PurePath, mark: str, image: NDArray[np.uint8]) -> None:
        """Write a picture (H, W, 3) uint8 RGB as JPEG, named for its place among the inputs and a mark."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=92, subsampling=0)
        writing.write_atomically(self._free(place, mark), stream.getvalue())

    def _free(self, place: PurePath, mark: str) -> Path:
        stem = os.fsdecode(os.fsencode(place.stem)[:LONGEST_STEM])
        plain = self.folder / place.parent / f"{stem}{mark}.jpg"
        while True:
            self._counts[plain] += 1
            count = self._counts[plain]
            path = plain if count == 1 else plain.with_name(f"{stem}{mark}-{count}.jpg")
            if (key := _key(path)) not in self._taken:
                self._taken.add(key)
                return path


def keys_of(paths: Iterable[str]) -> set[str]:
    """Give the keys by which a PictureFolder knows files."""
    return {_key(Path(path)) for path in paths}


def _key(path: Path) -> str:
    """Give what all names of one file share, also where upper and lower case are the same."""
    return os.path.realpath(path).casefold()  # a Path raises where links lead back to themselves
