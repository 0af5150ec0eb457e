"""What a labelled dataset is: pictures that load one by one, with their labels beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.errors import DatasetError

SPLITS = ("train", "validation", "test")

_NATIVE_SPLITS = {
    "training": "train",
    "train": "train",
    "trainset": "train",
    "publictest": "validation",
    "public_test": "validation",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "privatetest": "test",
    "private_test": "test",
    "test": "test",
    "testset": "test",
    "testing": "test",
}


def known_split(name: str) -> str | None:
    """Bring a split's name, such as "PublicTest" or "val", to train, validation or test; None if unknown."""
    return _NATIVE_SPLITS.get(name.strip().lower())


def canonical_split(name: str) -> str:
    """Bring a split's name, such as "PublicTest" or "val", to train, validation or test.

    Raises
    ------
    DatasetError
        The name is not one of them.
    """
    split = known_split(name)
    if split is None:
        raise DatasetError(f"unknown split {name!r}: expected one of {', '.join(SPLITS)} or a native name")
    return split


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that was left out, and why.

    Attributes
    ----------
    row : int
        0-based data row, or place in sorted path order.
    source : str
        The file, relative to the dataset, or the file and row.
    reason : str
        One line.
    """

    row: int
    source: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures as columns of equal length N; a picture is read when it is asked for.

    Attributes
    ----------
    name : str
        Short name, as shown in reports.
    format : str
        One of the formats of catalog.FORMATS.
    path : Path
        The folder or main file it was read from.
    load : callable
        ``load(k)`` reads the k-th picture: (H, W) or (H, W, 3) uint8, RGB. Raises ImageError.
    rows : (N,) int64
        0-based data row in the file, or place in sorted path order.
    sources : (N,) object of str
        File relative to `root`, or file and row.
    splits : (N,) object of str or None
        "train", "validation", "test", or None where the dataset has no splits.
    labels : (N,) object of str or None, or None
        Expression in facekit's names where the label means one of them, else as written in lower case; None:
        no label.
    points : (N, 15, 2) float32 or None
        Image pixels, centres at integers, in the order of schema.KEYPOINTS; NaN where a point is missing.
    boxes : (N, 4) float32 or None
        Labelled face boxes, image edges x0, y0, x1, y1.
    groups : (N,) object of str or None
        Person or photo: rows of one group never part in a split.
    votes : (N, 10) uint8 or None
        FER+ votes: the eight classes of schema.FERPLUS, unknown, not a face.
    whole_pictures : bool
        The face has to be found in the picture first; False: the picture is the face.
    fer2013_frame : bool
        The pixels are FER2013's own 48x48 and go to stage 2 as they are.
    skipped : tuple of Skipped
        Rows left out while reading the labels.
    root : Path or None
        The folder that holds the pictures' files, or the file that holds all pictures; None: neither.
    """

    name: str
    format: str
    path: Path
    load: Callable[[int], NDArray[np.uint8]]
    rows: NDArray[np.int64]
    sources: NDArray[Any]
    splits: NDArray[Any]
    labels: NDArray[Any] | None = None
    points: NDArray[np.float32] | None = None
    boxes: NDArray[np.float32] | None = None
    groups: NDArray[Any] | None = None
    votes: NDArray[np.uint8] | None = None
    whole_pictures: bool = False
    fer2013_frame: bool = False
    skipped: tuple[Skipped, ...] = field(default=())
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, which: NDArray[Any]) -> Dataset:
        """Give the rows that a mask (N,) of bool or an array of places names, in that order."""
        places = np.flatnonzero(which) if which.dtype == np.bool_ else np.asarray(which, np.int64)
        load = self.load

        def taken(column: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if column is None else column[places]

        return replace(
            self,
            load=lambda k: load(int(places[k])),
            rows=self.rows[places],
            sources=self.sources[places],
            splits=self.splits[places],
            labels=taken(self.labels),
            points=taken(self.points),
            boxes=taken(self.boxes),
            groups=taken(self.groups),
            votes=taken(self.votes),
        )

    def split(self, name: str) -> Dataset:
        """Give the rows of one split, by its canonical or native name.

        Raises
        ------
        DatasetError
            The name is unknown, or the dataset has no row of that split.
        """
        wanted = canonical_split(name)
        part = self.select(self.splits == wanted)
        if not len(part):
            present = sorted({split for split in self.splits if split is not None})
            held = ", ".join(present) or "no splits; leave --split out"
            raise DatasetError(f"{self.path}: no rows of split {name!r}; it holds {held}")
        return part
