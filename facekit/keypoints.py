"""Stage 1: 15 keypoints of the face in each box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.backends import Backend
from facekit.mirror import mirror_image, mirror_per_point, mirror_points
from facekit.schema import CROP_SIZE


def find_keypoints(
    backend: Backend,
    grays: Sequence[NDArray[np.uint8]],
    picture_of_face: NDArray[np.int64],
    crop_boxes: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Place the keypoints of faces: the mean over each crop and its mirror.

    A network takes sides a little; the mean does not, so that a mirrored picture has mirrored points. It also
    lowers the error by about 8% (36 held-out Helen faces under Haar's boxes).

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
    reflected, sigma_reflected = backend.keypoints(mirror_image(crops))
    points_crop = (points_crop + mirror_points(reflected, CROP_SIZE)) / 2
    sigma = (sigma + mirror_per_point(sigma_reflected)) / 2
    scale = geometry.scale_of(image_from_crop)[:, None]
    points_image = geometry.apply(image_from_crop, points_crop)
    return points_image.astype(np.float32), (sigma * scale).astype(np.float32)
