"""How right the weights are on labelled data that they were not trained on, with 95% bootstrap intervals.

FER2013's PublicTest as `evaluate` sees it, averaged with its mirror, without the pictures that stand in
Training too, and in one crop of each picture instead of two, the picture as it is, alone and with its mirror;
the Helen faces that the weights' header lists as held out, the same with boxes moved and scaled by up to 5%,
shrunk until those boxes are small, and turned; muxspace's whole pictures, detector to expression; RAF-DB's
faces, unless the weights saw that set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import FaceAnalyzer, evaluate, geometry
from facekit.backends import Backend
from facekit.benchmarking.measuring import Case, Figure, Setting, UnavailableError
from facekit.data.catalog import load_dataset
from facekit.data.holdout import content_hash, held_out
from facekit.data.label_boxes import label_boxes
from facekit.data.samples import Dataset
from facekit.evaluation import Evaluation, expression_indices
from facekit.expression import find_expressions
from facekit.geometry import Floats
from facekit.images import to_gray
from facekit.metrics import expression_metrics, keypoint_metrics, reliability
from facekit.mirror import mirroring_matrix
from facekit.schema import ALIGNED_SIZE, BOX_FACTOR, DEFAULT_HEAD
from facekit.weights import seen_by

JITTER = 0.05
SMALL = (32, 24)
"""Sides of small faces' boxes, as facekit's own detector draws them, pixels."""

TURNED = (20, 40)
"""By how much faces are turned, degrees, every other one to the left."""

FEW = 200
TOGETHER = 256
KEPT = ("format", "split", "n", "boxes", "tta", "weights", "expression", "keypoints")


def cases(setting: Setting) -> list[Case]:
    """Give every set."""
    measures: list[tuple[str, float, Callable[[Setting], dict[str, Any]]]] = [
        ("FER2013 PublicTest", 40, partial(_fer2013, tta=False)),
        ("FER2013 PublicTest, mirrored too", 80, partial(_fer2013, tta=True)),
        ("FER2013 PublicTest without copies from Training", 40, _fer2013_alone),
        ("FER2013 PublicTest, in one crop", 20, partial(_fer2013_as_it_is, mirrored=False)),
        ("FER2013 PublicTest, in one crop, mirrored too", 40, partial(_fer2013_as_it_is, mirrored=True)),
        ("Helen, held out", 10, _helen),
        ("Helen, held out, boxes off by up to 5%", 10, _helen_jittered),
        *((f"Helen, held out, boxes of {side} pixels", 10, partial(_helen_small, side)) for side in SMALL),
        *(
            (f"Helen, held out, turned by {angle} degrees", 10, partial(_helen_turned, angle))
            for angle in TURNED
        ),
        ("muxspace, held out, whole pictures", 60, partial(_held_out_set, "muxspace")),
        ("RAF-DB, held out", 40, partial(_held_out_set, "raf_db")),
        ("RAF-DB, held out, its own head", 40, partial(_held_out_set, "raf_db", head="raf_db")),
    ]
    if setting.quick:
        measures = [measures[0], measures[5]]
    return [
        Case(name, 6 if setting.quick else seconds, partial(_figure, name, measure, setting))
        for name, seconds, measure in measures
    ]


def _figure(name: str, measure: Callable[[Setting], dict[str, Any]], setting: Setting) -> list[Figure]:
    told = measure(setting)
    return [{"name": name, "setting": {"precision": "fp32"}, "unit": "share", "evaluation": told}]


def _analyzer(setting: Setting) -> FaceAnalyzer:
    return FaceAnalyzer(str(setting.device), precision="fp32", weights=setting.weights, backend="torch")


def _fer2013(setting: Setting, tta: bool) -> dict[str, Any]:
    limit = FEW if setting.quick else None
    return _kept(
        evaluate(
            setting.csv_of_fer2013(), split="PublicTest", tta=tta, limit=limit, analyzer=_analyzer(setting)
        )
    )


def _fer2013_alone(setting: Setting) -> dict[str, Any]:
    """Leave out the rows whose pixels stand among the training rows, some with another label."""
    whole = load_dataset(setting.csv_of_fer2013())
    learnt, asked = whole.split("train"), whole.split("PublicTest")
    known = {content_hash(learnt.load(place)) for place in range(len(learnt))}
    alone = [content_hash(asked.load(place)) not in known for place in range(len(asked))]
    return _kept(evaluate(asked.select(np.array(alone)), analyzer=_analyzer(setting)))


def _fer2013_as_it_is(setting: Setting, mirrored: bool) -> dict[str, Any]:
    """Measure stage 2 alone, on the pictures' own pixels."""
    dataset, backend = load_dataset(setting.csv_of_fer2013()).split("PublicTest"), _analyzer(setting).backend
    scores = scores_as_they_are(backend, dataset, mirrored)
    figures = expression_metrics(expression_indices(dataset.labels, len(dataset)), scores)
    told = {"n": len(dataset), "weights": backend.name, "keypoints": None}
    return told | {"expression": figures.to_dict()}


def scores_as_they_are(backend: Backend, dataset: Dataset, mirrored: bool = False) -> NDArray[np.float32]:
    """Give the default head's scores (N, C) of FER2013's own pixels, or the mean with their mirror's."""
    crops = [np.eye(2, 3), np.array(mirroring_matrix(ALIGNED_SIZE))][: 1 + mirrored]
    scores = []
    for places in np.array_split(np.arange(len(dataset)), -(-len(dataset) // TOGETHER)):
        grays = [to_gray(dataset.load(place)) for place in places]
        image_from_crops = np.stack([np.tile(crop, (len(grays), 1, 1)) for crop in crops])
        each, framed = np.arange(len(grays)), np.ones(len(grays), np.bool_)
        found = find_expressions(backend, grays, each, image_from_crops, [DEFAULT_HEAD], framed)
        scores.append(found[DEFAULT_HEAD])
    return np.concatenate(scores)


def _helen(setting: Setting) -> dict[str, Any]:
    analyzer = _analyzer(setting)
    return _kept(evaluate(_helen_rows(setting, analyzer), boxes="labels", analyzer=analyzer))


def _helen_jittered(setting: Setting) -> dict[str, Any]:
    analyzer = _analyzer(setting)
    return jittered(analyzer, _helen_rows(setting, analyzer))


def jittered(analyzer: FaceAnalyzer, dataset: Dataset) -> dict[str, Any]:
    """Measure keypoints in label boxes that are off as a detector's are, by up to JITTER of their side."""
    assert dataset.points is not None
    grays = [to_gray(dataset.load(place)) for place in range(len(dataset))]
    return _jittered(analyzer, grays, dataset.points)


def _jittered(
    analyzer: FaceAnalyzer, grays: list[NDArray[np.uint8]], points: NDArray[np.float32]
) -> dict[str, Any]:
    random = np.random.default_rng(0)
    boxes = label_boxes(points)
    moves = np.tile(random.uniform(-JITTER, JITTER, (len(boxes), 2)) * (boxes[:, 2:] - boxes[:, :2]), 2)
    factors = analyzer.backend.header["crop_factor"] * (1 + random.uniform(-JITTER, JITTER, len(boxes)))
    crops = np.stack(
        [geometry.square(box, factor) for box, factor in zip(boxes + moves, factors, strict=True)]
    )
    return _keypoint_figures(analyzer, grays, points, crops)


def _helen_turned(degrees: int, setting: Setting) -> dict[str, Any]:
    """Measure keypoints in portraits of 320 pixels that are turned, in boxes that are off."""
    analyzer = _analyzer(setting)
    dataset = _helen_rows(setting, analyzer)
    assert dataset.points is not None
    angles = np.radians(degrees) * (-1.0) ** np.arange(len(dataset))
    upright = geometry.crop(geometry.square(label_boxes(dataset.points), 3), 320)
    image_from_portrait = geometry.turned(upright, angles, 320)
    grays = [
        geometry.warp_picture(to_gray(dataset.load(place)), matrix, 320)
        for place, matrix in enumerate(image_from_portrait)
    ]
    points = geometry.apply(geometry.invert(image_from_portrait), dataset.points)
    return _jittered(analyzer, grays, points.astype(np.float32))


def _helen_small(side: int, setting: Setting) -> dict[str, Any]:
    """Measure keypoints in portraits in whose middle the face's box has so many pixels a side."""
    analyzer = _analyzer(setting)
    dataset = _helen_rows(setting, analyzer)
    assert dataset.points is not None
    image_from_portrait = geometry.crop(
        geometry.square(label_boxes(dataset.points), 2 * BOX_FACTOR), 2 * side
    )
    grays = [
        geometry.warp_picture(to_gray(dataset.load(place)), matrix, 2 * side)
        for place, matrix in enumerate(image_from_portrait)
    ]
    points = geometry.apply(geometry.invert(image_from_portrait), dataset.points)
    boxes = np.tile(np.array([side / 2, side / 2, 1.5 * side, 1.5 * side]), (len(grays), 1))
    crops = geometry.square(boxes, analyzer.backend.header["crop_factor"] / BOX_FACTOR)
    return _keypoint_figures(analyzer, grays, points, crops)


def _keypoint_figures(
    analyzer: FaceAnalyzer, grays: list[NDArray[np.uint8]], points: Floats, crops: Floats
) -> dict[str, Any]:
    found = analyzer.describe(grays, np.arange(len(grays)), crops)
    figures = keypoint_metrics(points, found.points_image, found.sigma, crops[:, 2] - crops[:, 0])
    told = {"n": len(grays), "weights": analyzer.backend.name, "expression": None}
    return told | {"keypoints": figures.to_dict()}


def _held_out_set(name: str, setting: Setting, head: str | None = None) -> dict[str, Any]:
    """Evaluate the rows of a set that training did not see: all, if the weights know nothing of the set."""
    analyzer = _analyzer(setting)
    if head is not None and head not in analyzer.backend.header["model"]["heads"]:
        raise UnavailableError(f"the weights {analyzer.backend.name} have no head {head}")
    dataset = load_dataset(_in_data(setting, name))
    if dataset.name in analyzer.backend.header["data"]:
        dataset = _held_out(dataset, setting, analyzer)
    limit = 3000 if len(dataset) > 3000 else None
    return _kept(evaluate(dataset, limit=limit, head=head, analyzer=analyzer))


def _helen_rows(setting: Setting, analyzer: FaceAnalyzer) -> Dataset:
    return _held_out(load_dataset(_in_data(setting, "landmarks68/helen_train")), setting, analyzer)


def _held_out(dataset: Dataset, setting: Setting, analyzer: FaceAnalyzer) -> Dataset:
    """Give the rows that the weights' header lists as held out, with a fair share of those that were no use.

    Pictures in which training found no face were neither learnt nor held out. Hard as they are, they belong
    to the figures in the same proportion as the others.
    """
    record = analyzer.backend.header["data"].get(dataset.name, {})
    rows = record.get("held_out_rows", [])
    if not len(rows):
        raise UnavailableError(f"the weights {analyzer.backend.name} name no held-out rows of {dataset.name}")
    kept = np.isin(dataset.rows, rows)
    used = len(rows) + record["train"]
    if used < len(dataset):
        learnt = seen_by(setting.weights)
        if learnt is None:
            raise UnavailableError(f"no list of what {analyzer.backend.name} was trained on lies beside it")
        places = np.flatnonzero(~kept)
        contents = [content_hash(to_gray(dataset.load(int(place)))) for place in places]
        useless = ~np.isin(np.frombuffer(b"".join(contents), ">u8"), learnt)
        keys = [contents[k] for k in np.flatnonzero(useless)]
        kept[places[useless][held_out(keys, round(len(keys) * len(rows) / used))]] = True
    return dataset.select(kept)


def _in_data(setting: Setting, place: str) -> Path:
    path = None if setting.data is None else setting.data / place
    if path is None or not path.exists():
        raise UnavailableError(f"needs {place} in the folder that --data or FACEKIT_DATA names")
    return path


def _kept(evaluation: Evaluation) -> dict[str, Any]:
    """Give what the results file keeps of an evaluation; paths stay out of it."""
    told = evaluation.to_dict()
    kept = {key: told[key] for key in KEPT} | {"skipped": len(told["skipped"])}
    if evaluation.expression:
        known = evaluation.truth >= 0
        bins = reliability(evaluation.truth[known], evaluation.predictions.scores[known])
        kept["reliability"] = [
            {"n": int(n), "confidence": sure, "accuracy": right}
            for n, sure, right in zip(*bins, strict=True)
            if n
        ]
    return kept
