"""Both models held against a dataset's labels: every prediction, the most suspect labels, and the faults."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry, metrics, plots, suspects
from facekit.analyzer import FaceAnalyzer
from facekit.data.catalog import load_dataset
from facekit.data.faults import FaultFinder
from facekit.data.fer2013 import join_ferplus
from facekit.data.reading import read_ahead
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.evaluation import Evaluation, choose_samples, default_boxes, measure
from facekit.journal import FILE, Journal
from facekit.predictions import Boxes, Predictions, Predictor, Progress
from facekit.reference import Reference, judge, voted_expressions
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS, MEAN_FACE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

SUMMARY = "summary.json"
UNDETECTED = "undetected"
OTHER_LABEL = "label_outside_model"

SECOND_OPINION = "ferplus"
"""The expression head that is asked how far a label can be trusted: it learnt the votes of ten taggers a
picture, not one label. On FER2013 rows held out of training it ranks rejected and planted labels better than
the default head or a mean of both."""

NEAR = 0.05
"""A point this near, in distances of the outer eye corners, counts as right for a confidence in keypoints."""

PORTRAIT_SIZES = (48, 160)
PORTRAIT_MARGIN = 1.1

SAMPLES = 24
"""That are shown where none are named."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Suspects:
    """The M labels of a dataset, most suspect first, as columns.

    Attributes
    ----------
    places : (M,) int64, the sample in the dataset
    tasks : (M,) object, "expression" or "keypoints"
    scores : (M,) float, 0..1, most suspect 1; see suspects.self_confidence and suspects.point_scores
    confidence : (M,) float, 0..1, NaN where no face was found
        The prediction's probability; for keypoints the mean probability, by sigma, that a point lies within
        NEAR of its place.
    flagged : (M,) bool
    patterns : (M,) object of str
        What gave the label away; UNDETECTED or OTHER_LABEL where it could not be scored, which scores 0.
    """

    places: NDArray[np.int64]
    tasks: NDArray[Any]
    scores: NDArray[np.float64]
    confidence: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    patterns: NDArray[Any]

    def __len__(self) -> int:
        """Give the number M of labels."""
        return len(self.places)


@dataclass(frozen=True)
class CrossCheck:
    """What holding both models against a dataset found.

    Attributes
    ----------
    evaluation : Evaluation
    suspects : Suspects
    faults : dict
        Kind to n, rows and, for some kinds, more; see data.faults.
    reference : Reference or None
    journal : Path or None
        The file in which the predictions stand already.
    """

    evaluation: Evaluation
    suspects: Suspects
    faults: dict[str, dict[str, Any]]
    reference: Reference | None
    journal: Path | None = None

    @property
    def dataset(self) -> Dataset:
        """The samples that could be read."""
        return self.evaluation.dataset

    def to_dict(self) -> dict[str, Any]:
        """Give the object of summary.json."""
        return {
            **self.evaluation.to_dict(),
            "suspects": {"n": len(self.suspects), "flagged": int(self.suspects.flagged.sum())},
            "faults": self.faults,
            "reference": None if self.reference is None else vars(self.reference),
        }

    def to_json(self) -> str:
        """Give `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Give the rows of suspects.csv."""
        dataset, predictions, errors = self.dataset, self.evaluation.predictions, self.evaluation.errors
        found = self.suspects
        for rank, place in enumerate(found.places):
            row = {"rank": rank + 1, "index": int(dataset.rows[place]), "source": dataset.sources[place]}
            row |= {"split": dataset.splits[place], "task": found.tasks[rank]}
            detected = not np.isnan(predictions.box_scores[place])
            if found.tasks[rank] == "expression":
                assert dataset.labels is not None
                predicted = EXPRESSIONS[int(predictions.scores[place].argmax())] if detected else None
                row |= {"label": dataset.labels[place], "predicted": predicted}
            else:
                assert dataset.points is not None
                count = int((~np.isnan(dataset.points[place, :, 0])).sum())
                nme = f"nme {errors[place]:.4f}" if np.isfinite(errors[place]) else None
                row |= {"label": f"{count} points", "predicted": nme}
            confidence = found.confidence[rank]
            row["score"] = round(float(found.scores[rank]), 6)
            row["confidence"] = None if np.isnan(confidence) else round(float(confidence), 6)
            row["pattern"] = found.patterns[rank]
            yield row

    def to_frame(self) -> DataFrame:
        """Give the table of suspects.csv with a column `flagged`."""
        from pandas import DataFrame

        return DataFrame(list(self.rows())).assign(flagged=self.suspects.flagged)

    def plot_confusion(self) -> Figure:
        """See Evaluation."""
        return self.evaluation.plot_confusion()

    def plot_reliability(self) -> Figure:
        """See Evaluation."""
        return self.evaluation.plot_reliability()

    def plot_ced(self) -> Figure:
        """See Evaluation."""
        return self.evaluation.plot_ced()

    def plot_mean_face(self) -> Figure:
        """Draw each keypoint's mean error, and its mean offset, on the mean face.

        Raises
        ------
        DatasetError
            There are no points.
        """
        lengths, offsets = self.mean_face_errors()
        figures = self.evaluation.keypoints
        shares = figures.per_point.values() if figures else ()
        texts = ["" if share is None else f"{share:.1%}" for share in shares]
        return plots.mean_face(np.array(MEAN_FACE), lengths, offsets, texts)

    def plot_samples(self, places: Sequence[int] | None = None) -> Figure:
        """Draw samples with labelled and predicted points: those at `places`, or some at random."""
        chosen = random_places(len(self.dataset)) if places is None else places
        portraits = [self.portrait(place) for place in chosen]
        pictures, labelled, predicted = zip(*portraits, strict=True)
        titles = [str(self.dataset.sources[place]) for place in chosen]
        return plots.samples(pictures, np.array(labelled), np.array(predicted), titles)

    def portrait(self, place: int) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
        """Cut out a sample's face, or show its whole picture if that is the face or none was found.

        Returns
        -------
        picture : (S, S) or (S, S, 3) uint8
        labelled, predicted : (15, 2) float64
            Pixels of the picture, centres at integers; NaN where there is no point.
        """
        predictions, points = self.evaluation.predictions, self.dataset.points
        predicted = predictions.points[place].astype(np.float64)
        labelled = np.full_like(predicted, np.nan) if points is None else points[place].astype(np.float64)
        image = self.dataset.load(place)
        square = geometry.square(np.array([0, 0, image.shape[1], image.shape[0]], np.float64))
        if points is not None or self.dataset.whole_pictures:
            square = _around(predictions.boxes[place], np.concatenate([predicted, labelled]), square)
        size = int(np.clip(square[2] - square[0], *PORTRAIT_SIZES))
        image_from_portrait = geometry.crop(square, size)
        portrait_from_image = geometry.invert(image_from_portrait)
        return (
            geometry.warp_picture(image, image_from_portrait, size),
            geometry.apply(portrait_from_image, labelled),
            geometry.apply(portrait_from_image, predicted),
        )

    def mean_face_errors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give each keypoint's mean error (15,) and mean offset (15, 2) from its label, on the mean face.

        Raises
        ------
        DatasetError
            There are no points.
        """
        dataset, predictions = self.dataset, self.evaluation.predictions
        if dataset.points is None:
            raise DatasetError(f"{self.evaluation.path}: has no keypoints, so there is nothing to draw")
        found = metrics.detected(predictions.points)
        errors, _ = suspects.face_frame_errors(
            dataset.points[found], predictions.points[found], predictions.sigma[found]
        )
        known = ~np.isnan(errors)
        count = np.where(known.any(0), known.sum(0), np.nan)
        lengths = np.where(known[..., 0], np.linalg.norm(errors, axis=-1), 0).sum(0) / count[:, 0]
        return lengths, -np.where(known, errors, 0).sum(0) / count


def crosscheck(
    dataset: Dataset | str | Path,
    *,
    out: str | Path | None = None,
    reference: str | Path | None = None,
    out_of_fold: str | Path | None = None,
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
) -> CrossCheck:
    """Run both models on every sample and find the labels that are probably wrong.

    Parameters
    ----------
    dataset : Dataset or path
    out : path, optional
        Folder in which predictions.jsonl grows, and from which an interrupted run goes on; a finished run
        there (one with a summary.json) is made anew. `report.write_report` writes everything else.
    reference : path, optional
        FER+'s ``fer2013new.csv``, against which the suspect scores are judged.
    out_of_fold : path, optional
        ``folds.npz`` of a training by folds: its predictions replace the expression model's own, in figures
        and suspects alike, where it has a row.
    weights, format, split, boxes, tta, limit, head, device, detector, seed, strict, analyzer, progress
        See evaluation.evaluate.

    Returns
    -------
    CrossCheck

    Raises
    ------
    DatasetError, WeightsError, DetectorError, ConfigError
    """
    samples = dataset if isinstance(dataset, Dataset) else load_dataset(dataset, format, strict=strict)
    chosen = choose_samples(samples, split=split, limit=limit, seed=seed)
    if reference is not None:
        chosen = join_ferplus(chosen, reference)
    analyzer = analyzer or FaceAnalyzer(device, detector, weights=weights, backend="torch")
    heads = analyzer.backend.header["model"]["heads"]
    second = SECOND_OPINION if head is None and SECOND_OPINION in heads else None
    predictor = Predictor(analyzer, boxes or default_boxes(chosen), head or DEFAULT_HEAD, tta, second=second)
    finder = FaultFinder(chosen)
    predictions = _predict(chosen, predictor, None if out is None else Path(out), strict, progress, finder)
    if out_of_fold is not None:
        _replace(predictions, chosen, Path(out_of_fold))
    path = str(dataset.path if isinstance(dataset, Dataset) else dataset)
    evaluation = measure(chosen, predictions, predictor, path, split, seed)
    found = _suspects(evaluation)
    return CrossCheck(
        evaluation=evaluation,
        suspects=found,
        faults=finder.faults(),
        reference=None if reference is None else _judge(evaluation, found),
        journal=None if out is None else Path(out) / FILE,
    )


def random_places(count: int) -> list[int]:
    """Choose samples to look at: the same ones each time, in order."""
    chosen = np.random.default_rng(0).choice(count, min(SAMPLES, count), replace=False)
    return [int(place) for place in np.sort(chosen)]


def _around(
    box: NDArray[np.float32], points: NDArray[np.float64], otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give the square (4,), image edges, around a face's box and points, or another one without a face."""
    if np.isnan(box).any():
        return otherwise
    edges = np.stack([box.astype(np.float64), geometry.box_around(points[~np.isnan(points).any(1)])])
    return np.asarray(geometry.square(np.concatenate([edges.min(0)[:2], edges.max(0)[2:]]), PORTRAIT_MARGIN))


def _predict(
    dataset: Dataset,
    predictor: Predictor,
    out: Path | None,
    strict: bool,
    progress: Progress | None,
    finder: FaultFinder,
) -> Predictions:
    """Predict every sample while its faults are looked for; with `out`, go on from what lies there."""
    predictions = Predictions.empty(len(dataset))
    if out is None:
        predictor.fill(predictions, dataset, strict=strict, progress=progress, look=finder.see)
        return predictions
    journal = Journal(out, dataset, predictor)
    if (out / SUMMARY).exists():
        (out / SUMMARY).unlink()
        journal.path.unlink(missing_ok=True)
    done = journal.read(predictions)
    if done.any():
        _log.info("%s: going on after %d of %d samples", journal.path, done.sum(), len(dataset))
        for place, picture in read_ahead(dataset, np.flatnonzero(done)):
            finder.see(place, picture)
    with journal:
        predictor.fill(
            predictions, dataset, ~done, strict=strict, progress=progress, keep=journal.write, look=finder.see
        )
    return predictions


def _replace(predictions: Predictions, dataset: Dataset, file: Path) -> None:
    """Put out-of-fold probabilities in the place of the model's own where a file has the row."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            known = dict(zip(stored["keys"].tolist(), stored["probabilities"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{file}: expected the folds.npz of `facekit train --folds`: {error}") from error
    replaced = 0
    for place, row in enumerate(dataset.rows):
        probabilities = known.get(f"{dataset.name}:{row}")
        if probabilities is not None:
            predictions.scores[place], predictions.second[place] = probabilities, np.nan
            replaced += 1
    if not replaced:
        raise DatasetError(f"{file}: holds no row of {dataset.name}; give the file of a training on this set")
    _log.info("%s: %d of %d samples have predictions out of fold", file, replaced, len(dataset))


def _suspects(evaluation: Evaluation) -> Suspects:
    parts = [_suspect_expressions(evaluation), _suspect_points(evaluation)]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(-columns[2], kind="stable")
    return Suspects(*(column[order] for column in columns))


def _suspect_expressions(evaluation: Evaluation) -> tuple[NDArray[Any], ...]:
    labels = evaluation.dataset.labels
    labelled = [] if labels is None else [label is not None for label in labels]
    places = np.flatnonzero(labelled)
    truth, predictions = evaluation.truth[places], evaluation.predictions.select(places)
    alone = np.isnan(predictions.second).any(1, keepdims=True)
    probabilities = np.where(alone, predictions.scores, predictions.second)
    known = (truth >= 0) & metrics.detected(probabilities)
    scores, flagged = np.zeros(len(places)), np.zeros(len(places), np.bool_)
    scores[known] = suspects.self_confidence(truth[known], probabilities[known])
    flagged[known] = suspects.confidently_other(truth[known], probabilities[known])
    patterns = np.where(known, "", np.where(truth >= 0, UNDETECTED, OTHER_LABEL)).astype(object)
    tasks = np.full(len(places), "expression", object)
    return places, tasks, scores, predictions.scores.max(1, initial=0.0), flagged, patterns


def _suspect_points(evaluation: Evaluation) -> tuple[NDArray[Any], ...]:
    dataset, predictions = evaluation.dataset, evaluation.predictions
    labelled = np.full((len(dataset), 1), np.nan) if dataset.points is None else dataset.points[..., 0]
    places = np.flatnonzero(~np.isnan(labelled).all(1))
    scores, flagged = np.zeros(len(places)), np.zeros(len(places), np.bool_)
    patterns = np.full(len(places), UNDETECTED, object)
    known = metrics.detected(predictions.points[places])
    found = places[known]
    if dataset.points is not None and len(found):
        scores[known], flagged[known], patterns[known] = suspects.point_scores(
            dataset.points[found], predictions.points[found], predictions.sigma[found]
        )
    reach = metrics.eye_distances(predictions.points[places])[:, None] * NEAR
    confidence = metrics.laplace_share(reach / predictions.sigma[places]).mean(1)
    return places, np.full(len(places), "keypoints", object), scores, confidence, flagged, patterns


def _judge(evaluation: Evaluation, found: Suspects) -> Reference:
    votes = evaluation.dataset.votes
    if votes is None:
        raise DatasetError(f"{evaluation.path}: has no votes to judge suspect labels by; give a reference")
    scores = np.zeros(len(evaluation.dataset))
    expressions = found.tasks == "expression"
    scores[found.places[expressions]] = found.scores[expressions]
    return judge(evaluation.truth, scores, voted_expressions(votes))
