"""A tiny training that tests run once in one process and once, under torchrun, in two."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from facekit import fitting
from facekit.augmentation import AugmentConfig
from facekit.data.resident import ExpressionSamples, KeypointSamples
from facekit.distributed import Processes, join_processes
from facekit.fitting import FitConfig, fit
from facekit.model import ModelConfig, SharedNetwork
from facekit.objectives import ExpressionObjective, KeypointObjective, Objective
from facekit.schema import EXPRESSIONS, MEAN_FACE

HEADS = {"fer2013": EXPRESSIONS, "three": ("happy", "sad", "neutral")}


def objectives() -> list[Objective]:
    """Make both tasks' objectives on noise; batches of 8, held-out sets that no number of processes divides."""
    generator = torch.Generator().manual_seed(0)
    expression = ExpressionSamples(
        torch.randint(0, 256, (40, 1, 64, 64), generator=generator).to(torch.uint8),
        torch.arange(40) % 7,
        torch.ones(40),
        torch.cat([torch.eye(7)[torch.arange(40) % 7], torch.eye(3)[torch.arange(40) % 3]], 1),
        torch.stack([torch.ones(40), (torch.arange(40) < 10).float()], 1),
    )
    points = (torch.tensor(MEAN_FACE) * 60 + 79.5).float().expand(13, -1, -1).clone()
    points[torch.rand(13, 15, generator=generator) < 0.3] = torch.nan
    keypoint = KeypointSamples(
        torch.randint(0, 256, (13, 1, 160, 160), generator=generator).to(torch.uint8), points, torch.ones(13)
    )
    held_out = {"made": expression}
    augment = AugmentConfig()
    return [
        ExpressionObjective(expression, held_out, HEADS, augment, 0.5, 0.25, 8),
        KeypointObjective(keypoint, keypoint, augment, 0.5, 0.25, 7, every=2),
    ]


def network() -> SharedNetwork:
    """Make a small network with everything that the shipped one has: norms per task, dropout, two heads."""
    torch.manual_seed(1)
    return SharedNetwork(ModelConfig(width=16, blocks=(1, 1, 1, 1), map_channels=16, heads=HEADS))


def trained(out: Path, processes: Processes, epochs: int, resume: bool) -> Mapping[str, Tensor]:
    """Train in single precision and give the weights."""
    fitting.multiplies_bfloat16 = lambda device: False
    config = FitConfig(epochs=epochs, optimizer="adamw", learning_rate=1e-3, average=0.5)
    made: nn.Module = network()
    for _ in fit(made, objectives(), config, out, resume=resume, processes=processes):
        pass
    return made.state_dict()


if __name__ == "__main__":
    out = Path(sys.argv[1])
    processes, _ = join_processes(torch.device("cpu"))
    weights = dict(trained(out, processes, 2, resume=False))
    save_file(weights, out / f"rank-{processes.rank}.safetensors")
