"""Boxes, points and labels drawn on a picture, in sizes that follow the faces and the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.schema import KEYPOINTS

Color = tuple[int, int, int]
Plate = tuple[int, int, int, int]

SIDE_COLORS: dict[str, Color] = {"left": (255, 149, 0), "right": (64, 196, 255), "middle": (255, 255, 255)}
"""Of the points of the subject's left and right and of those between; told apart by the colour-blind too."""

BOX_COLOR: Color = (124, 230, 92)
SHADE: Color = (16, 16, 16)

MIN_FONT, SMALLEST_FONT = 13, 7
"""Pixels: the least size of letters, and the least in a picture that is too narrow for it."""

_SUBPIXEL_BITS = 4


def side_of(keypoint: str) -> str:
    """Give "left", "right" or "middle" for a name of schema.KEYPOINTS."""
    return next((side for side in ("left", "right") if side in keypoint.split("_")), "middle")


_POINT_COLORS = [SIDE_COLORS[side_of(name)] for name in KEYPOINTS]


def draw(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    points_image: NDArray[np.float32],
    labels: Sequence[str],
) -> NDArray[np.uint8]:
    """Draw faces on a copy of a picture.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB
    boxes : (N, 4) float, image edges x0, y0, x1, y1
    points_image : (N, 15, 2) float, image pixels, centres at integers, in the order of schema.KEYPOINTS
    labels : sequence of N str

    Returns
    -------
    (H, W, 3) uint8, RGB
    """
    drawn = np.array(image, np.uint8)
    sizes = np.sqrt(geometry.areas(boxes))
    for box, points, size in zip(boxes, points_image, sizes, strict=True):
        _draw_box(drawn, box, float(size))
        _draw_points(drawn, points, float(size))
    return _draw_labels(drawn, boxes, labels, sizes)


def _draw_box(image: NDArray[np.uint8], box: NDArray[np.float32], size: float) -> None:
    """Draw a bright frame just inside the box and a dark one inside that, in place."""
    rows, columns = geometry.window(box, image.shape[1], image.shape[0])
    inside = image[rows, columns]
    thickness = max(1, round(size / 110))
    for color, width in ((SHADE, thickness + max(1, thickness // 2)), (BOX_COLOR, thickness)):
        inside[:width], inside[-width:] = color, color
        inside[:, :width], inside[:, -width:] = color, color


def _draw_points(image: NDArray[np.uint8], points: NDArray[np.float32], size: float) -> None:
    """Draw discs with a dark rim, in place; tiny faces get no rim, it would cover them."""
    import cv2

    unit = 1 << _SUBPIXEL_BITS
    radius = max(0.7, size / 65)
    rim = max(0.6, radius / 4) if radius > 1 else 0
    for point, color in zip(points, _POINT_COLORS, strict=True):
        centre = [round(float(value) * unit) for value in point]
        for shade, reach in ((SHADE, radius + rim), (color, radius)):
            cv2.circle(image, centre, round(reach * unit), shade, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)


def _draw_labels(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], labels: Sequence[str], sizes: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Write each label on a dark plate beside its box, where it hides no other label."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    taken: list[Plate] = []
    for box, label, size in zip(boxes, labels, sizes, strict=True):
        font, width, height = _fitting_font(label, float(size), picture.width)
        if width > picture.width or height > picture.height:
            continue  # no letter would be readable
        plate = _free_plate(_plates(box, width, height, picture.size), taken)
        taken.append(plate)
        left, top, right, bottom = plate
        pen.rectangle((left, top, right - 1, bottom - 1), fill=SHADE)
        pen.text(((left + right) / 2, (top + bottom) / 2), label, fill=BOX_COLOR, font=font, anchor="mm")
    return np.array(picture)


def _fitting_font(label: str, face_size: float, picture_width: int) -> tuple[Any, int, int]:
    """Give a font for a face of that size whose label is not wider than the picture, and its plate's size."""
    from PIL import ImageFont

    size = max(MIN_FONT, min(face_size / 8, picture_width / 16))
    while True:
        font = ImageFont.load_default(size)
        width, height = math.ceil(font.getlength(label) + size * 0.6), math.ceil(size * 1.35)
        if width <= picture_width or size <= SMALLEST_FONT:
            return font, width, height
        size = max(SMALLEST_FONT, size * 0.9)


def _plates(box: NDArray[np.float32], width: int, height: int, picture: tuple[int, int]) -> list[Plate]:
    """Give the places inside the picture for a box's label: above it, below it, in its top, in its foot."""
    rows, columns = geometry.window(box, *picture)
    left = min(columns.start, picture[0] - width)
    tops = (rows.start - height, rows.stop, rows.start, rows.stop - height)
    inside = [top for top in tops if 0 <= top <= picture[1] - height] or [0]
    return [(left, top, left + width, top + height) for top in inside]


def _free_plate(plates: list[Plate], taken: list[Plate]) -> Plate:
    def is_free(plate: Plate) -> bool:
        return not any(
            plate[0] < other[2] and other[0] < plate[2] and plate[1] < other[3] and other[1] < plate[3]
            for other in taken
        )

    return next((plate for plate in plates if is_free(plate)), plates[0])
