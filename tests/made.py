"""Small made things that the tests of evaluation, cross-check and report share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from facekit.data.faults import FaultFinder
from facekit.data.files import strings
from facekit.data.reading import read_ahead
from facekit.data.samples import Dataset
from facekit.model import ModelConfig, SharedNetwork
from facekit.predictions import Predictions
from facekit.schema import ALIGNED_POINTS, EXPRESSIONS, FERPLUS, MEAN_FACE
from facekit.weights import model_record, save_weights

HEADS = {"fer2013": EXPRESSIONS, "ferplus": FERPLUS}


def weights(folder: Path, seed: int = 0) -> str:
    """Write weights of a small network that never learnt anything but answers differently to each picture."""
    torch.manual_seed(seed)
    config = ModelConfig(width=8, blocks=(1, 1, 1, 1), map_channels=8, heads=HEADS)
    network = SharedNetwork(config)
    header = {
        "name": f"untrained-{seed}",
        "model": model_record(config),
        "mean": 0.5,
        "std": 0.25,
        "crop_factor": 1.6,
        "frame": (np.array(MEAN_FACE)[list(ALIGNED_POINTS)] * 32 + 23.5).tolist(),
        "temperature": dict.fromkeys(HEADS, 0.2),
        "photo_bias": {"fer2013": [0.5, 0.0, 0.1, -0.5, 0.0, -0.2, 1.0]},
        "sigma_factor": 1.0,
    }
    path = folder / f"untrained-{seed}.safetensors"
    save_weights(path, network, "shared", header)
    return str(path)


def picture(seed: int, side: int = 64) -> np.ndarray:
    """Give a smooth gray picture (side, side) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


def class_folders(folder: Path, labels: dict[str, int]) -> Path:
    """Write a class folder of so many pictures a label."""
    seed = 0
    for label, count in labels.items():
        (folder / label).mkdir(parents=True)
        for _ in range(count):
            Image.fromarray(picture(seed)).save(folder / label / f"{seed:03}.png")
            seed += 1
    return folder


def expression_set(labels: list[str | None], **columns: object) -> Dataset:
    """Give a dataset of smooth pictures in memory with these labels."""
    return made_set(len(labels), labels=strings(labels), **columns)


def point_set(count: int, side: int = 120, **columns: object) -> Dataset:
    """Give a dataset of smooth pictures in memory with points of turned mean faces."""
    random = np.random.default_rng(1)
    angle, scale = random.uniform(-0.3, 0.3, count), random.uniform(40, 60, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    points = np.array(MEAN_FACE) @ turn.swapaxes(1, 2) * scale[:, None, None] + side / 2
    return made_set(count, side, points=points.astype(np.float32), **columns)


def made_set(count: int, side: int = 64, **columns: object) -> Dataset:
    """Give a dataset of smooth pictures in memory."""
    given = {
        "name": "made",
        "format": "class_folders",
        "path": Path("made"),
        "load": lambda place: picture(place, side),
        "rows": np.arange(count),
        "sources": strings(f"{place:03}.png" for place in range(count)),
        "splits": strings([None] * count),
    }
    return Dataset(**(given | columns))


def faults_of(dataset: Dataset) -> dict[str, dict[str, object]]:
    """Look for a dataset's faults in all of its pictures."""
    finder = FaultFinder(dataset)
    for place, picture in read_ahead(dataset, np.arange(len(dataset))):
        finder.see(place, picture)
    return finder.faults()


def predictions_of(
    dataset: Dataset, scores: np.ndarray | None = None, points: np.ndarray | None = None
) -> Predictions:
    """Give predictions with these scores (N, 7) or points (N, 15, 2), the rest plausible."""
    count = len(dataset)
    found = Predictions.empty(count)
    found.sizes[:], found.box_scores[:] = 120, 1
    found.boxes[:] = 20, 20, 100, 100
    found.scores[:] = 1 / 7 if scores is None else scores
    found.points[:] = np.array(MEAN_FACE) * 50 + 60 if points is None else points
    found.sigma[:] = 1.0
    found.hashes[:] = np.arange(count)
    return found
