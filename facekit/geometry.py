"""Where things are: boxes, affine matrices and warps, for NumPy arrays and torch tensors alike.

Points are (x, y) with pixel centres at integers: the first pixel's centre is (0, 0). Boxes are edges
x0, y0, x1, y1 where the whole picture is 0, 0, W, H, so an edge lies half a pixel from the centres; this
module alone knows that. A matrix (..., 2, 3) is named for what it maps: ``image_from_crop @ (x, y, 1)`` takes
a point of the crop to the image.

References
----------
.. [1] S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""A NumPy array or a torch tensor; functions that take it use only operations that both have."""

Floats = NDArray[np.floating[Any]]


def apply(matrix: Array, points: Array) -> Array:
    """Map points by affine matrices.

    Parameters
    ----------
    matrix : (..., 2, 3) float array or tensor
    points : (..., K, 2) float array or tensor, x and y, centres at integers

    Returns
    -------
    (..., K, 2) array or tensor
    """
    return points @ matrix[..., :2].mT + matrix[..., None, :, 2]


def apply_to_grid(matrix: Array, places: Array) -> Array:
    """Map the points (x, y) of a square grid, x and y from `places` (S,), by matrices (..., 2, 3).

    Returns
    -------
    (..., 2, S, S) array or tensor, x and y apart, row by row of the grid
    """
    across, down, shift = (matrix[..., column, None, None] for column in range(3))
    return across * places + down * places[:, None] + shift


def compose(outer: Array, inner: Array) -> Array:
    """Give the matrix (..., 2, 3) that maps by `inner` first and then by `outer`."""
    linear = outer[..., :2] @ inner
    linear[..., 2] += outer[..., 2]
    return linear


def between(first: Floats, second: Floats, share: float) -> Floats:
    """Give the matrices at a share of the way from first ones to second ones: 0 is first, 1 is second."""
    return first * (1 - share) + second * share


def invert(matrix: Array) -> Array:
    """Give the matrix (..., 2, 3) that undoes `matrix`."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    determinant = a * d - b * c
    inverse = matrix * 0
    inverse[..., 0, 0], inverse[..., 0, 1] = d / determinant, -b / determinant
    inverse[..., 1, 0], inverse[..., 1, 1] = -c / determinant, a / determinant
    inverse[..., 2] = -(inverse[..., :2] @ matrix[..., 2:])[..., 0]
    return inverse


def crop(boxes: Array, size: int) -> Array:
    """Give the matrices that map a size x size crop onto boxes.

    Parameters
    ----------
    boxes : (..., 4) float array or tensor, image edges x0, y0, x1, y1
    size : int
        Width and height of the crop, pixels.

    Returns
    -------
    (..., 2, 3) array or tensor, image_from_crop
    """
    scale = (boxes[..., 2:] - boxes[..., :2]) / size
    shift = boxes[..., :2] + scale / 2 - 0.5
    matrix = (boxes[..., :3] * 0)[..., None, :] + (boxes[..., :2] * 0)[..., :, None]
    matrix[..., 0, 0], matrix[..., 1, 1] = scale[..., 0], scale[..., 1]
    matrix[..., 2] = shift
    return matrix


def similarity(source: Floats, target: Floats) -> Floats:
    """Fit rotation, uniform scale and shift that bring points onto points, by least squares [1]_.

    Parameters
    ----------
    source, target : (..., K, 2) float, K >= 2

    Returns
    -------
    (..., 2, 3) float64, target_from_source, without reflection
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(-2), target.mean(-2)
    p, q = source - source_mean[..., None, :], target - target_mean[..., None, :]
    spread = np.maximum((p**2).sum((-2, -1)), np.finfo(np.float64).tiny)
    cosine = (p * q).sum((-2, -1)) / spread
    sine = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(-1) / spread
    linear = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    shift = target_mean - (linear @ source_mean[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], -1)


def angles(vectors: Floats) -> Floats:
    """Give the angles (...,) of vectors (..., 2), radians, from x to y."""
    return np.asarray(np.arctan2(vectors[..., 1], vectors[..., 0]))


def turned(matrix: Floats, angle: Floats, size: int) -> NDArray[np.float64]:
    """Turn size x size crops about their middles.

    Parameters
    ----------
    matrix : (..., 2, 3) float
        image_from_crop of crops as they are.
    angle : (...,) float
        Radians, from x to y.
    size : int
        Width and height of the crops, pixels.

    Returns
    -------
    (..., 2, 3) float64, image_from_crop
    """
    cosine, sine, middle = np.cos(angle), np.sin(angle), (size - 1) / 2
    linear = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    shift = middle - linear.sum(-1) * middle
    return np.asarray(compose(matrix, np.concatenate([linear, shift[..., None]], -1)), np.float64)


def scale_of(matrix: Array) -> Array:
    """Give the mean magnification (...,) of matrices (..., 2, 3): the root of the determinant's size."""
    determinant = matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    return abs(determinant) ** 0.5


def reduction(image_from_crop: Floats, image_size: tuple[int, int]) -> int:
    """Give the whole factor by which an image is reduced before a crop is sampled from it.

    It is the crop's own shrinking, rounded: 1 below 1.5. Bilinear sampling of what is left neither aliases
    nor blurs, so that a large face looks to the network as a small one does.
    """
    return max(1, min(int(float(scale_of(image_from_crop)) + 0.5), *image_size))


def reduce(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Give the means of factor x factor blocks of an image (H, W), less what is over at the far edges."""
    if factor == 1:
        return image
    import cv2

    height, width = (side // factor for side in image.shape)
    whole = image[: height * factor, : width * factor]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


def reduced_from_crop(image_from_crop: Array, factor: int) -> Array:
    """Give the matrix (..., 2, 3) into the image that `reduce` gives."""
    matrix = image_from_crop / factor
    matrix[..., 2] -= (factor - 1) / (2 * factor)
    return matrix


def warp(image: NDArray[Any], image_from_crop: Floats, size: int) -> NDArray[np.float32]:
    """Cut a size x size crop out of an image; outside the image the nearest edge pixel is repeated.

    Sampling is bilinear, at exact places and without rounding of values: the faces of a batch must not differ
    from single ones by what rounding makes of the last bits of a matrix.

    Parameters
    ----------
    image : (H, W) or (H, W, C) uint8 or float32
    image_from_crop : (2, 3) float
    size : int
        Width and height of the crop, pixels.

    Returns
    -------
    (size, size) or (size, size, C) float32, in the image's values
    """
    if image.ndim == 3:
        return np.stack([warp(channel, image_from_crop, size) for channel in np.moveaxis(image, 2, 0)], 2)
    factor = reduction(image_from_crop, image.shape)
    matrix = reduced_from_crop(np.asarray(image_from_crop, np.float64), factor)
    return _sample(reduce(image, factor), *apply_to_grid(matrix, np.arange(size)))


def _sample(image: NDArray[Any], x: Floats, y: Floats) -> NDArray[np.float32]:
    """Give the values (S, S) float32 of an image (H, W) at places between its pixels' centres, bilinear."""
    height, width = image.shape
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    across, down = x - left, y - top
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    pixels = image.ravel()
    a, b, c, d = (
        pixels.take(row + column).astype(np.float64)
        for row in (top * width, bottom * width)
        for column in (left, right)
    )
    upper, lower = a + across * (b - a), c + across * (d - c)
    return np.asarray(upper + down * (lower - upper), np.float32)


def warp_picture(image: NDArray[np.uint8], image_from_crop: Floats, size: int) -> NDArray[np.uint8]:
    """Give `warp`'s crop as a picture, uint8."""
    return np.rint(warp(image, image_from_crop, size)).astype(np.uint8)


def theta(image_from_crop: Array, image_size: tuple[int, int], crop_size: tuple[int, int]) -> Array:
    """Bring matrices to the form of ``torch.nn.functional.affine_grid(align_corners=False)``.

    Parameters
    ----------
    image_from_crop : (..., 2, 3) float array or tensor, pixels
    image_size, crop_size : (width, height), pixels

    Returns
    -------
    (..., 2, 3) array or tensor, from the crop's to the image's coordinates of -1..1 between outer edges
    """
    result = image_from_crop * 1.0
    for row in range(2):
        for column in range(2):
            result[..., row, column] = image_from_crop[..., row, column] * (
                crop_size[column] / image_size[row]
            )
        centre = [(side - 1) / 2 for side in crop_size]
        at_centre = image_from_crop[..., row, 0] * centre[0] + image_from_crop[..., row, 1] * centre[1]
        result[..., row, 2] = (at_centre + image_from_crop[..., row, 2] + 0.5) * 2 / image_size[row] - 1
    return result


def box_around(points: Array) -> Array:
    """Give the tight boxes (..., 4), edges, around the centres of points (..., K, 2)."""
    low, high = points.min(-2), points.max(-2)
    # torch's min and max over a dimension return the values together with their indices
    low, high = getattr(low, "values", low), getattr(high, "values", high)
    box = (points[..., 0, :1] * 0) + (points[..., 0, [0, 1, 0, 1]] * 0)
    box[..., :2], box[..., 2:] = low + 0.5, high + 0.5
    return box


def square(boxes: Array, factor: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Make boxes (..., 4) square about their centres: the longer side times `factor`.

    `shift` moves the centre right and down, in units of the longer side.
    """
    extent = boxes[..., 2:] - boxes[..., :2]
    longer = extent[..., 0] + (extent[..., 1] - extent[..., 0]).clip(0)
    result = boxes * 1.0
    for axis in range(2):
        centre = (boxes[..., axis] + boxes[..., axis + 2]) / 2 + longer * shift[axis]
        result[..., axis] = centre - longer * (factor / 2)
        result[..., axis + 2] = centre + longer * (factor / 2)
    return result


def apply_to_boxes(matrix: Array, boxes: Array) -> Array:
    """Map boxes (..., N, 4) by affine matrices (..., 2, 3), as the ellipses that fill them.

    A face turned by an angle is about an ellipse turned by it; the corners of its box would enclose too much.
    """
    centre = apply(matrix, (boxes[..., :2] + boxes[..., 2:]) / 2 - 0.5) + 0.5
    radius = (boxes[..., 2:] - boxes[..., :2]) / 2
    reach = ((matrix[..., None, :, :2] * radius[..., None, :]) ** 2).sum(-1) ** 0.5
    result = boxes * 1.0
    result[..., :2], result[..., 2:] = centre - reach, centre + reach
    return result


def areas(boxes: Array) -> Array:
    """Give the areas (...,) of boxes (..., 4), square pixels; 0 where the edges cross."""
    extent = (boxes[..., 2:] - boxes[..., :2]).clip(0)
    return extent[..., 0] * extent[..., 1]


def intersections(first: Floats, second: Floats) -> Floats:
    """Give the areas (N, M) that boxes (N, 4) share with boxes (M, 4), square pixels."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.asarray(areas(np.concatenate([low, high], -1)))


def overlaps(first: Floats, second: Floats) -> Floats:
    """Give the intersection over union (N, M) of boxes (N, 4) with boxes (M, 4)."""
    shared = intersections(first, second)
    union = areas(first)[:, None] + areas(second)[None] - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float64).tiny))


def window(box: Floats, width: int, height: int) -> tuple[slice, slice]:
    """Give the rows and columns of the pixels whose centres lie in a box (4,); at least one each."""
    low = np.clip(np.ceil(box[:2] - 0.5), 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.ceil(box[2:] - 0.5), low + 1, [width, height]).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
