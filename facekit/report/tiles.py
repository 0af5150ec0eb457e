"""Small pictures of faces for the page, with labelled and predicted points drawn over them."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.crosschecking import CrossCheck

SMALLEST, LARGEST = 48, 160
MARGIN = 1.15


def tile(result: CrossCheck, place: int, alt: str, caption: str) -> str:
    """Give one sample's face as HTML.

    Parameters
    ----------
    result : CrossCheck
    place : int
        Of the sample in the result's dataset.
    alt : str
        What is to be seen, in words.
    caption : str
        HTML below the picture.
    """
    predictions, points = result.evaluation.predictions, result.dataset.points
    found = predictions.points[place]
    labelled = np.full_like(found, np.nan) if points is None else points[place]
    image = result.dataset.load(place)
    image_from_tile, size = _framing(image, predictions.boxes[place], np.concatenate([found, labelled]))
    tile_from_image = geometry.invert(image_from_tile)
    picture = geometry.warp(image, image_from_tile, size)
    marks = _marks(geometry.apply(tile_from_image, labelled), "labelled", size / 45)
    marks += _marks(geometry.apply(tile_from_image, found), "predicted", size / 80)
    # A pixel's centre is at a whole number, so the picture begins half a pixel before zero.
    view = f'viewBox="-0.5 -0.5 {size} {size}" role="img" aria-label="{escape(alt)}"'
    embedded = f'<image x="-0.5" y="-0.5" width="{size}" height="{size}" href="{_data_url(picture)}"/>'
    return f'<figure class="tile"><svg {view}>{embedded}{marks}</svg><figcaption>{caption}</figcaption></figure>'


def _framing(
    image: NDArray[np.uint8], box: NDArray[np.float32], points: NDArray[np.float32]
) -> tuple[NDArray[np.float64], int]:
    """Give image_from_tile and the tile's side: the face with its points, or the whole picture."""
    whole = np.array([0, 0, image.shape[1], image.shape[0]], np.float64)
    points = points[~np.isnan(points).any(1)].astype(np.float64)
    around = [whole if np.isnan(box).any() else box.astype(np.float64)]
    if len(points):
        around.append(geometry.box_around(points))
    edges = np.concatenate([np.min(around, 0)[:2], np.max(around, 0)[2:]])
    if np.isnan(box).any() or np.array_equal(box, whole):
        square = geometry.square(whole)
    else:
        square = geometry.square(edges, MARGIN)
    size = int(np.clip(square[2] - square[0], SMALLEST, LARGEST))
    return np.asarray(geometry.crop(square, size)), size


def _marks(points: NDArray[np.floating], kind: str, radius: float) -> str:
    return "".join(
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.2f}"/>'
        for x, y in points
        if not np.isnan(x)
    )


def _data_url(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
