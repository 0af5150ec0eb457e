"""A tiny training that tests run once in one process and once, under torchrun, in two."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from facekit import fitting
from facekit.augmentation import AugmentConfig
from facekit.data.resident import ExpressionSamples, KeypointSamples
from facekit.distributed import ALONE, Processes, join_processes
from facekit.fitting import FitConfig, fit
from facekit.model import ModelConfig, SharedNetwork
from facekit.objectives import ExpressionObjective, KeypointObjective, Objective
from facekit.schema import EXPRESSIONS, MEAN_FACE

HEADS = {"fer2013": EXPRESSIONS, "three": ("happy", "sad", "neutral")}


def objectives() -> list[Objective]:
    """Make both tasks' objectives on noise, with batches and held-out sets of odd sizes too."""
    generator = torch.Generator().manual_seed(0)
    expression = ExpressionSamples(
        torch.randint(0, 256, (40, 1, 64, 64), generator=generator).to(torch.uint8),
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


def trained(out: Path, processes: Processes = ALONE, resume: bool = False) -> dict[str, Tensor]:
    """Train two epochs and give the weights; keep the first epoch's checkpoint."""
    config = FitConfig(epochs=2, learning_rate=0.01, average=0.5)
    made = network()
    for record in fit(made, objectives(), config, out, resume=resume, processes=processes):
        if record.epoch == 1:
            (out / "broken").mkdir()
            shutil.copy(out / "checkpoint.safetensors", out / "broken")
    return {name: tensor.contiguous() for name, tensor in made.state_dict().items()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fitting.multiplies_bfloat16 = lambda device: False  # rounds too coarsely to compare
    processes, _ = join_processes(torch.device("cpu"))
    for out in (folder, folder / "broken"):
        weights = trained(out, processes, resume=out != folder)
        save_file(weights, out / f"rank-{processes.rank}.safetensors")
