"""Which labels are probably wrong: scores, flags and patterns from predictions.

Expressions are scored by confident learning [1]_: the less probability the model has for the label, the more
suspect it is. Keypoints are scored by their distance from the predicted points in units of the errors that
the model expects there.

References
----------
.. [1] C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
   JAIR 2021.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.geometry import Floats
from facekit.mirror import swap_sides
from facekit.schema import MEAN_FACE

SWAPPED: Final = "left_right_swapped"
SHIFTED: Final = "shifted"
ASTRAY: Final = "one_point_astray"

LARGEST_OF_FACE: Final = 2.55
"""Expected largest of 15 errors that follow the error model, in units of sigma."""

EXCESS: Final = 2.0
"""Faces are flagged whose errors are this many times what sigma expects: .3 to 3% of the faces of Helen, AFW,
YouTube Faces and MTFL as they are, and nearly all with points moved by 15% of the distance of the eyes."""

EXPLAINED: Final = 2 / 3
"""A pattern explains a face if undoing it leaves less than this share of the excess."""


def self_confidence(labels: NDArray[np.integer[Any]], probabilities: Floats) -> Floats:
    """Score labels by ``1 - p[label]``.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float, out of fold: from a model that did not train on these labels

    Returns
    -------
    (N,) float, 0..1, most suspect 1
    """
    return np.asarray(1 - probabilities[np.arange(len(labels)), labels])


def normalized_margin(labels: NDArray[np.integer[Any]], probabilities: Floats) -> Floats:
    """Score labels by ``(1 - p[label] + max over the other classes of p) / 2``; see `self_confidence`."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    return np.asarray((1 - probabilities[rows, labels] + others.max(1)) / 2)


def confidently_other(labels: NDArray[np.integer[Any]], probabilities: Floats) -> NDArray[np.bool_]:
    """Flag labels off the diagonal of the confident joint [1]_.

    A class's threshold is the mean probability that rows with its label have for it. A row counts for the
    most probable class among those whose threshold it reaches; if that is not its label, it is flagged.

    Returns
    -------
    (N,) bool
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, minlength=classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.asarray((confident.max(1) >= 0) & (confident.argmax(1) != labels))


def face_frame_errors(labelled: Floats, predicted: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    """Bring errors to the frame of the mean face, so that faces of any size and turn can be compared.

    Parameters
    ----------
    labelled, predicted : (N, 15, 2) float, image pixels; NaN where a point is not labelled
    sigma : (N, 15) float, expected errors, image pixels

    Returns
    -------
    errors : (N, 15, 2) float
        Labelled less predicted place, in units of the side of the mean face's square.
    sigma : (N, 15) float
        In the same units.
    """
    face_from_image = geometry.similarity(predicted, np.broadcast_to(np.array(MEAN_FACE), predicted.shape))
    errors = (labelled - predicted) @ face_from_image[..., :2].mT
    return errors, sigma * geometry.scale_of(face_from_image)[:, None]


def point_scores(
    labelled: Floats, predicted: Floats, sigma: Floats
) -> tuple[Floats, NDArray[np.bool_], NDArray[Any]]:
    """Score the labelled points of faces by their standardised errors.

    An error is the distance from the predicted point, less the median offset of that point in the whole set
    (label sets place the same point differently), over sigma. A face's excess is its mean error, or its
    largest over what the largest of 15 is expected to be, whichever is more; its score is
    ``excess / (1 + excess)``.

    Parameters
    ----------
    labelled, predicted : (N, 15, 2) float, image pixels
        NaN where a point is not labelled; each face has at least one.
    sigma : (N, 15) float, expected errors, image pixels

    Returns
    -------
    scores : (N,) float, 0..1, most suspect 1
    flagged : (N,) bool
    patterns : (N,) object of str
        SWAPPED, SHIFTED, ASTRAY, or "" where a face is not flagged or fits none of them.
    """
    errors, scale = face_frame_errors(labelled, predicted, sigma)
    usual = _median(errors)
    excess = _excess(errors - usual, scale)
    flagged = excess > EXCESS
    patterns = np.full(len(labelled), "", object)
    for face in np.flatnonzero(flagged):
        patterns[face] = _pattern(labelled[face], predicted[face], errors[face] - usual, scale[face])
    return excess / (1 + excess), flagged, patterns


def _excess(errors: Floats, sigma: Floats) -> Floats:
    """Give how many times larger than expected the errors (..., 15, 2) of faces are, without NaN ones."""
    ratio = np.linalg.norm(errors, axis=-1) / sigma
    known = ~np.isnan(ratio)
    ratio = np.where(known, ratio, 0)
    mean = ratio.sum(-1) / np.maximum(known.sum(-1), 1)
    return np.asarray(np.maximum(mean, ratio.max(-1) / LARGEST_OF_FACE))


def _pattern(labelled: Floats, predicted: Floats, errors: Floats, sigma: Floats) -> str:
    """Name what one flagged face's errors (15, 2) look like: the change that would explain them away."""
    enough = _excess(errors, sigma) * EXPLAINED
    swapped, _ = face_frame_errors(swap_sides(labelled)[None], predicted[None], sigma[None])
    if _excess(swapped[0], sigma) < enough:
        return SWAPPED
    lengths = np.linalg.norm(errors, axis=-1) / sigma
    without = errors.copy()
    without[np.nanargmax(lengths)] = np.nan
    if _excess(without, sigma) < np.minimum(enough, EXCESS):
        return ASTRAY
    if _excess(errors - _median(errors), sigma) < enough:
        return SHIFTED
    return ""


def _median(errors: Floats) -> Floats:
    """Give the median (..., 2) over the first axis of errors (N, ..., 2) without NaN; 0 if there are none."""
    missing = np.isnan(errors).all(0)
    return np.asarray(np.nanmedian(np.where(missing, 0, errors), 0))
