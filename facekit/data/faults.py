"""What is wrong with a dataset itself, whatever a model thinks: doubles, overlaps, blanks and the like."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.data.holdout import content_hash
from facekit.data.reading import Read
from facekit.data.samples import SPLITS, Dataset
from facekit.errors import ImageError
from facekit.schema import EXPRESSIONS, FERPLUS, KEYPOINTS, MEAN_FACE, MIRROR_PERMUTATION

BLANK_RANGE = 8
"""A picture whose brightest and darkest values lie no further apart is blank; FER2013 has 13 such pictures in
32,298, and the next ones span 48 and more."""

SWAP_GAIN = 0.9
"""Sides are swapped where swapping them back brings the points' distance to the mean face below this share.
Among the 7,803 faces of Helen, AFW, YouTube Faces and MTFL no swap gets below 1.3, and undoing a planted one
always gets below .78."""

SCARCE = 0.2
"""A class with fewer rows than this share of the largest class is scarce."""

_SIDED_PARTS = ("_eye_", "_eyebrow_", "mouth_")


class FaultFinder:
    """Gathers a dataset's faults while its pictures pass by once, in any order; it keeps 8 bytes a picture.

    Parameters
    ----------
    dataset : Dataset
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._hashes = np.zeros(len(dataset), np.uint64)
        self._seen = np.zeros(len(dataset), np.bool_)
        self._blank, self._unreadable, self._outside = (np.zeros(len(dataset), np.bool_) for _ in range(3))

    def see(self, place: int, image: Read) -> None:
        """Take in the picture (H, W) or (H, W, 3) of a sample, or that it cannot be read."""
        if isinstance(image, ImageError):
            self._unreadable[place] = True
            return
        self._seen[place] = True
        self._hashes[place] = int.from_bytes(content_hash(image))
        if self.dataset.boxes is not None:  # two faces of one picture are no doubles
            self._hashes[place] ^= np.uint64(zlib.crc32(self.dataset.boxes[place].tobytes()))
        self._blank[place] = int(image.max()) - int(image.min()) <= BLANK_RANGE
        if self.dataset.points is not None:
            points = self.dataset.points[place]
            known = points[np.isfinite(points).all(1)]
            self._outside[place] = len(known) and _reaches_out(geometry.box_around(known), image)

    def faults(self) -> dict[str, dict[str, Any]]:
        """Give every kind of fault with how many rows have it and which, ready for JSON.

        Returns
        -------
        dict
            Kind to ``{"n": int, "rows": [int, ...], ...}``:

            - ``left_out``: rows that the reader could not use; ``unreadable``: pictures that cannot be read
            - ``duplicates``: rows of exactly equal pictures, group after group; ``copies`` are those beyond
              the first, which ``n`` and ``surplus`` count, ``groups`` and ``conflicting_groups`` the groups
            - ``conflicting_duplicates``: the rows of those groups whose labels differ
            - ``split_overlap``: rows whose picture is also in an earlier split (train, validation, test);
              ``group_overlap``: the same for the person or photo
            - ``blank``: pictures of one tone; ``unknown_labels``: with a count of each label in ``labels``
            - ``points_outside``: faces with points outside the picture
            - ``swapped_sides``: faces with left and right exchanged, wholly or in part
            - ``class_imbalance``: ``n`` scarce classes, their rows, and every class's count in ``labels``
        """
        rows = self.dataset.rows
        found = {
            "left_out": _fault(fault.row for fault in self.dataset.skipped),
            "unreadable": _fault(rows[self._unreadable]),
            **self._duplicates(),
            "split_overlap": _fault(rows[self._overlapping(self._hashes, self._seen)]),
            "group_overlap": _fault(rows[self._overlapping(*self._group_numbers())]),
            "blank": _fault(rows[self._blank]),
        }
        if self.dataset.labels is not None:
            labels = self.dataset.labels.tolist()
            found |= {"unknown_labels": self._unknown(labels), "class_imbalance": self._imbalance(labels)}
        if self.dataset.points is not None:
            found["points_outside"] = _fault(rows[self._outside])
            found["swapped_sides"] = _fault(rows[swapped_sides(self.dataset.points)])
        return found

    def _duplicates(self) -> dict[str, dict[str, Any]]:
        places = np.flatnonzero(self._seen)
        places = places[np.argsort(self._hashes[places], kind="stable")]
        starts = np.flatnonzero(np.diff(self._hashes[places])) + 1
        groups = [group for group in np.split(places, starts) if len(group) > 1]
        groups.sort(key=lambda group: int(group[0]))
        conflicting = [group for group in groups if self._conflicting(group)]
        copies = self._rows_of(group[1:] for group in groups)
        return {
            "duplicates": {
                **_fault(self._rows_of(groups), len(copies)),
                "copies": copies,
                "surplus": len(copies),
                "groups": len(groups),
                "conflicting_groups": len(conflicting),
            },
            "conflicting_duplicates": _fault(self._rows_of(conflicting)),
        }

    def _rows_of(self, groups: Iterable[NDArray[np.int64]]) -> list[int]:
        return [int(self.dataset.rows[place]) for group in groups for place in group]

    def _conflicting(self, group: NDArray[np.int64]) -> bool:
        labels = () if self.dataset.labels is None else self.dataset.labels[group]
        return len({label for label in labels if label is not None}) > 1

    def _group_numbers(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        groups = self.dataset.groups
        if groups is None:
            return np.zeros(len(self.dataset), np.int64), np.zeros(len(self.dataset), np.bool_)
        known = np.array([group is not None for group in groups], np.bool_)
        return np.unique(groups.astype(str), return_inverse=True)[1], known

    def _overlapping(self, keys: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which rows (N,) have a key that also stands in an earlier split."""
        overlapping, earlier = np.zeros(len(keys), np.bool_), keys[:0]
        for split in SPLITS:
            here = known & (self.dataset.splits == split)
            overlapping |= here & np.isin(keys, earlier)
            earlier = np.concatenate([earlier, keys[here]])
        return overlapping

    def _unknown(self, labels: list[str | None]) -> dict[str, Any]:
        unknown = [label is not None and label not in {*EXPRESSIONS, *FERPLUS} for label in labels]
        counts = Counter(label for label, is_unknown in zip(labels, unknown, strict=True) if is_unknown)
        return {**_fault(self.dataset.rows[unknown]), "labels": dict(counts.most_common())}

    def _imbalance(self, labels: list[str | None]) -> dict[str, Any]:
        counts = Counter(label for label in labels if label in EXPRESSIONS)
        scarce = {label for label, n in counts.items() if n < SCARCE * max(counts.values())}
        rows = self.dataset.rows[[label in scarce for label in labels]]
        return {**_fault(rows, len(scarce)), "labels": dict(counts.most_common())}


def swapped_sides(points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which faces have left and right exchanged: in all points, or in those of eyes, brows or mouth.

    The mean face is fitted to the points without reflection, and again after swapping any of the parts back.

    Parameters
    ----------
    points : (N, 15, 2) float32, NaN where missing

    Returns
    -------
    (N,) bool
    """
    known = np.isfinite(points[..., 0] + points[..., 1])
    known &= known[:, list(MIRROR_PERMUTATION)]
    swapped = np.zeros(len(points), np.bool_)
    for present in np.unique(known, axis=0):
        faces = np.flatnonzero((known == present).all(1))
        if present.any():
            distance = _distances(points[faces], present)
            for permutation in _PART_SWAPS:
                undone = _distances(points[faces][:, permutation], present)
                swapped[faces] |= undone < SWAP_GAIN * distance
    return swapped


def _swaps() -> Iterator[list[int]]:
    """Give the permutation that swaps the sides of each choice of eyes, brows and mouth."""
    for size in range(1, len(_SIDED_PARTS) + 1):
        for parts in combinations(_SIDED_PARTS, size):
            yield [
                MIRROR_PERMUTATION[k] if any(part in name for part in parts) else k
                for k, name in enumerate(KEYPOINTS)
            ]


_PART_SWAPS = tuple(_swaps())


def _distances(points: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give the root mean square distance (n,) of points to the mean face, by their spread, at least 1%."""
    mean_face = np.broadcast_to(np.array(MEAN_FACE)[present], (len(points), int(present.sum()), 2))
    image_from_face = geometry.similarity(mean_face, points[:, present])
    astray = geometry.apply(image_from_face, mean_face) - points[:, present]
    spread = points[:, present].std(1).max(-1)
    distance = np.sqrt((astray**2).sum(-1).mean(-1)) / np.maximum(spread, 1e-9)
    return np.asarray(np.maximum(distance, 0.01))


def _reaches_out(box: NDArray[np.float32], image: NDArray[np.uint8]) -> bool:
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    return bool(min(x0, y0) < 0 or x1 > width or y1 > height)


def _fault(rows: Iterable[Any], n: int | None = None) -> dict[str, Any]:
    listed = [int(row) for row in rows]
    return {"n": len(listed) if n is None else n, "rows": listed}
