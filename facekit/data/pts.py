"""Folders of pictures with iBUG .pts files of 68 points: 300-W, Helen, AFW, LFPW.

References
----------
.. [1] C. Sagonas et al., "300 faces in-the-wild challenge", 2013; the annotations are for research.
"""

from __future__ import annotations

import re
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.data.files import Collector, photo_of, split_of
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.images import SUFFIXES as PICTURES
from facekit.images import names_below
from facekit.schema import KEYPOINTS_FROM_IBUG68

LAYOUT = """\
helen/100032540_1.jpg
helen/100032540_1.pts      version: 1 / n_points: 68 / { / 150.92 142.06 / ... / }"""

_SUFFIXES = (*PICTURES, ".pts")
_HEADER = re.compile(r"version:\s*\d+\s+n_points:\s*(\d+)\s*\{([^{}]*)\}\s*")


def matches(path: Path) -> bool:
    """Say whether a folder holds .pts files, at any depth, among the first thousand files that count."""
    return path.is_dir() and any(name.endswith(".pts") for name in islice(names_below(path, _SUFFIXES), 1000))


def read(path: Path) -> Dataset:
    """Read a folder; a picture and its points share their name up to the suffix.

    Faces cut from one photo (``100032540_1``, ``100032540_2``) are one group.

    Raises
    ------
    DatasetError
        The path is not a folder.
    """
    if not path.is_dir():
        raise DatasetError(f"{path}: expected a folder of pictures and .pts files")
    found = Collector(path)
    in_order = sorted(names_below(path, _SUFFIXES), key=lambda name: _stem(name).split("/"))
    for row, (stem, same) in enumerate(groupby(in_order, key=_stem)):
        names = list(same)
        pictures = [name for name in names if not name.endswith(".pts")]
        if len(names) != 2 or len(pictures) != 1:
            found.skip(row, names[0], _unpaired(pictures))
            continue
        points = read_points(path / f"{stem}.pts")
        if isinstance(points, str):
            found.skip(row, f"{stem}.pts", points)
            continue
        found.add(row, pictures[0], split=split_of(stem), points=points, group=photo_of(stem))
    return found.dataset(path.resolve().name, "pts", path, whole_pictures=True)


def points_from_ibug68(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Give the 15 points of schema.KEYPOINTS (..., 15, 2) of 68 points (..., 68, 2)."""
    parts = [points[..., list(part), :].mean(-2) for part in KEYPOINTS_FROM_IBUG68]
    return np.stack(parts, -2).astype(np.float32)


def read_points(path: Path) -> NDArray[np.float32] | str:
    """Read a .pts file of 68 points, whose first pixel is (1, 1).

    Returns
    -------
    (15, 2) float32, image pixels, the first pixel's centre at (0, 0); or the reason why the file is not one
    """
    parts = _HEADER.fullmatch(path.read_text(encoding="utf-8", errors="replace").strip() + "\n")
    if parts is None:
        return 'not a .pts file: expected "version: 1", "n_points: 68" and the points between braces'
    try:
        numbers = np.array(parts[2].split(), np.float64)
    except ValueError as error:
        return f"a coordinate is not a number: {error}"
    if int(parts[1]) != 68 or numbers.size != 2 * 68:
        return f"expected 68 points, got {numbers.size / 2:g} under the header n_points: {parts[1]}"
    if not np.isfinite(numbers).all():
        return "a coordinate is infinite or not a number"
    return points_from_ibug68(numbers.reshape(68, 2) - 1)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _unpaired(pictures: list[str]) -> str:
    if len(pictures) > 1:
        return f"several pictures of one name: {', '.join(pictures)}"
    return "no .pts file of this name" if pictures else "no picture of this name"
