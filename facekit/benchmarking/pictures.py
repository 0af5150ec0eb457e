"""The pictures that suites analyse: NASA's portrait, which comes with scikit-image, at chosen sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def portrait(width: int = 512, height: int = 512) -> NDArray[np.uint8]:
    """Give the portrait (H, W, 3) uint8 RGB: one face."""
    from skimage.data import astronaut

    whole = Image.fromarray(np.asarray(astronaut()))  # type: ignore[no-untyped-call]
    return np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS))


def as_jpeg(picture: NDArray[np.uint8], quality: int = 95) -> bytes:
    """Give a picture as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def write_album(folder: Path, count: int) -> list[Path]:
    """Write the portrait as so many JPEG files of 640x480, each of another brightness."""
    picture, paths = portrait(640, 480).astype(np.float32), []
    for place in range(count):
        path = folder / f"{place:05}.jpg"
        light = 0.8 + 0.4 * place / max(1, count - 1)
        path.write_bytes(as_jpeg((picture * light).clip(0, 255).astype(np.uint8), 90))
        paths.append(path)
    return paths
