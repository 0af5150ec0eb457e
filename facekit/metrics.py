"""Figures of merit of expressions and keypoints, with bootstrap intervals, for NumPy arrays.

A face that was not found has NaN for its prediction: it counts as wrong in rates over all faces and is absent
from figures about the prediction itself. Every figure is a function of sums over rows, so that one definition
serves the estimate and its bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.geometry import Floats
from facekit.schema import EXPRESSIONS, KEYPOINTS, OUTER_EYE_CORNERS

Interval = tuple[float, float]

BINS = 15
"""Equal bins of the top probability for the calibration error."""

FAILURE = 0.08
"""A face whose NME is above this has failed."""

REPLICATES = 1000
_BLOCK = 4_000_000  # weights held at once by the bootstrap


@dataclass(frozen=True)
class ExpressionMetrics:
    """How well probabilities of expressions fit labels; None where a figure is undefined.

    Attributes
    ----------
    n, undetected : int
        Rows with one of `labels`; how many of them have no prediction.
    accuracy, balanced_accuracy, macro_f1 : float
        Undetected faces count as wrong; the last two are means over the classes present in the truth.
    nll, brier, ece : float
        Negative log likelihood in nats; squared error summed over the classes; expected calibration error.
    labels : tuple of str
    confusion : (C, C) int64
        Rows: truth; columns: predicted.
    per_class : dict
        Label to n, precision, recall, f1.
    other_labels : dict
        How often each label stands in the data that is none of `labels`.
    ci95 : dict
        Figure to its 95% bootstrap interval.
    """

    n: int
    undetected: int
    accuracy: float | None
    balanced_accuracy: float | None
    macro_f1: float | None
    nll: float | None
    brier: float | None
    ece: float | None
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    per_class: dict[str, dict[str, float | int | None]]
    other_labels: dict[str, int] = field(default_factory=dict)
    ci95: dict[str, Interval] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give the object `expression` of `facekit evaluate --json`."""
        return dict(_jsonable(asdict(self)))


@dataclass(frozen=True)
class KeypointMetrics:
    """How far predicted keypoints lie from labelled ones; None where a figure is undefined.

    Attributes
    ----------
    n, undetected : int
        Faces with labelled points; how many of them have no prediction.
    n_normalized : int
        Faces with both outer eye corners labelled; the normalised figures are about these.
    nme : float
        Mean distance over a face's labelled points by the distance of its outer eye corners; mean over faces.
    rmse_96 : float
        Root mean square of the coordinates' errors, in pixels of a 96x96 crop.
    failure_rate_08, auc_08 : float
        Share of faces with NME above .08; area under the cumulative curve up to .08, divided by .08.
    coverage_68, coverage_95 : float
        Share of the points within the radius that sigma says holds 68% and 95% of them.
    per_point : dict
        Name of the point to its mean distance, normalised.
    ci95 : dict
        Figure to its 95% bootstrap interval.
    """

    n: int
    undetected: int
    n_normalized: int
    nme: float | None
    rmse_96: float | None
    failure_rate_08: float | None
    auc_08: float | None
    coverage_68: float | None
    coverage_95: float | None
    per_point: dict[str, float | None]
    ci95: dict[str, Interval] = field(default_factory=dict)
    normalizer: str = field(default="outer_ocular", init=False)

    def to_dict(self) -> dict[str, Any]:
        """Give the object `keypoints` of `facekit evaluate --json`."""
        return dict(_jsonable(asdict(self)))


def expression_metrics(
    truth: NDArray[np.integer[Any]],
    probabilities: Floats,
    *,
    other_labels: Mapping[str, int] | None = None,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> ExpressionMetrics:
    """Compare probabilities with labels.

    Parameters
    ----------
    truth : (N,) int, indices of schema.EXPRESSIONS
    probabilities : (N, 7) float, rows sum to 1; NaN where no face was found
    other_labels : mapping of str to int, optional
        Counts of labels that are none of schema.EXPRESSIONS, handed through.
    seed, replicates : int
        Of the bootstrap over rows.

    Returns
    -------
    ExpressionMetrics
    """
    found = detected(probabilities)
    columns, confusion = _expression_columns(np.asarray(truth, np.int64), probabilities, found)
    estimates, intervals = bootstrap(columns, _expression_figures, seed, replicates)
    return ExpressionMetrics(
        n=len(truth),
        undetected=int((~found).sum()),
        **estimates,
        labels=EXPRESSIONS,
        confusion=confusion[:, :-1],
        per_class=_per_class(confusion),
        other_labels=dict(other_labels or {}),
        ci95=intervals,
    )


def _expression_columns(
    truth: NDArray[np.int64], probabilities: Floats, found: NDArray[np.bool_]
) -> tuple[dict[str, Floats], NDArray[np.int64]]:
    """Give what each row adds to the sums, and the confusion (C, C + 1), undetected faces last."""
    count, classes = probabilities.shape
    rows = np.arange(count)
    filled: Floats = np.where(found[:, None], probabilities, 0.0).astype(np.float64)
    predicted = np.where(found, filled.argmax(1), classes)
    of_truth = filled[rows, truth]
    cells, gaps = np.zeros((count, classes, classes + 1)), np.zeros((count, BINS))
    cells[rows, truth, predicted] = 1
    gaps[rows, confidence_bins(filled)] = ((predicted == truth) - filled.max(1)) * found
    columns = {
        "likelihood": -np.log(of_truth.clip(np.finfo(np.float64).eps)) * found,
        "brier": ((filled**2).sum(1) - 2 * of_truth + 1) * found,
        "gaps": gaps,
        "cells": cells,
    }
    return columns, cells.sum(0).astype(np.int64)


def _expression_figures(sums: dict[str, Floats]) -> dict[str, Floats]:
    cells = sums["cells"]  # (R, C, C + 1)
    hits, support, chosen = cells.diagonal(0, 1, 2), cells.sum(2), cells[:, :, :-1].sum(1)
    present, predictions = support > 0, chosen.sum(1)
    recall, f1 = _ratio(hits, support), _ratio(2 * hits, support + chosen)
    return {
        "accuracy": _ratio(hits.sum(1), support.sum(1)),
        "balanced_accuracy": _ratio(np.where(present, recall, 0).sum(1), present.sum(1)),
        "macro_f1": _ratio(np.where(present, f1, 0).sum(1), present.sum(1)),
        "nll": _ratio(sums["likelihood"], predictions),
        "brier": _ratio(sums["brier"], predictions),
        "ece": _ratio(abs(sums["gaps"]).sum(1), predictions),
    }


def _per_class(confusion: NDArray[np.int64]) -> dict[str, dict[str, float | int | None]]:
    hits, support, chosen = confusion.diagonal(), confusion.sum(1), confusion[:, :-1].sum(0)
    columns = {
        "n": support,
        "precision": _ratio(hits, chosen),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + chosen),
    }
    return {
        label: {name: _number(column[c]) for name, column in columns.items()}
        for c, label in enumerate(EXPRESSIONS)
    }


def keypoint_metrics(
    truth: Floats,
    predicted: Floats,
    sigma: Floats,
    crop_sides: Floats,
    *,
    seed: int = 0,
) -> KeypointMetrics:
    """Compare predicted with labelled keypoints.

    Parameters
    ----------
    truth : (N, 15, 2) float, image pixels; NaN where a point is not labelled
    predicted : (N, 15, 2) float, image pixels; NaN where no face was found
    sigma : (N, 15) float, expected errors, image pixels
    crop_sides : (N,) float
        Side of the picture or crop that is 96 pixels wide for `rmse_96`, image pixels.
    seed : int
        Of the bootstrap over rows.

    Returns
    -------
    KeypointMetrics
    """
    found, scale = detected(predicted), eye_distances(truth)
    distance = np.linalg.norm(predicted.astype(np.float64) - truth, axis=-1)  # (N, 15)
    relative = distance / scale[:, None]
    per_point = _ratio(np.nansum(relative, 0), (~np.isnan(relative)).sum(0))
    columns = _keypoint_columns(
        distance, sigma, normalized_errors(truth, predicted), np.asarray(crop_sides, np.float64)
    )
    estimates, intervals = bootstrap(columns, _keypoint_figures, seed)
    return KeypointMetrics(
        n=len(truth),
        undetected=int((~found).sum()),
        n_normalized=int((~np.isnan(scale)).sum()),
        **estimates,
        per_point={name: _number(per_point[k]) for k, name in enumerate(KEYPOINTS)},
        ci95=intervals,
    )


def _keypoint_columns(
    distance: Floats, sigma: Floats, errors: Floats, crop_sides: Floats
) -> dict[str, Floats]:
    """Give what each face adds to the sums; `errors` (N,) are as `normalized_errors` gives them."""
    known = ~np.isnan(distance)
    length = np.where(known, distance, 0)
    finite = np.isfinite(errors)
    return {
        "errors": np.where(finite, errors, 0),
        "finite": finite,
        "normalized": ~np.isnan(errors),
        "failed": errors > FAILURE,
        # The area under the cumulative curve of one face is what its error leaves of the limit.
        "area": np.where(finite, 1 - np.where(finite, errors, 0) / FAILURE, 0).clip(0),
        "squares": ((length * (96 / crop_sides)[:, None]) ** 2).sum(1),
        "points": known.sum(1),
        "within_68": (known & (length <= laplace_radius(0.68) * sigma)).sum(1),
        "within_95": (known & (length <= laplace_radius(0.95) * sigma)).sum(1),
    }


def _keypoint_figures(sums: dict[str, Floats]) -> dict[str, Floats]:
    return {
        "nme": _ratio(sums["errors"], sums["finite"]),
        "rmse_96": np.sqrt(_ratio(sums["squares"], 2 * sums["points"])),
        "failure_rate_08": _ratio(sums["failed"], sums["normalized"]),
        "auc_08": _ratio(sums["area"], sums["normalized"]),
        "coverage_68": _ratio(sums["within_68"], sums["points"]),
        "coverage_95": _ratio(sums["within_95"], sums["points"]),
    }


def detected(predictions: Floats) -> NDArray[np.bool_]:
    """Tell which rows (N,) of predictions (N, ...) are of a face that was found: those without NaN."""
    return np.asarray(~np.isnan(predictions).any(tuple(range(1, predictions.ndim))))


def eye_distances(points: Floats) -> Floats:
    """Give the distances (N,) of the outer eye corners of points (N, 15, 2); NaN where one is missing."""
    left, right = OUTER_EYE_CORNERS
    distance = np.linalg.norm(np.asarray(points[:, left] - points[:, right], np.float64), axis=-1)
    return np.where(distance > 0, distance, np.nan)


def normalized_errors(truth: Floats, predicted: Floats) -> Floats:
    """Give each face's mean distance over its labelled points by the distance of its outer eye corners.

    Parameters
    ----------
    truth, predicted : (N, 15, 2) float, image pixels
        NaN where a point is not labelled, or no face was found.

    Returns
    -------
    (N,) float64
        Infinite where no face was found; NaN where an outer eye corner is not labelled.
    """
    distance = np.linalg.norm(predicted.astype(np.float64) - truth, axis=-1)
    known = ~np.isnan(distance)
    errors = _ratio(np.where(known, distance, 0).sum(1), known.sum(1)) / eye_distances(truth)
    return np.where(~detected(predicted) & ~np.isnan(eye_distances(truth)), np.inf, errors)


def laplace_share(radius: Any) -> Any:
    """Give the share of errors within radii that are in units of sigma.

    Errors follow p(e) ~ exp(-|e| / b) in the plane, and sigma is their mean length 2b.
    """
    return 1 - (1 + 2 * radius) * np.exp(-2 * radius)


def laplace_radius(share: float) -> float:
    """Give the radius, in units of sigma, that holds a share of the errors; see `laplace_share`."""
    low, high = 0.0, 50.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if laplace_share(middle) < share else (low, middle)
    return low


def confidence_bins(probabilities: Floats) -> NDArray[np.int64]:
    """Give the bin (N,) of 0..BINS-1 that the top probability of each row (N, C) falls into."""
    return np.asarray((probabilities.max(1) * BINS).astype(np.int64).clip(0, BINS - 1))


def reliability(truth: NDArray[np.integer[Any]], probabilities: Floats) -> tuple[Floats, Floats, Floats]:
    """Give the reliability diagram of rows that have a prediction.

    Parameters
    ----------
    truth : (N,) int
    probabilities : (N, C) float; rows with NaN are left out

    Returns
    -------
    counts, confidence, accuracy : (BINS,) float
        Rows a bin, their mean top probability and share of right ones; NaN in empty bins.
    """
    found = detected(probabilities)
    truth, probabilities = truth[found], probabilities[found]
    bins = confidence_bins(probabilities)
    counts = np.bincount(bins, minlength=BINS)
    confidence = np.bincount(bins, probabilities.max(1), minlength=BINS)
    hits = np.bincount(bins, probabilities.argmax(1) == truth, minlength=BINS)
    return counts.astype(np.float64), _ratio(confidence, counts), _ratio(hits, counts)


def cumulative_distribution(errors: Floats) -> tuple[Floats, Floats]:
    """Give the cumulative error distribution: sorted finite errors, and the share of all at or below each.

    Parameters
    ----------
    errors : (N,) float
        As of `normalized_errors`: infinite errors count among all, NaN does not.
    """
    counted = np.sort(errors[~np.isnan(errors)])
    finite = counted[np.isfinite(counted)]
    return finite, np.arange(1, len(finite) + 1) / max(len(counted), 1)


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """Give the chance that a positive row scores above a negative one; None if there are none of either.

    Ties count half.
    """
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return None
    _, inverse, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def precision_at(scores: Floats, positive: NDArray[np.bool_], k: int) -> float | None:
    """Give the share of positive rows among the k that score highest; None if there are fewer than k rows."""
    if len(scores) < k:
        return None
    return float(positive[np.argsort(-scores, kind="stable")[:k]].mean())


def bootstrap(
    columns: Mapping[str, NDArray[Any]],
    figures: Callable[[dict[str, Floats]], dict[str, Floats]],
    seed: int = 0,
    replicates: int = REPLICATES,
) -> tuple[dict[str, Any], dict[str, Interval]]:
    """Give figures and their 95% intervals from resampled rows.

    The percentiles are shifted by the bootstrap's bias, which for the calibration error is as large as the
    interval.

    Parameters
    ----------
    columns : mapping of str to (N, ...) float
        What each row adds to each sum.
    figures : callable
        From sums (R, ...) by name to figures (R,) by name, NaN where undefined.
    seed, replicates : int

    Returns
    -------
    estimates : dict of str to float or None
    intervals : dict of str to (low, high)
        Only of figures that are defined.
    """
    sizes = [int(np.prod(column.shape[1:])) for column in columns.values()]
    flat = [column.reshape(len(column), size) for column, size in zip(columns.values(), sizes, strict=True)]
    rows = np.concatenate(flat, 1, dtype=np.float64)

    def of(sums: Floats) -> dict[str, Floats]:
        parts = zip(columns.items(), np.split(sums, np.cumsum(sizes)[:-1], 1), strict=True)
        return figures({name: part.reshape(-1, *column.shape[1:]) for (name, column), part in parts})

    estimates = {name: _number(values[0]) for name, values in of(rows.sum(0, keepdims=True)).items()}
    drawn = [of(weights @ rows) for weights in _resampled(len(rows), seed, replicates)]
    intervals = {}
    for name, estimate in estimates.items():
        if estimate is None or not drawn:
            continue
        values = np.concatenate([part[name] for part in drawn])
        values = values[~np.isnan(values)]
        low, high = np.quantile(values, (0.025, 0.975)) - (values.mean() - estimate)
        intervals[name] = (max(float(low), 0.0), min(float(high), max(float(values.max()), estimate)))
    return estimates, intervals


def _resampled(count: int, seed: int, replicates: int) -> Iterator[Floats]:
    """Give how often each row is drawn (R, N), block by block."""
    random = np.random.default_rng(seed)
    block = max(1, min(replicates, _BLOCK // max(count, 1)))
    for start in range(0, replicates if count else 0, block):
        drawn = random.integers(count, size=(min(block, replicates - start), count))
        yield np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)


def _ratio(part: Any, whole: Any) -> Floats:
    """Divide, with NaN for nothing over nothing."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    empty = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.asarray(np.divide(part, whole, out=empty, where=whole > 0))


def _number(value: Any) -> float | int | None:
    if isinstance(value, np.integer):
        return int(value)
    return None if np.isnan(value) else float(value)


def _jsonable(value: Any) -> Any:
    """Turn arrays and tuples into lists, also inside of dicts."""
    if isinstance(value, dict):
        return {name: _jsonable(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return value.tolist() if isinstance(value, np.ndarray) else value
