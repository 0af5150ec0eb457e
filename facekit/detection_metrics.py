"""How good detections are: matched to labels, recall, precision, average precision and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekit import geometry

MATCH_OVERLAP = 0.5

BINS = 10
"""Equal bins of the scores for the calibration error."""


@dataclass(frozen=True)
class Matches:
    """All detections of a set of pictures, matched to its labels.

    Attributes
    ----------
    scores : (D,) float64
        Of the detections that count: those on doubtful labels do not.
    right : (D,) bool
        The detection is the best-scored one of a labelled face.
    best : (L,) float64
        The score of the detection that each of the L labelled faces got, -inf where it got none.
    pictures : int
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    best: NDArray[np.float64]
    pictures: int

    def recall(self, min_score: float) -> float:
        """Give the share of labelled faces that are found."""
        return float((self.best >= min_score).mean()) if len(self.best) else 1.0

    def false_positives(self, min_score: float) -> float:
        """Count the detections a picture that are no labelled face."""
        return float((~self.right & (self.scores >= min_score)).sum() / max(1, self.pictures))

    def average_precision(self) -> float:
        """Give the area under the curve of precision, made to fall, over recall [1]_.

        References
        ----------
        .. [1] M. Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010, all points.
        """
        right = self.right[np.argsort(-self.scores, kind="stable")]
        found = np.cumsum(right)
        precision = found / np.arange(1, len(right) + 1)
        falling = np.maximum.accumulate(precision[::-1])[::-1]
        return float((falling * right).sum() / max(1, len(self.best)))


def match(
    boxes: Sequence[NDArray[np.floating]],
    scores: Sequence[NDArray[np.floating]],
    faces: Sequence[NDArray[np.floating]],
    doubtful: Sequence[NDArray[np.floating]],
) -> Matches:
    """Match detections to labelled faces, the best score first; each face is found once.

    Parameters
    ----------
    boxes : sequence of (N, 4), one a picture
    scores : sequence of (N,)
    faces : sequence of (L, 4)
        Labelled faces.
    doubtful : sequence of (I, 4)
        Labels that are neither face nor background: a detection there counts neither way.
    """
    all_scores, all_right, all_best = [], [], []
    for box, score, face, unsure in zip(boxes, scores, faces, doubtful, strict=True):
        order = np.argsort(-np.asarray(score), kind="stable")
        overlap = geometry.overlaps(np.asarray(box, np.float64)[order], np.asarray(face, np.float64))
        on_unsure = geometry.overlaps(np.asarray(box, np.float64)[order], np.asarray(unsure, np.float64))
        best = np.full(len(face), -np.inf)
        for place, detection in enumerate(order):
            open_ = np.where(np.isneginf(best), overlap[place], 0.0)
            right = len(face) > 0 and open_.max() >= MATCH_OVERLAP
            if right:
                best[open_.argmax()] = score[detection]
            elif on_unsure[place].max(initial=0.0) >= MATCH_OVERLAP:
                continue
            all_scores.append(float(score[detection]))
            all_right.append(bool(right))
        all_best.append(best)
    return Matches(
        np.array(all_scores),
        np.array(all_right, np.bool_),
        np.concatenate(all_best) if all_best else np.zeros(0),
        len(boxes),
    )


def fit_logistic(logits: NDArray[np.floating], right: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit slope and offset so that ``sigmoid(slope * logit + offset)`` is the share that is right [1]_.

    References
    ----------
    .. [1] J. Platt, "Probabilistic outputs for support vector machines", 1999: with softened targets.
    """
    design = np.stack([np.asarray(logits, np.float64), np.ones(len(logits))], 1)
    yes, no = right.sum(), (~right).sum()
    target = np.where(right, (yes + 1) / (yes + 2), 1 / (no + 2))

    def loss(weights: NDArray[np.float64]) -> float:
        said = design @ weights
        return float((np.logaddexp(0, said) - target * said).sum())

    weights = np.array([1.0, 0.0])
    for _ in range(100):
        said = sigmoid(design @ weights)
        slope = design.T @ (said - target)
        bend = (design * (said * (1 - said))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(bend, slope)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights - step
    return float(weights[0]), float(weights[1])


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Give ``1 / (1 + exp(-logits))`` without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(logits))


def reliability(
    scores: NDArray[np.floating], right: NDArray[np.bool_]
) -> tuple[list[dict[str, float]], float]:
    """Compare scores with the share of detections that are right.

    Returns
    -------
    list of dict
        Of each bin that is not empty: score and share (means), n.
    float
        Expected calibration error: the mean difference, weighted by n.
    """
    place = np.minimum((np.asarray(scores) * BINS).astype(int), BINS - 1)
    rows = []
    for k in np.unique(place):
        inside = place == k
        rows.append(
            {
                "score": float(scores[inside].mean()),
                "share": float(right[inside].mean()),
                "n": int(inside.sum()),
            }
        )
    error = sum(row["n"] * abs(row["score"] - row["share"]) for row in rows) / max(1, len(place))
    return rows, float(error)
