"""Stage 2: calibrated probabilities of the expressions of aligned faces."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from facekit.backends import Backend
from facekit.schema import ALIGNED_SIZE


def find_expressions(
    backend: Backend,
    grays: Sequence[NDArray[np.uint8]],
    picture_of_face: NDArray[np.int64],
    image_from_crops: NDArray[np.float64],
    heads: Collection[str],
) -> dict[str, NDArray[np.float32]]:
    """Name the expressions of faces.

    Parameters
    ----------
    backend : Backend
    grays : sequence of (H, W) uint8
    picture_of_face : (N,) int, which picture each face is in
    image_from_crops : (L, N, 2, 3) float64
        Of each face's L crops, whose answers are averaged.
    heads : collection of str
        Of the network's expression heads.

    Returns
    -------
    dict of head to (N, C) float32, calibrated probabilities, rows sum to 1
    """
    temperature = backend.header["temperature"]
    told = []
    for image_from_crop in image_from_crops:
        crops = backend.warp(grays, picture_of_face, image_from_crop, ALIGNED_SIZE)
        told.append(backend.expression(crops, heads))
    return {
        head: np.mean([calibrated(logits[head], temperature[head]) for logits in told], 0, np.float32)
        for head in heads
    }


def calibrated(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Give the softmax (N, C) of logits (N, C) divided by a temperature fitted on held-out faces."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)
