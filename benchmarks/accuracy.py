"""How right the shipped weights are on labelled data that they were not trained on.

    python benchmarks/accuracy.py --fer2013 fer2013.csv --data $FACEKIT_DATA

FER2013's PublicTest as it is and averaged with its mirror; the Helen faces that the weights' header lists as
held out, under label boxes moved and scaled by up to 5%; muxspace's whole pictures, detector to expression;
RAF-DB's training faces, of which the weights saw none. Intervals are 95% bootstrap intervals.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_result

from facekit import FaceAnalyzer, evaluate, geometry
from facekit.data.catalog import load_dataset
from facekit.data.label_boxes import label_boxes
from facekit.data.samples import Dataset
from facekit.evaluation import Evaluation
from facekit.images import to_gray
from facekit.metrics import KeypointMetrics, keypoint_metrics

JITTER = 0.05


def held_out(folder: Path, analyzer: FaceAnalyzer) -> Dataset:
    """Give the rows of a point set that the weights' header lists as held out."""
    dataset = load_dataset(folder)
    rows = analyzer.backend.header["data"][dataset.name]["held_out_rows"]
    return dataset.select(np.isin(dataset.rows, rows))


def keypoints_under_jitter(dataset: Dataset, analyzer: FaceAnalyzer) -> KeypointMetrics:
    """Measure keypoints in label boxes that are off as a detector's are, by up to JITTER of their side."""
    assert dataset.points is not None
    rng = np.random.default_rng(0)
    boxes = label_boxes(dataset.points)
    side = boxes[:, 2:] - boxes[:, :2]
    moved = boxes + np.tile(rng.uniform(-JITTER, JITTER, (len(boxes), 2)) * side, 2)
    factors = analyzer.backend.header["crop_factor"] * (1 + rng.uniform(-JITTER, JITTER, len(boxes)))
    crops = np.stack([geometry.square(box, factor) for box, factor in zip(moved, factors, strict=True)])
    grays = [to_gray(dataset.load(place)) for place in range(len(dataset))]
    found = analyzer.describe(grays, np.arange(len(grays)), crops)
    return keypoint_metrics(dataset.points, found.points_image, found.sigma, crops[:, 2] - crops[:, 0])


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Give what the results file keeps of an evaluation; paths stay out of it."""
    told = evaluation.to_dict()
    kept = {key: told[key] for key in ("format", "split", "n", "boxes", "tta", "expression", "keypoints")}
    return kept | {"skipped": len(told["skipped"])}


def main() -> None:
    """Evaluate and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fer2013", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("FACEKIT_DATA"))
    parser.add_argument("--weights", default="default")
    arguments = parser.parse_args()
    analyzer = FaceAnalyzer(weights=arguments.weights, precision="fp32")
    helen = held_out(arguments.data / "landmarks68" / "helen_train", analyzer)
    jittered = keypoints_under_jitter(helen, analyzer)
    runs = {
        "fer2013 PublicTest": evaluate(arguments.fer2013, split="PublicTest", analyzer=analyzer),
        "fer2013 PublicTest, mirrored too": evaluate(
            arguments.fer2013, split="PublicTest", tta=True, analyzer=analyzer
        ),
        "Helen, held out": evaluate(helen, boxes="labels", analyzer=analyzer),
        "muxspace, whole pictures": evaluate(arguments.data / "muxspace", analyzer=analyzer),
        "RAF-DB, 3,000 training faces": evaluate(arguments.data / "raf_db", limit=3000, analyzer=analyzer),
    }
    print(f"Helen, held out, boxes off by up to 5%: NME {jittered.nme:.4f}")
    body = {
        "weights": analyzer.backend.name,
        "precision": "fp32",
        "box_jitter": JITTER,
        "sets": {name: figures(run) for name, run in runs.items()},
        "Helen, held out, jittered": jittered.to_dict(),
    }
    for name, run in runs.items():
        if run.expression:
            print(f"{name:36} accuracy {run.expression.accuracy:.4f}")
        if run.keypoints:
            print(f"{name:36} NME {run.keypoints.nme:.4f}")
    print(write_result("accuracy", "cpu", "python benchmarks/accuracy.py", body))


if __name__ == "__main__":
    main()
