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
    framed: NDArray[np.bool_],
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
    framed : (N,) bool
        Which faces come framed as FER2013's do: to the others a head's `photo_bias` applies, if it has one.

    Returns
    -------
    dict of head to (N, C) float32, calibrated probabilities, rows sum to 1
    """
    temperature, biases = backend.header["temperature"], backend.header.get("photo_bias", {})
    told = []
    for image_from_crop in image_from_crops:
        crops = backend.warp(grays, picture_of_face, image_from_crop, ALIGNED_SIZE)
        told.append(backend.expression(crops, heads))
    scores = {}
    for head in heads:
        bias = np.where(framed[:, None], 0.0, biases.get(head, 0.0))
        each = [calibrated(logits[head], temperature[head], bias) for logits in told]
        scores[head] = np.asarray(np.mean(each, 0), np.float32)
    return scores


def calibrated(
    logits: NDArray[np.float32], temperature: float, bias: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Give the softmax (N, C) of logits (N, C) divided by a temperature, plus a bias (N, C) or (N, 1)."""
    scaled = logits.astype(np.float64) / temperature + bias
    powers = np.exp(scaled - scaled.max(1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)
