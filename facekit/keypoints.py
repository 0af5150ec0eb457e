"""Stage 1: 15 keypoints of the face in each box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.backends import Backend

CROP_SIZE = 96


def find_keypoints(
    backend: Backend,
    grays: Sequence[NDArray[np.uint8]],
    picture_of_face: NDArray[np.int64],
    crop_boxes: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Place the keypoints of faces.

    Parameters
    ----------
    backend : Backend
    grays : sequence of (H, W) uint8
    picture_of_face : (N,) int, which picture each face is in
    crop_boxes : (N, 4) float, square, image edges: stage 1's crop

    Returns
    -------
    points_image : (N, 15, 2) float32, image pixels, centres at integers
    sigma : (N, 15) float32, expected errors, image pixels
    """
    image_from_crop = geometry.crop(np.asarray(crop_boxes, np.float64), CROP_SIZE)
    crops = backend.warp(grays, picture_of_face, image_from_crop, CROP_SIZE)
    points_crop, sigma = backend.keypoints(crops)
    scale = geometry.scale_of(image_from_crop)[:, None]
    points_image = geometry.apply(image_from_crop, points_crop)
    return points_image.astype(np.float32), (sigma * scale).astype(np.float32)
