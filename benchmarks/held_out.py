"""Rows that training held out, and figures of networks on them, row by row beside those of another."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facekit import load_dataset
from facekit.configuration import TrainConfig
from facekit.fitting import Mixed
from facekit.metrics import expression_metrics
from facekit.mirror import mirror_image, mirror_per_point, mirror_points
from facekit.model import multiplies_bfloat16
from facekit.objectives import ExpressionObjective, KeypointObjective
from facekit.preparation import Prepared, prepare
from facekit.schema import DEFAULT_HEAD
from facekit.training import build_objectives, fit_temperature
from facekit.weights import load_stages

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


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Give each row's log loss at the temperature at which the set is likeliest."""
    best = min(TEMPERATURES, key=lambda t: float(F.cross_entropy(logits / t, labels)))
    return F.cross_entropy(logits / best, labels, reduction="none")


class HeldOut:
    """The rows that a configuration holds out, and what the first network measured says of them."""

    def __init__(self, config: TrainConfig, data: list[str], out: Path) -> None:
        prepared = _finished(
            prepare(config, list(map(load_dataset, data)), out, DEVICE, True, load_stages(config.start))
        )
        self.expressions, self.keypoints = build_objectives(config, prepared, DEVICE, {})
        assert isinstance(self.expressions, ExpressionObjective)
        assert isinstance(self.keypoints, KeypointObjective)
        self.expressions.watched = self.keypoints.watched = None
        self.native = multiplies_bfloat16(DEVICE)
        self.before: dict[str, Tensor] = {}

    @torch.inference_mode()
    def nme(self, network: nn.Module) -> float:
        """Give a network's NME, with both looks."""
        return self.keypoints.validate(BothLooks(self._mixed(network)))["nme"]

    def _mixed(self, network: nn.Module) -> nn.Module:
        return Mixed(network.eval().to(memory_format=torch.channels_last), self.native)

    @torch.inference_mode()
    def figures(self, network: nn.Module) -> dict[str, Any]:
        """Give the figure of a network's expressions; the first network is what others are compared with."""
        once = self._mixed(network)
        twice = BothLooks(once)
        temperature = fit_temperature(self.expressions, once, DEFAULT_HEAD)
        sets = {}
        for name, samples in self.expressions.held_out.items():
            for looks, network_of in (("one look", once), ("two looks", twice)):
                logits, labels = self.expressions.answers(network_of, samples)
                lost = _losses(logits, labels)
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
        first = next(iter(sets.values()))
        return {"unit": "share", "value": first["accuracy"], "temperature": temperature, "sets": sets}


def _finished(preparation: Generator[Any, None, Prepared]) -> Prepared:
    """Give what a preparation returns; with weights to begin with it yields nothing."""
    try:
        while True:
            next(preparation)
    except StopIteration as end:
        prepared: Prepared = end.value
        return prepared
