"""Put down what training runs took and reached, epoch by epoch: figures of the rows that they held out.

    python benchmarks/training_runs.py runs/first
    python benchmarks/training_runs.py runs/restart runs/expressions --before 5.1
    python benchmarks/training_runs.py runs/longer --before 5.1 --cores 2

Each folder is what `facekit train --out` wrote; figures of other runs stay in the file. Hours are of one core
of the processor that trained, other work beside.
"""

from __future__ import annotations

import argparse
import csv
from itertools import accumulate
from pathlib import Path
from typing import Any

from render import newest

import facekit
from facekit.benchmarking.machine import load
from facekit.benchmarking.results import RESULTS, write_result
from facekit.weights import read_weights


def told_of(folder: Path, before: float, cores: int) -> dict[str, Any]:
    """Give a run's settings, its curves against the hours, and the figures of the weights it ended with."""
    stored = read_weights(folder)
    with (folder / "history.csv").open() as file:
        rows = [{key: float(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
    ends = accumulate(cores * row["seconds"] / 3600 for row in rows)
    return {
        "name": stored.name,
        "setting": {"run": stored.name, "seed": stored.header["training"]["fit"]["seed"]},
        "model": stored.header["model"],
        "training": stored.header["training"],
        "rows": {name: told["train"] for name, told in stored.header["data"].items()},
        "unit": "share",
        "epochs": len(rows),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "hours": [round(before + hours, 4) for hours in ends],
        "curves": {key: [row[key] for row in rows] for key in rows[0] if key not in ("epoch", "seconds")},
        "value": stored.header["held_out_figures"]["fer2013_accuracy"],
        "held_out": stored.header["held_out_figures"],
    }


def main() -> None:
    """Write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--before", type=float, default=0.0, help="hours of the runs that these begin with")
    parser.add_argument("--cores", type=int, default=1, help="that trained at once")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    told = [told_of(folder, given.before, given.cores) for folder in given.runs]
    names = {figure["name"] for figure in told}
    stored = newest(given.out / facekit.__version__, "training-runs", "cpu")
    earlier = [figure for figure in stored["figures"] if figure["name"] not in names] if stored else []
    figures = [*earlier, *told]
    body = {
        "quick": False,
        "weights": figures[-1]["name"],
        "seconds": round(sum(figure["seconds"] for figure in figures), 1),
        "load_before": load(),
        "skipped": [],
        "figures": figures,
    }
    print(write_result("training-runs", "cpu", "python benchmarks/training_runs.py RUN ...", body, given.out))


if __name__ == "__main__":
    main()
