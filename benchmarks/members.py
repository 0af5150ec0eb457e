"""Measure each member of an ensemble, and all together, on rows that training held out.

    python benchmarks/members.py configs/third.toml --began 2
        --data fer2013.csv raf_db affectnet expw muxspace helen_train afw ytf

The configuration's run lies in --runs, with the crops of pictures that need aligning. Differences are to the
members that the run began with, row by row, with their standard errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from held_out import HeldOut
from torch import Tensor, nn

from facekit.benchmarking.results import RESULTS, ScriptRun, write_result
from facekit.configuration import read_config
from facekit.weights import load_weights


class Some(nn.Module):
    """Some members of an ensemble."""

    def __init__(self, network: nn.Module, places: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.places = network, list(places)

    def forward(self, crops: Tensor, task: str) -> dict[str, Tensor]:
        """Give each head's logits (B, members, C)."""
        told = self.network(crops, task)
        return {head: logits[:, self.places] for head, logits in told.items()}


def main() -> None:
    """Write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--began", type=int, default=1, help="members that the run began with")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    run = ScriptRun()
    config = read_config(given.config).with_weights(lambda name: str(given.runs / Path(name).stem))
    trained = given.runs / given.config.stem
    held_out = HeldOut(config, given.data, trained)
    network, every = load_weights(trained).network, tuple(range(config.model.members))
    figures = []
    for places in (every[: given.began], every, *((place,) for place in every)):
        told = held_out.figures(Some(network, places))
        name = " and ".join(str(place + 1) for place in places)
        figures.append({"name": config.name, "setting": {"members": name}, **told})
        print(name, {name: round(one["change"], 4) for name, one in told["sets"].items()})
    command = "python benchmarks/members.py CONFIG --began N --data DATA ..."
    print(write_result("members", "cpu", command, run.body(config.name, figures), given.out))


if __name__ == "__main__":
    main()
