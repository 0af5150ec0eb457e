"""What the cross-check finds: three real sets, suspects against independent truth, planted errors, speed.

    python benchmarks/crosscheck.py --data DATA --fer2013 fer2013.csv --out DIR [--weights W] [--device D]

`--data` holds fer2013/fer2013new.csv, muxspace and landmarks68/helen_train. Suspect scores are judged on
FER2013's PublicTest, which no shipped weights saw, by FER+'s votes. Planted labels: among the rows of happy,
surprise and neutral whose label at least 8 of 10 taggers share, 8% get another of the seven labels; told is
the share of planted ones among as many first suspects. Planted points: left and right swapped, a whole face
shifted by 15% of the distance of the eyes, one point moved by 30% of it, each in 5% of Helen's faces; told is
the share that is flagged under its own name, and of untouched faces that are flagged. Both are means over
repeated draws.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facekit import FaceAnalyzer, load_dataset, report, suspects
from facekit.backends.torch import choose_device
from facekit.benchmarking.results import write_result
from facekit.crosschecking import CrossCheck, crosscheck
from facekit.detection import WholePicture, crop_boxes
from facekit.expression import find_expressions
from facekit.keypoints import find_keypoints
from facekit.metrics import detected, eye_distances
from facekit.mirror import swap_sides
from facekit.reference import CLEAR_CLASSES, judge, voted_expressions
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS

DRAWS = 20
SHARE_OF_LABELS, SHARE_OF_FACES = 0.08, 0.05
FORWARD_BATCH = 64


def opinions(result: CrossCheck) -> dict[str, NDArray[np.floating[Any]]]:
    """Give the probabilities that labels could be scored by."""
    first, second = result.evaluation.predictions.scores, result.evaluation.predictions.second
    if np.isnan(second).any():
        return {"default head": first}
    return {"default head": first, "ferplus head": second, "mean of both": (first + second) / 2}


def judged_scores(result: CrossCheck, probabilities: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Judge both ways to score a label by the votes."""
    votes, labels = result.dataset.votes, result.evaluation.truth
    assert votes is not None
    ways = {"self_confidence": suspects.self_confidence, "normalized_margin": suspects.normalized_margin}
    voted = voted_expressions(votes)
    return {name: asdict(judge(labels, way(labels, probabilities), voted)) for name, way in ways.items()}


def planted_labels(result: CrossCheck, probabilities: NDArray[np.floating[Any]]) -> float:
    """Give the share of planted labels among as many first suspects."""
    votes, labels = result.dataset.votes, result.evaluation.truth
    assert votes is not None
    clear = np.isin(labels, [EXPRESSIONS.index(label) for label in CLEAR_CLASSES])
    agreed = clear & (voted_expressions(votes) == labels) & (votes.max(1) >= 8)
    labels, probabilities = labels[agreed], probabilities[agreed]
    found = []
    for seed in range(DRAWS):
        random = np.random.default_rng(seed)
        planted = random.permutation(len(labels)) < round(SHARE_OF_LABELS * len(labels))
        given = np.where(planted, (labels + random.integers(1, len(EXPRESSIONS), len(labels))) % 7, labels)
        first = np.argsort(-suspects.self_confidence(given, probabilities), kind="stable")[: planted.sum()]
        found.append(planted[first].mean())
    return float(np.mean(found))


def planted_points(result: CrossCheck) -> dict[str, float]:
    """Give the share of each planted fault that is flagged and named, and of sound faces that are flagged."""
    found = detected(result.evaluation.predictions.points)
    assert result.dataset.points is not None
    points, predictions = result.dataset.points[found], result.evaluation.predictions.select(found)
    counts = {name: [0, 0] for name in (suspects.SWAPPED, suspects.SHIFTED, suspects.ASTRAY, "")}
    for seed in range(DRAWS):
        random = np.random.default_rng(seed)
        kinds = random.choice([*counts], len(points), p=[*[SHARE_OF_FACES] * 3, 1 - 3 * SHARE_OF_FACES])
        given = np.array([_spoiled(face, kind, random) for face, kind in zip(points, kinds, strict=True)])
        _, flagged, patterns = suspects.point_scores(given, predictions.points, predictions.sigma)
        for name, count in counts.items():
            of_kind = kinds == name
            count[0] += int(((patterns == name) | (name == ""))[of_kind & flagged].sum())
            count[1] += int(of_kind.sum())
    return {name or "sound": right / total for name, (right, total) in counts.items()}


def _spoiled(points: NDArray[np.float32], kind: str, random: np.random.Generator) -> NDArray[np.float32]:
    angle, size = random.uniform(0, 2 * np.pi), float(eye_distances(points[None])[0])
    step = np.array([np.cos(angle), np.sin(angle)]) * size
    if kind == suspects.SWAPPED:
        return swap_sides(points)
    if kind == suspects.SHIFTED:
        return points + 0.15 * step
    if kind == suspects.ASTRAY:
        moved = points.copy()
        moved[random.integers(len(points))] += 0.3 * step
        return moved
    return points


def forward_seconds(analyzer: FaceAnalyzer, pictures: list[NDArray[np.uint8]]) -> float:
    """Time the bare passes of both stages over pictures in FER2013's frame."""
    framing = WholePicture.face_from_box.crop(analyzer.backend.header["crop_factor"])
    start = time.perf_counter()
    for first in range(0, len(pictures), FORWARD_BATCH):
        part = pictures[first : first + FORWARD_BATCH]
        each = np.arange(len(part))
        wholes = np.tile(np.array([[0, 0, 48, 48]], np.float32), (len(part), 1))
        crops = np.tile(np.eye(2, 3), (2, len(part), 1, 1))
        find_keypoints(analyzer.backend, part, each, crop_boxes(wholes, framing))
        find_expressions(analyzer.backend, part, each, crops, [DEFAULT_HEAD], np.ones(len(part), np.bool_))
    return time.perf_counter() - start


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fer2013", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    analyzer = FaceAnalyzer(arguments.device, weights=arguments.weights, backend="torch")
    votes = arguments.data / "fer2013" / "fer2013new.csv"
    start = time.perf_counter()
    faces = load_dataset(arguments.fer2013).split("PublicTest")
    loaded = time.perf_counter() - start
    pictures = [faces.load(place) for place in range(len(faces))]
    forward_seconds(analyzer, pictures[:FORWARD_BATCH])
    bare = forward_seconds(analyzer, pictures)
    results, seconds = {}, {}
    for name, dataset, options in (
        ("fer2013", faces, {"reference": votes}),
        ("muxspace", arguments.data / "muxspace", {}),
        ("helen", arguments.data / "landmarks68" / "helen_train", {}),
    ):
        start = time.perf_counter()
        result = crosscheck(dataset, analyzer=analyzer, out=arguments.out / name, **options)
        report.write_report(result, arguments.out / name)
        results[name], seconds[name] = result, time.perf_counter() - start
    asked = opinions(results["fer2013"])
    body = {
        "weights": analyzer.backend.name,
        "threads": torch.get_num_threads(),
        "summaries": {name: _short(result) for name, result in results.items()},
        "suspects": {name: judged_scores(results["fer2013"], p) for name, p in asked.items()},
        "planted_labels_found": {name: planted_labels(results["fer2013"], p) for name, p in asked.items()},
        "planted_points": planted_points(results["helen"]),
        "seconds": {"load": loaded, "bare_passes": bare, **seconds},
    }
    command = "python benchmarks/crosscheck.py --data DATA --fer2013 fer2013.csv --out OUT"
    print(write_result("crosscheck", choose_device(arguments.device).type, command, body))


def _short(result: CrossCheck) -> dict[str, Any]:
    """Give a summary without its lists of rows and its paths."""
    told = result.to_dict()
    faults = {kind: {k: v for k, v in fault.items() if k != "rows"} for kind, fault in told["faults"].items()}
    return told | {"dataset": result.dataset.name, "faults": faults, "skipped": len(told["skipped"])}


if __name__ == "__main__":
    main()
