"""Stage 1: 15 keypoints of the face in each box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.backends import Backend
from facekit.mirror import mirror_image, mirror_per_point, mirror_points
from facekit.schema import CROP_SIZE, KEYPOINTS

EYES = KEYPOINTS.index("right_eye_center"), KEYPOINTS.index("left_eye_center")
"""The line between them is level in an upright face."""

TILTED = math.radians(15)
"""Faces that lean further than training's later crops do are looked at again, upright."""


def find_keypoints(
    backend: Backend,
    grays: Sequence[NDArray[np.uint8]],
    picture_of_face: NDArray[np.int64],
    crop_boxes: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Place the keypoints of faces; those that prove to be tilted are looked at once more, upright.

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
    points_image, sigma = _look(backend, grays, picture_of_face, image_from_crop)
    right, left = (points_image[:, place] for place in EYES)
    angles = geometry.angles(left - right)
    tilted = np.flatnonzero(abs(angles) > TILTED)
    if len(tilted):
        upright = geometry.turned(image_from_crop[tilted], angles[tilted], CROP_SIZE)
        points_image[tilted], sigma[tilted] = _look(backend, grays, picture_of_face[tilted], upright)
    return points_image, sigma


def _look(
    backend: Backend,
    grays: Sequence[NDArray[np.uint8]],
    picture_of_face: NDArray[np.int64],
    image_from_crop: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the mean over each crop and its mirror.

    A network takes sides a little; the mean does not, so that a mirrored picture has mirrored points. It also
    lowers the error by about 8% (36 held-out Helen faces under Haar's boxes).
    """
    crops = backend.warp(grays, picture_of_face, image_from_crop, CROP_SIZE)
    points_crop, sigma = backend.keypoints(crops)
    reflected, sigma_reflected = backend.keypoints(mirror_image(crops))
    points_crop = (points_crop + mirror_points(reflected, CROP_SIZE)) / 2
    sigma = (sigma + mirror_per_point(sigma_reflected)) / 2
    scale = geometry.scale_of(image_from_crop)[:, None]
    points_image = geometry.apply(image_from_crop, points_crop)
    return points_image.astype(np.float32), (sigma * scale).astype(np.float32)
