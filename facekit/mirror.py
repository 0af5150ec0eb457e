"""Left and right exchanged: pictures, points, boxes and matrices, with the names swapped in one call.

Forgetting to swap "left" and "right" when a face is mirrored is the field's classic bug, so nothing else in
facekit mirrors anything. All functions take NumPy arrays and torch tensors.
"""

from __future__ import annotations

from facekit.geometry import Array
from facekit.schema import MIRROR_PERMUTATION

_PERMUTATION = list(MIRROR_PERMUTATION)


def mirror_image(image: Array) -> Array:
    """Mirror pictures (..., H, W); a picture with channels last is not one of these."""
    flip = getattr(image, "flip", None)
    return image[..., ::-1] if flip is None else flip(-1)


def mirror_points(points: Array, width: Array | float) -> Array:
    """Mirror keypoints and swap the sides' names.

    Parameters
    ----------
    points : (..., 15, 2) float, pixels, centres at integers, in the order of schema.KEYPOINTS
    width : float, or array that broadcasts against (..., 15)
        Width of the picture, pixels.

    Returns
    -------
    (..., 15, 2) float, in the order of schema.KEYPOINTS: row 0 is again the subject's left eye
    """
    mirrored = swap_sides(points) * 1.0
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    return mirrored


def swap_sides(points: Array) -> Array:
    """Rename points (..., 15, 2) that `mirroring_matrix` has moved already."""
    return points[..., _PERMUTATION, :]


def mirror_per_point(values: Array) -> Array:
    """Swap the sides of values (..., 15) that belong to points but not to a place, such as sigma."""
    return values[..., _PERMUTATION]


def mirror_boxes(boxes: Array, width: Array | float) -> Array:
    """Mirror boxes (..., 4) of edges x0, y0, x1, y1 in pictures `width` (...,) pixels wide."""
    mirrored = boxes * 1.0
    mirrored[..., 0], mirrored[..., 2] = width - boxes[..., 2], width - boxes[..., 0]
    return mirrored


def mirroring_matrix(crop_width: int) -> list[list[float]]:
    """Give crop_from_mirrored (2, 3): composed after image_from_crop, it reads the crop right to left.

    The points it moves still need `swap_sides`.
    """
    return [[-1.0, 0.0, float(crop_width - 1)], [0.0, 1.0, 0.0]]
