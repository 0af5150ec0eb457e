"""The face box that labelled points imply: what stage 1 is trained on and evaluated with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.schema import MEAN_FACE


def complete_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill in missing points (N, 15, 2), NaN, from the mean face fitted to the ones that are there.

    Faces with fewer than two points stay as they are.
    """
    mean_face = np.array(MEAN_FACE)
    filled = points.copy()
    for face in np.flatnonzero(np.isnan(points).any((1, 2))):
        present = ~np.isnan(points[face]).any(1)
        if present.sum() >= 2:
            fitted = geometry.similarity(mean_face[present], points[face, present])
            filled[face, ~present] = geometry.apply(fitted, mean_face[~present])
    return filled


def label_boxes(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the square boxes (N, 4), image edges, around points (N, 15, 2): stage 1's crop at factor 1."""
    return np.asarray(geometry.square(geometry.box_around(complete_points(points))), np.float32)
