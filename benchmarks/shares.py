"""Measure means of a run's weights and those it began with, on rows that training held out.

    python benchmarks/shares.py configs/settled.toml --shares 0.15 0.25 0.35
        --data fer2013.csv raf_db affectnet expw muxspace helen_train afw ytf

The configuration names the run, `start`, and in `averaged` what it began with; both lie in --runs, as do the
crops of pictures that need aligning, in the folder of the configuration's name. Differences are to what was
begun with, row by row, with their standard errors. Points are looked at twice, as in an analysis.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facekit import load_dataset
from facekit.benchmarking.machine import load
from facekit.benchmarking.results import RESULTS, write_result
from facekit.configuration import TrainConfig, read_config
from facekit.continuing import go_on_with
from facekit.fitting import Mixed
from facekit.metrics import expression_metrics
from facekit.mirror import mirror_image, mirror_per_point, mirror_points
from facekit.model import multiplies_bfloat16
from facekit.objectives import ExpressionObjective, KeypointObjective
from facekit.preparation import Prepared, prepare
from facekit.schema import DEFAULT_HEAD
from facekit.training import build_objectives, fit_temperature
from facekit.weights import Weights, load_stages, load_weights

TEMPERATURES = torch.linspace(0.6, 1.8, 61).tolist()
DEVICE = torch.device("cpu")


class BothLooks(nn.Module):
    """Gives the mean over crops and their mirror images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor, task: str) -> Any:
        """Give points and expected errors, or each head's logits."""
        one, other = self.network(crops, task), self.network(mirror_image(crops), task)
        if task == "expression":
            return {head: (logits + other[head]) / 2 for head, logits in one.items()}
        points, sigma = other
        return (
            (one[0] + mirror_points(points, crops.shape[-1])) / 2,
            (one[1] + mirror_per_point(sigma)) / 2,
        )


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Give each row's log loss at the temperature at which the set is likeliest."""
    best = min(TEMPERATURES, key=lambda t: float(F.cross_entropy(logits / t, labels)))
    return F.cross_entropy(logits / best, labels, reduction="none")


class HeldOut:
    """The held-out rows, and what the weights that a run began with say of them."""

    def __init__(self, config: TrainConfig, data: list[str], out: Path) -> None:
        prepared = finished(
            prepare(config, list(map(load_dataset, data)), out, DEVICE, True, load_stages(config.start))
        )
        self.expressions, self.keypoints = build_objectives(config, prepared, DEVICE, {})
        assert isinstance(self.expressions, ExpressionObjective)
        assert isinstance(self.keypoints, KeypointObjective)
        self.expressions.watched = self.keypoints.watched = None
        self.native = multiplies_bfloat16(DEVICE)
        self.before: dict[str, Tensor] = {}

    @torch.inference_mode()
    def figures(self, network: nn.Module) -> dict[str, Any]:
        """Measure a network; the first one is what others are compared with."""
        once = Mixed(network.eval().to(memory_format=torch.channels_last), self.native)
        twice = BothLooks(once)
        temperature = fit_temperature(self.expressions, once, DEFAULT_HEAD)
        sets = {}
        for name, samples in self.expressions.held_out.items():
            for looks, network_of in (("one look", once), ("two looks", twice)):
                logits, labels = self.expressions.answers(network_of, samples)
                lost = losses(logits, labels)
                change = lost - self.before.setdefault(f"{name}, {looks}", lost)
                scores = (logits / temperature).softmax(1).double().numpy()
                told = expression_metrics(labels.numpy(), scores, replicates=1)
                sets[f"{name}, {looks}"] = {
                    "n": len(lost),
                    "accuracy": told.accuracy,
                    "balanced_accuracy": told.balanced_accuracy,
                    "ece": told.ece,
                    "nll": float(lost.mean()),
                    "change": float(change.mean()),
                    "error": float(change.std()) / len(change) ** 0.5,
                }
        return {"temperature": temperature, "sets": sets, "nme": self.keypoints.validate(twice)["nme"]}


def finished(preparation: Generator[Any, None, Prepared]) -> Prepared:
    """Give what a preparation returns; with weights to begin with it yields nothing."""
    try:
        while True:
            next(preparation)
    except StopIteration as end:
        prepared: Prepared = end.value
        return prepared


def main() -> None:
    """Write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.15, 0.25, 0.35])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    started, before = time.time(), load()
    config = read_config(given.config).with_weights(lambda name: str(given.runs / Path(name).stem))
    (begun,) = config.averaged
    held_out = HeldOut(config, given.data, given.runs / given.config.stem)
    figures = []
    for share in (1.0, 0.0, *given.shares):
        weights: Weights = load_weights(begun if share == 1 else config.start)
        kept = {begun: share} if 0 < share < 1 else {}
        told = held_out.figures(go_on_with(weights, replace(config, averaged=kept)))
        first = next(iter(told["sets"].values()))
        figures.append(
            {
                "name": config.name,
                "setting": {"begun": Path(begun).name, "trained": Path(config.start).name, "share": share},
                "unit": "share",
                "value": first["accuracy"],
                **told,
            }
        )
        print(share, {name: round(one["change"], 4) for name, one in told["sets"].items()}, told["nme"])
    body = {
        "quick": False,
        "weights": config.name,
        "seconds": round(time.time() - started, 1),
        "load_before": before,
        "skipped": [],
        "figures": figures,
    }
    command = "python benchmarks/shares.py CONFIG --data DATA ..."
    print(write_result("shares", "cpu", command, body, given.out))


if __name__ == "__main__":
    main()
