"""Class balance by copies: rows of scarce expressions come again, mirrored and shifted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.data.files import strings
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.mirror import mirror_boxes, mirror_image, mirror_points

SHIFT = (0.02, 0.06)
"""Copies are shifted by shares of the picture's sides between these: 1 to 3 of FER2013's 48 pixels."""


@dataclass(frozen=True)
class _Copy:
    """How a copy differs: shifted right and down by shares of the sides, after it was mirrored or not."""

    mirrored: bool
    right: float
    down: float

    def copy_from_image(self, height: int, width: int) -> NDArray[np.float64]:
        """Give the shift (2, 3), whole pixels, that follows mirroring."""
        return np.array([[1.0, 0.0, round(self.right * width)], [0.0, 1.0, round(self.down * height)]])

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if self.mirrored:
            planes = mirror_image(np.moveaxis(np.atleast_3d(image), -1, 0))
            image = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).reshape(image.shape)
        image_from_copy = geometry.invert(self.copy_from_image(height, width))
        return geometry.warp_picture(image, image_from_copy, max(height, width))[:height, :width]


def balanced(dataset: Dataset, seed: int = 0) -> Dataset:
    """Give a dataset in which every label has as many rows as the most frequent one.

    The added rows follow the dataset's own. Each is a copy of a row of its class, mirrored, shifted, or both;
    rows are copied equally often. A copy has its row's number and group, so that no later split parts them.
    Balance training rows only: figures on copies mean little.

    Parameters
    ----------
    dataset : Dataset with labels
        Where it has points or boxes, the pictures to be copied are read once, for their sizes.
    seed : int
        Equal seeds give equal copies.

    Raises
    ------
    DatasetError
        The dataset has no labels.
    """
    if dataset.labels is None:
        raise DatasetError(f"{dataset.path}: no expression labels to balance by")
    rng = np.random.default_rng(seed)
    places, copies = [], []
    counts = Counter(label for label in dataset.labels if label is not None)
    for name, count in sorted(counts.items()):
        rows = rng.permutation(np.flatnonzero(dataset.labels == name))
        for number in range(max(counts.values()) - count):
            shifted = number >= len(rows)  # the first copy of a row is its plain mirror image
            right, down = rng.uniform(*SHIFT, 2) * rng.choice((-1, 1), 2) * shifted
            places.append(rows[number % len(rows)])
            copies.append(_Copy(number // len(rows) % 2 == 0, right, down))
    return _with_copies(dataset, np.array(places, np.int64), copies)


def _with_copies(dataset: Dataset, places: NDArray[np.int64], copies: list[_Copy]) -> Dataset:
    own = len(dataset)
    extended = dataset.select(np.concatenate([np.arange(own), places]))
    load = extended.load

    def load_copy(place: int) -> NDArray[np.uint8]:
        image = load(place)
        return image if place < own else copies[place - own].picture(image)

    groups = extended.groups if extended.groups is not None else np.full(len(extended), None, object)
    points = None if extended.points is None else extended.points.copy()
    boxes = None if extended.boxes is None else extended.boxes.copy()
    if points is not None or boxes is not None:
        for place, copy in enumerate(copies, own):
            height, width = load(place).shape[:2]
            shift = copy.copy_from_image(height, width)
            if points is not None:
                moved = mirror_points(points[place], width) if copy.mirrored else points[place]
                points[place] = geometry.apply(shift, moved)
            if boxes is not None:
                moved = mirror_boxes(boxes[place], width) if copy.mirrored else boxes[place]
                boxes[place] = geometry.apply(shift, moved.reshape(2, 2)).reshape(4)
    return replace(
        extended,
        load=load_copy,
        groups=strings(
            f"picture {source}" if group is None else group
            for group, source in zip(groups, extended.sources, strict=True)
        ),
        points=points,
        boxes=boxes,
    )
