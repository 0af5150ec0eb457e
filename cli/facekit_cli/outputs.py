"""Files that a command writes: whole or not at all, and never one of its inputs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_STEM = 120


@contextmanager
def written(target: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that takes its name when all of it is written; "-" is stdout."""
    if str(target) == "-":
        yield sys.stdout
        return
    path = Path(target).resolve()
    text: Any = {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    if path.exists() and not path.is_file():  # a pipe or device has no place to be replaced at
        with path.open(mode, **text) as stream:
            yield stream
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:LONGEST_STEM]}.")
    try:
        with os.fdopen(handle, mode, **text) as stream:
            yield stream
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class PictureFolder:
    """A folder in which every picture gets a name of its own.

    Parameters
    ----------
    folder : str
    inputs : iterable of str
        Files that must not be overwritten.
    """

    def __init__(self, folder: str, inputs: Iterable[str]) -> None:
        self.folder = Path(folder)
        self._taken = {_key(Path(path)) for path in inputs}
        self._counts: Counter[Path] = Counter()

    def save(self, place: PurePath, mark: str, image: NDArray[np.uint8]) -> None:
        """Write a picture (H, W, 3) uint8 RGB as JPEG, named for its place among the inputs and a mark."""
        from PIL import Image

        with written(self._free(place, mark), "wb") as stream:
            Image.fromarray(image).save(stream, "JPEG", quality=92, subsampling=0)

    def _free(self, place: PurePath, mark: str) -> Path:
        plain = self.folder / place.parent / f"{place.stem[:LONGEST_STEM]}{mark}.jpg"
        while True:
            self._counts[plain] += 1
            count = self._counts[plain]
            path = plain if count == 1 else plain.with_name(f"{plain.stem}-{count}.jpg")
            if (key := _key(path)) not in self._taken:
                self._taken.add(key)
                return path


def _key(path: Path) -> str:
    """Give what all names of one file share, also where upper and lower case are the same."""
    return str(path.resolve()).casefold()
