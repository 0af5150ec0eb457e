"""How well suspect scores find the labels that independent taggers reject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import metrics
from facekit.schema import EXPRESSIONS, FERPLUS

PRECISION_AT = (10, 25, 50, 100, 200)

CLEAR_CLASSES = ("happy", "neutral", "surprise")
"""Classes on which taggers mostly agree, so that a wrong label stands out."""


@dataclass(frozen=True)
class Reference:
    """How suspect scores rank rejected labels: those that differ from the plurality of votes.

    Attributes
    ----------
    n : int
        Rows with a label and a plurality.
    macro_within_class_auroc : float or None
        Mean over the labelled classes of `per_class_auroc`.
    per_class_auroc : dict of str to float or None
    pooled_auroc : float or None
        Over all rows; compare with `class_prior_auroc`.
    class_prior_auroc : float or None
        Pooled, if each label is scored by its class's rate of rejection alone.
    precision_at_k : dict
        Class to its n, its rate of rejection, and the share of rejected labels among the k most suspect.
    """

    n: int
    macro_within_class_auroc: float | None
    per_class_auroc: dict[str, float | None]
    pooled_auroc: float | None
    class_prior_auroc: float | None
    precision_at_k: dict[str, dict[str, float | int | None]]


def judge(
    labels: NDArray[np.int64], scores: NDArray[np.floating[Any]], voted: NDArray[np.int64]
) -> Reference:
    """Hold suspect scores against votes.

    Parameters
    ----------
    labels, voted : (N,) int
        Indices of schema.EXPRESSIONS; rows with -1 in either are left out.
    scores : (N,) float
        Most suspect highest.

    Returns
    -------
    Reference
    """
    known = (labels >= 0) & (voted >= 0)
    labels, scores, rejected = labels[known], scores[known], (labels != voted)[known]
    of_class = {label: labels == c for c, label in enumerate(EXPRESSIONS)}
    within = {label: metrics.auroc(scores[rows], rejected[rows]) for label, rows in of_class.items()}
    defined = [value for value in within.values() if value is not None]
    rates = {label: float(rejected[rows].mean()) if rows.any() else None for label, rows in of_class.items()}
    return Reference(
        n=len(labels),
        macro_within_class_auroc=float(np.mean(defined)) if defined else None,
        per_class_auroc=within,
        pooled_auroc=metrics.auroc(scores, rejected),
        class_prior_auroc=metrics.auroc(np.array([r or 0.0 for r in rates.values()])[labels], rejected),
        precision_at_k={
            label: {
                "n": int(of_class[label].sum()),
                "base_rate": rates[label],
                **{
                    str(k): metrics.precision_at(scores[of_class[label]], rejected[of_class[label]], k)
                    for k in PRECISION_AT
                },
            }
            for label in CLEAR_CLASSES
        },
    )


def voted_expressions(votes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Give the plurality (N,) of FER+ votes (N, 10) as an index of schema.EXPRESSIONS.

    Ties, and pluralities of contempt, of unknown and of not a face, give -1.
    """
    index = [EXPRESSIONS.index(label) if label in EXPRESSIONS else -1 for label in FERPLUS]
    tied = (votes == votes.max(1)[:, None]).sum(1) > 1
    return np.where(tied, -1, np.array([*index, -1, -1])[votes.argmax(1)])
