"""How good predictions are: the predictions of a model held against the labels of a dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facekit import metrics, plots
from facekit.analyzer import FaceAnalyzer
from facekit.data.catalog import load_dataset
from facekit.data.samples import Dataset, Skipped
from facekit.errors import ConfigError, DatasetError
from facekit.predictions import Boxes, Predictions, Predictor, Progress
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS, KEYPOINTS
from facekit.weights import seen_by

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Evaluation:
    """Predictions held against labels.

    Attributes
    ----------
    dataset : Dataset
        The N samples that could be read.
    predictions : Predictions
        Of the same samples.
    path : str
        The dataset's path as given.
    split : str or None
    weights, head : str
    boxes : "labels" or "detector"
    tta : bool
    skipped : tuple of Skipped
        Rows that were left out.
    seen : (N,) bool or None
        Whose picture, to the last pixel, was in the weights' training data; None: nothing tells.
    expression : ExpressionMetrics or None
        None where the dataset has no expression labels.
    keypoints : KeypointMetrics or None
        None where the dataset has no points.
    """

    dataset: Dataset
    predictions: Predictions
    path: str
    split: str | None
    weights: str
    head: str
    boxes: Boxes
    tta: bool
    skipped: tuple[Skipped, ...]
    seen: NDArray[np.bool_] | None
    expression: metrics.ExpressionMetrics | None
    keypoints: metrics.KeypointMetrics | None

    def to_dict(self) -> dict[str, Any]:
        """Give the object of `facekit evaluate --json`."""
        return {
            "dataset": self.path,
            "format": self.dataset.format,
            "split": self.split,
            "n": len(self.dataset),
            "weights": self.weights,
            "head": self.head,
            "boxes": self.boxes,
            "tta": self.tta,
            "seen_in_training": None if self.seen is None else int(self.seen.sum()),
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "expression": self.expression.to_dict() if self.expression else None,
            "keypoints": self.keypoints.to_dict() if self.keypoints else None,
        }

    def to_json(self) -> str:
        """Give `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_frame(self) -> DataFrame:
        """Give a table of one row a sample; see `sample_rows`."""
        from pandas import DataFrame

        return DataFrame(list(sample_rows(self.dataset, self.predictions)))

    @property
    def truth(self) -> NDArray[np.int64]:
        """The label (N,) of each sample as an index of schema.EXPRESSIONS; -1 where it is none of them."""
        return expression_indices(self.dataset.labels, len(self.dataset))

    @property
    def errors(self) -> NDArray[np.float64]:
        """The NME (N,) of each sample; infinite where no face was found, NaN without labelled eye corners."""
        return point_errors(self.dataset, self.predictions)

    def plot_confusion(self) -> Figure:
        """Draw the confusion matrix.

        Raises
        ------
        DatasetError
            There are no expression labels; likewise below.
        """
        expression = self._needed(self.expression, "expression labels")
        return plots.confusion(expression.confusion, expression.labels)

    def plot_reliability(self) -> Figure:
        """Draw how often predictions are right against how sure they are."""
        self._needed(self.expression, "expression labels")
        known = self.truth >= 0
        return plots.reliability(*metrics.reliability(self.truth[known], self.predictions.scores[known]))

    def plot_ced(self) -> Figure:
        """Draw the cumulative distribution of the keypoint errors."""
        self._needed(self.keypoints, "keypoints")
        return plots.cumulative(*metrics.cumulative_distribution(self.errors), limit=metrics.FAILURE)

    def _needed(self, figures: Any, what: str) -> Any:
        if figures is None:
            raise DatasetError(f"{self.path}: has no {what}, so there is nothing to draw")
        return figures


def evaluate(
    dataset: Dataset | str | Path,
    *,
    weights: str = "default",
    format: str = "auto",
    split: str | None = None,
    boxes: Boxes | None = None,
    tta: bool = False,
    limit: int | None = None,
    head: str | None = None,
    device: str = "auto",
    detector: str = "auto",
    seed: int = 0,
    strict: bool = False,
    analyzer: FaceAnalyzer | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure how well a model's predictions fit the labels of a dataset.

    Parameters
    ----------
    dataset : Dataset or path
    weights : str
        A shipped name or a file.
    format : str
        One of the formats of data.catalog, or auto.
    split : str, optional
        Only rows of this split, by its canonical or native name.
    boxes : "labels" or "detector", optional
        Where the face's box comes from; None: the detector for whole pictures without labelled points or
        boxes, else labels.
    tta : bool
        Mean over the picture and its mirror.
    limit : int, optional
        A random choice of this many rows, by `seed`.
    head : str, optional
        Expression head; its classes beyond the seven are left aside.
    device, detector : str
        See FaceAnalyzer.
    seed : int
        Of the bootstrap and of `limit`.
    strict : bool
        Raise at the first row that cannot be read, instead of leaving it out.
    analyzer : FaceAnalyzer, optional
        Used instead of `weights`, `device` and `detector`.
    progress : callable, optional

    Returns
    -------
    Evaluation

    Raises
    ------
    DatasetError, WeightsError, DetectorError, ConfigError
    """
    chosen = choose_samples(dataset, format, split, limit, seed, strict)
    analyzer = analyzer or FaceAnalyzer(device, detector, weights=weights, backend="torch")
    predictor = Predictor(analyzer, boxes or default_boxes(chosen), head or DEFAULT_HEAD, tta)
    _check_tasks(chosen, predictor)
    predictions = Predictions.empty(len(chosen))
    predictor.fill(predictions, chosen, strict=strict, progress=progress)
    path = str(dataset.path if isinstance(dataset, Dataset) else dataset)
    return measure(chosen, predictions, predictor, path, split, seed)


def choose_samples(
    dataset: Dataset | str | Path,
    format: str = "auto",
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    strict: bool = False,
) -> Dataset:
    """Read a dataset's labels and choose rows; see `evaluate`."""
    samples = dataset if isinstance(dataset, Dataset) else load_dataset(dataset, format, strict=strict)
    if split is not None:
        samples = samples.split(split)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}: expected at least 1")
    if limit is not None and limit < len(samples):
        chosen = np.random.default_rng(seed).choice(len(samples), limit, replace=False)
        samples = samples.select(np.sort(chosen))
    return samples


def default_boxes(dataset: Dataset) -> Boxes:
    """Give where face boxes come from unless told: labels if there are any or the picture is the face."""
    unmarked = dataset.points is None and dataset.boxes is None
    return "detector" if dataset.whole_pictures and unmarked else "labels"


def measure(
    dataset: Dataset,
    predictions: Predictions,
    predictor: Predictor,
    path: str,
    split: str | None,
    seed: int,
) -> Evaluation:
    """Hold predictions against the labels of the same samples; unreadable ones move to `skipped`."""
    unread: NDArray[np.bool_] = np.array([error is not None for error in predictions.errors], np.bool_)
    skipped = dataset.skipped + tuple(
        Skipped(int(dataset.rows[k]), str(dataset.sources[k]), str(predictions.errors[k]))
        for k in np.flatnonzero(unread)
    )
    if unread.any():
        dataset, predictions = dataset.select(~unread), predictions.select(~unread)
    trained = seen_by(predictor.analyzer.weights)
    return Evaluation(
        dataset=dataset,
        predictions=predictions,
        path=path,
        split=split,
        weights=predictor.analyzer.backend.name,
        head=predictor.head,
        boxes=predictor.boxes,
        tta=predictor.tta,
        skipped=tuple(sorted(skipped, key=lambda row: row.row)),
        seen=None if trained is None else np.isin(predictions.hashes, trained),
        expression=_expression_metrics(dataset, predictions, predictor, seed),
        keypoints=_keypoint_metrics(dataset, predictions, predictor, seed),
    )


def _check_tasks(dataset: Dataset, predictor: Predictor) -> None:
    """Refuse weights of one task for a dataset that has only the other's labels."""
    labelled = {"expression": dataset.labels is not None, "keypoints": dataset.points is not None}
    present = {task for task, there in labelled.items() if there}
    if present and not present & predictor.tasks:
        raise ConfigError(
            f"weights {predictor.analyzer.backend.name} are for {' and '.join(sorted(predictor.tasks))}, but "
            f"{dataset.path} has labels for {' and '.join(sorted(present))} only"
        )


def _expression_metrics(
    dataset: Dataset, predictions: Predictions, predictor: Predictor, seed: int
) -> metrics.ExpressionMetrics | None:
    if dataset.labels is None or "expression" not in predictor.tasks:
        return None
    truth = expression_indices(dataset.labels, len(dataset))
    # What a network of fewer classes cannot say is reported apart, as contempt is for one of seven.
    known = np.isin(dataset.labels.astype(str), predictor.classes)
    others = Counter(str(label) for label in dataset.labels[~known] if label is not None)
    return metrics.expression_metrics(
        truth[known], predictions.scores[known], other_labels=dict(others.most_common()), seed=seed
    )


def _keypoint_metrics(
    dataset: Dataset, predictions: Predictions, predictor: Predictor, seed: int
) -> metrics.KeypointMetrics | None:
    if dataset.points is None or "keypoints" not in predictor.tasks:
        return None
    known = np.asarray(~np.isnan(dataset.points).all((1, 2)))
    truth, found = dataset.points[known], predictions.select(known)
    sides = found.sizes.max(1).astype(np.float64)
    if dataset.format != "kaggle_keypoints":  # Kaggle's pictures are the 96x96 crops themselves
        crops = predictor.label_crops(truth)
        sides = np.where(metrics.detected(crops), crops[:, 2] - crops[:, 0], sides)
    return metrics.keypoint_metrics(truth, found.points, found.sigma, sides, seed=seed)


def expression_indices(labels: NDArray[Any] | None, count: int) -> NDArray[np.int64]:
    """Give labels (N,) as indices of schema.EXPRESSIONS, -1 where they are none of them."""
    index = {label: c for c, label in enumerate(EXPRESSIONS)}
    if labels is None:
        return np.full(count, -1, np.int64)
    return np.array([index.get(label, -1) for label in labels.tolist()], np.int64)


def point_errors(dataset: Dataset, predictions: Predictions) -> NDArray[np.float64]:
    """Give each sample's NME (N,); see metrics.normalized_errors."""
    if dataset.points is None:
        return np.full(len(dataset), np.nan)
    return np.asarray(metrics.normalized_errors(dataset.points, predictions.points), np.float64)


def sample_rows(dataset: Dataset, predictions: Predictions) -> Iterator[dict[str, Any]]:
    """Give one flat row a sample: source and label, what was predicted, and how far the points lie off.

    Coordinates are image pixels, rounded to .01; what is not there is None.
    """
    errors = point_errors(dataset, predictions)
    for k in range(len(dataset)):
        found, scores = predictions.box_scores[k], predictions.scores[k]
        top = None if np.isnan(scores[0]) else int(scores.argmax())
        row = {
            "index": int(dataset.rows[k]),
            "source": dataset.sources[k],
            "split": dataset.splits[k],
            "label": None if dataset.labels is None else dataset.labels[k],
            "predicted": None if top is None else EXPRESSIONS[top],
            "confidence": None if top is None else round(float(scores[top]), 6),
            "nme": round(float(errors[k]), 6) if np.isfinite(errors[k]) else None,
            "detected": not np.isnan(found),
            "score": _rounded(found, 4),
        }
        row |= {
            name: _rounded(value, 2)
            for name, value in zip(("x0", "y0", "x1", "y1"), predictions.boxes[k], strict=True)
        }
        row |= {label: _rounded(value, 6) for label, value in zip(EXPRESSIONS, scores, strict=True)}
        for name, (x, y), sigma in zip(KEYPOINTS, predictions.points[k], predictions.sigma[k], strict=True):
            row |= {
                f"{name}_x": _rounded(x, 2),
                f"{name}_y": _rounded(y, 2),
                f"{name}_sigma": _rounded(sigma, 3),
            }
        yield row


def _rounded(value: Any, decimals: int) -> float | None:
    return None if np.isnan(value) else round(float(value), decimals)
