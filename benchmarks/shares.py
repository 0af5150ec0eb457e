"""Measure means of a run's weights and those it began with, on rows that training held out.

    python benchmarks/shares.py configs/settled.toml --shares 0.15 0.25 0.35
        --data fer2013.csv raf_db affectnet expw muxspace helen_train afw ytf

The configuration names the run, `start`, and in `averaged` what it began with; both lie in --runs, as do the
crops of pictures that need aligning, in the folder of the configuration's name. Differences are to what was
begun with, row by row, with their standard errors. Points are looked at twice, as in an analysis.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from held_out import HeldOut

from facekit.benchmarking.results import RESULTS, ScriptRun, write_result
from facekit.configuration import read_config
from facekit.continuing import go_on_with
from facekit.weights import Weights, load_weights


def main() -> None:
    """Write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.15, 0.25, 0.35])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    run = ScriptRun()
    config = read_config(given.config).with_weights(lambda name: str(given.runs / Path(name).stem))
    (begun,) = config.averaged
    held_out = HeldOut(config, given.data, given.runs / given.config.stem)
    figures = []
    for share in (1.0, 0.0, *given.shares):
        weights: Weights = load_weights(begun if share == 1 else config.start)
        kept = {begun: share} if 0 < share < 1 else {}
        network = go_on_with(weights, replace(config, averaged=kept))
        told = held_out.figures(network) | {"nme": held_out.nme(network)}
        setting = {"begun": Path(begun).name, "trained": Path(config.start).name, "share": share}
        figures.append({"name": config.name, "setting": setting, **told})
        print(share, {name: round(one["change"], 4) for name, one in told["sets"].items()}, told["nme"])
    command = "python benchmarks/shares.py CONFIG --data DATA ..."
    print(write_result("shares", "cpu", command, run.body(config.name, figures), given.out))


if __name__ == "__main__":
    main()
