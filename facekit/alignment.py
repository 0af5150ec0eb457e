"""Between the stages: the matrices that bring a face, by its keypoints, to FER2013's frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facekit import geometry
from facekit.schema import ALIGNED_POINTS, ALIGNED_SIZE


def align(points_image: NDArray[np.float32], frame: ArrayLike) -> NDArray[np.float64]:
    """Fit each face to the frame by rotation, scale and shift.

    Parameters
    ----------
    points_image : (N, 15, 2) float, image pixels, centres at integers
    frame : (5, 2) float
        Where schema.ALIGNED_POINTS stand in the 48x48 crop, pixels.

    Returns
    -------
    (N, 2, 3) float64, image_from_aligned
    """
    seen = points_image[:, list(ALIGNED_POINTS)]
    # Fitted in the frame and then inverted, so that errors are weighed alike for small faces and large ones.
    target = np.broadcast_to(np.asarray(frame, np.float64), seen.shape)
    return np.asarray(geometry.invert(geometry.similarity(seen, target)))


def crops_of_framed(
    image_from_aligned: NDArray[np.float64], framed: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Give the two crops in which stage 2 sees faces that come framed as FER2013's are.

    One is the face as it is framed, the other lies half way from there to the aligned one: where points
    mislead, as in profiles, half of the error is left. Of other faces among them both are the aligned one.

    Parameters
    ----------
    image_from_aligned : (N, 2, 3) float64
    framed : (N, 4) float32, squares, image edges; NaN for faces that do not come framed

    Returns
    -------
    (2, N, 2, 3) float64, image_from_crop
    """
    image_from_framed = geometry.crop(framed.astype(np.float64), ALIGNED_SIZE)
    given = np.where(np.isnan(image_from_framed), image_from_aligned, image_from_framed)
    return np.stack([given, geometry.between(given, image_from_aligned, 0.5)])
