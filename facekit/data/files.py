"""What readers share: listing folders, reading label files, and gathering rows into a Dataset."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.data.samples import Dataset, Skipped, known_split
from facekit.errors import DatasetError, ImageError
from facekit.images import encoded_size, read_image

_FACE_OF_PHOTO = re.compile(r"(.*\d)_\d{1,2}")

NO_POINTS = np.full((15, 2), np.nan, np.float32)
"""A face of which no point is labelled."""

FAR = 1e6
"""Pixels: coordinates beyond it are no place in a picture."""


def folders(folder: Path) -> list[Path]:
    """Give the folders directly below a folder, sorted, hidden ones left out."""
    with os.scandir(folder) as found:
        return sorted(Path(e.path) for e in found if e.is_dir() and not e.name.startswith("."))


def same_named(folder: Path, *names: str) -> Path | None:
    """Give the first of the names that exists in a folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_header(path: Path) -> tuple[str, ...]:
    """Give the column names of a CSV file, stripped and in lower case; none if it is no such file."""
    if not path.is_file() or path.suffix.lower() != ".csv":
        return ()
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    return header_names(line)


def header_names(line: bytes) -> tuple[str, ...]:
    """Split a CSV file's first line into column names, stripped and in lower case."""
    try:
        names = next(csv.reader([line.decode("utf-8-sig", "replace")]), [])
    except csv.Error:  # no CSV file but something with endless lines
        return ()
    return tuple(name.strip().lower() for name in names)


def read_rows(path: Path, needed: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file row by row.

    Parameters
    ----------
    path : Path
    needed : sequence of str
        Columns that must be there, in lower case.

    Yields
    ------
    row : int
        0-based data row.
    cells : dict of lower-case column name to stripped text
        Columns that the row is too short for are absent.

    Raises
    ------
    DatasetError
        The file is empty or lacks a column.
    """
    row = -1
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = csv.reader(file)
        try:
            header = [name.strip().lower() for name in next(lines, [])]
            require_columns(path, header, needed)
            for line in filter(None, lines):
                row += 1
                yield row, {name: cell.strip() for name, cell in zip(header, line, strict=False)}
        except csv.Error as error:
            raise DatasetError(f"{path}: line {lines.line_num} is not CSV: {error}") from error
    if row < 0:
        raise DatasetError(f"{path}: no rows below the header; is the file complete?")


def require_columns(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    """Raise DatasetError if a file's header is empty or lacks one of the needed columns."""
    if not any(header):
        raise DatasetError(f"{path}: the file is empty; expected a header with {', '.join(needed)}")
    missing = [name for name in needed if name not in header]
    if missing:
        raise DatasetError(
            f"{path}: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"the header has {', '.join(header[:12])}"
        )


def strings(values: Iterable[str | None]) -> NDArray[Any]:
    """Give an object array (N,) of texts and None."""
    return np.array(list(values), dtype=object).reshape(-1)


def person_of(stem: str) -> str | None:
    """Give the person in a name such as "Abdoulaye_Wade_0002": the words before the number, if any."""
    person, _, number = stem.rpartition("_")
    return person if number.isdigit() and any(letter.isalpha() for letter in person) else None


def photo_of(stem: str) -> str:
    """Give the photo that a face was cut from: "100032540" of "100032540_1"; else the name itself."""
    found = _FACE_OF_PHOTO.fullmatch(stem)
    return found[1] if found else stem


def split_of(name: str) -> str | None:
    """Give the split that a folder of a path such as "images/validation/happy/1.jpg" names, or None."""
    return next((split for folder in name.split("/")[:-1] if (split := known_split(folder))), None)


def load_file(root: Path, sources: NDArray[Any], place: int) -> NDArray[np.uint8]:
    """Read the picture of a sample from its file.

    Raises
    ------
    ImageError
    """
    return read_image(root / sources[place])


def sampled_sizes(root: Path, sources: NDArray[Any]) -> NDArray[np.int64]:
    """Give the sizes (n, 2) of a few pictures, evenly spread: width and height, pixels.

    Nothing is decoded; unreadable ones are left out, as loading them will say why.
    """
    sizes = []
    for source in sources[:: max(1, len(sources) // 64)]:
        with suppress(ImageError):
            sizes.append(encoded_size(root / source))
    return np.array(sizes, np.int64).reshape(-1, 2)


def is_far(values: Any) -> bool:
    """Tell whether one of some coordinates is infinite or beyond FAR; NaN, a missing one, is not."""
    return bool((np.abs(values) > FAR).any())


def _misplaced(points: NDArray[np.float32] | None, box: Any) -> str | None:
    if points is not None and is_far(points):
        return "a point lies infinitely or absurdly far away"
    if box is None or np.isnan(box).all():
        return None
    x0, y0, x1, y1 = (float(edge) for edge in box)
    if is_far(box) or not (x0 < x1 and y0 < y1):
        return f"the box is {x0:g}, {y0:g}, {x1:g}, {y1:g}; expected x0 < x1 and y0 < y1, pixels"
    return None


def _known(rows: Sequence[Any]) -> NDArray[np.float32] | None:
    column = np.array(rows, np.float32)
    return None if np.isnan(column).all() else column


@dataclass
class Collector:
    """Gathers rows one by one and gives them as a Dataset whose pictures are files below `root`."""

    root: Path

    def __post_init__(self) -> None:
        self._rows: list[tuple[int, str, str | None, str | None, str | None]] = []
        self._points: list[NDArray[np.float32]] = []
        self._boxes: list[Sequence[float] | NDArray[np.float32]] = []
        self._skipped: list[Skipped] = []

    def add(
        self,
        row: int,
        source: str,
        *,
        split: str | None = None,
        label: str | None = None,
        group: str | None = None,
        points: NDArray[np.float32] | None = None,
        box: Sequence[float] | NDArray[np.float32] | None = None,
    ) -> None:
        """Add a sample, or leave it out where its points or box cannot be those of a picture.

        A dataset's rows have all of label, points and box or none of them.
        """
        reason = _misplaced(points, box)
        if reason:
            self.skip(row, source, reason)
            return
        self._rows.append((row, source, split, label, group))
        if points is not None:
            self._points.append(points)
        if box is not None:
            self._boxes.append(box)

    def skip(self, row: int, source: str, reason: str) -> None:
        """Leave a row out."""
        self._skipped.append(Skipped(row, source, reason))

    def dataset(self, name: str, format: str, path: Path, *, whole_pictures: bool = False) -> Dataset:
        """Give what was gathered."""
        rows, sources, splits, labels, groups = zip(*self._rows, strict=True) if self._rows else ((),) * 5
        files = strings(sources)
        return Dataset(
            name=name,
            format=format,
            path=path,
            load=partial(load_file, self.root, files),
            rows=np.array(rows, np.int64),
            sources=files,
            splits=strings(splits),
            labels=None if all(label is None for label in labels) else strings(labels),
            points=_known(self._points),
            boxes=_known(self._boxes),
            groups=None if all(group is None for group in groups) else strings(groups),
            whole_pictures=whole_pictures,
            skipped=tuple(self._skipped),
            root=self.root,
        )
