"""Measure keypoints on faces of which training saw nothing, as `facekit bench accuracy` does on Helen.

    facekit train --config configs/without_afw.toml --data helen_train ytf --out runs/without_afw
    python benchmarks/unseen_set.py runs/without_afw $FACEKIT_DATA/landmarks68/afw

Boxes are those of the labels, moved and scaled by up to 5%.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from facekit import FaceAnalyzer, load_dataset
from facekit.benchmarking.accuracy import jittered
from facekit.benchmarking.results import RESULTS, ScriptRun, write_result


def main() -> None:
    """Write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    run = ScriptRun()
    analyzer = FaceAnalyzer("cpu", precision="fp32", weights=given.weights, backend="torch")
    dataset = load_dataset(given.data)
    if dataset.name in analyzer.backend.header["data"]:
        parser.error(f"{given.weights}: these weights were trained on {dataset.name}")
    figure = {
        "name": f"{dataset.name}, of which training saw nothing, boxes off by up to 5%",
        "setting": {"precision": "fp32"},
        "training": analyzer.backend.header["training"],
        "unit": "share",
        "evaluation": jittered(analyzer, dataset),
    }
    command = "python benchmarks/unseen_set.py runs/without_afw DATA/landmarks68/afw"
    print(write_result("unseen-set", "cpu", command, run.body(analyzer.backend.name, [figure]), given.out))


if __name__ == "__main__":
    main()
