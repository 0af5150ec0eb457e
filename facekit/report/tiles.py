"""Small pictures of faces for the page, with labelled and predicted points drawn over them."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.crosschecking import CrossCheck


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
    picture, labelled, predicted = result.portrait(place)
    size = len(picture)
    marks = _marks(labelled, "labelled", size / 45) + _marks(predicted, "predicted", size / 80)
    # A pixel's centre is at a whole number, so the picture begins half a pixel before zero.
    view = f'viewBox="-0.5 -0.5 {size} {size}" role="img" aria-label="{escape(alt)}"'
    embedded = f'<image x="-0.5" y="-0.5" width="{size}" height="{size}" href="{_data_url(picture)}"/>'
    return (
        f'<figure class="tile"><svg {view}>{embedded}{marks}</svg><figcaption>{caption}</figcaption></figure>'
    )


def _marks(points: NDArray[Any], kind: str, radius: float) -> str:
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
