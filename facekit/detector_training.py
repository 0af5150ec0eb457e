"""From scenes with labelled faces to the detector's weights: its objective, recipe and calibration.

References
----------
.. [1] C. Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021 (which cells learn a face).
.. [2] Z. Zheng et al., "Distance-IoU Loss", AAAI 2020.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torchvision.ops import complete_box_iou_loss

from facekit import geometry
from facekit.backends.torch import choose_device
from facekit.data.detection_scenes import (
    DOUBTFUL,
    FACE,
    Labels,
    kinds_of,
    load_scenes,
    read_labels,
    split_labels,
)
from facekit.detection_metrics import Matches, fit_logistic, match, reliability, sigmoid
from facekit.detector_network import (
    Cells,
    DetectorConfig,
    DetectorNetwork,
    Separable,
    best_cells,
    cell_grid,
    stack_padded,
)
from facekit.distributed import join_processes
from facekit.errors import DatasetError
from facekit.fitting import EpochRecord, FitConfig, begin_with, fit
from facekit.images import read_image
from facekit.padding import padded_size
from facekit.scene_views import ViewConfig, random_views
from facekit.weights import load_detector, save_weights

OVERLAP = 0.4
"""Boxes that overlap by more are the same face."""
CELLS_A_FACE = 9
FULL_SCORE_OVERLAP = 0.7
"""A face's best cell learns a score of 1 from this overlap on: the boxes of small faces rarely reach more."""
LOWEST_LOGIT = -4.0
HELD_OUT_BATCH = 16


@dataclass(frozen=True)
class DetectorTrainConfig:
    """A detector's whole training run.

    Attributes
    ----------
    name : str
        Of the weights.
    start : str
        Weights to begin with, a shipped name or a file; empty: none. Blocks that they lack do nothing yet.
    model, fit, views
        See their classes.
    batch_size : int
    steps : int
        Batches an epoch.
    box_weight : float
        Of the boxes' loss against the scores'.
    draws : mapping of subfolder to float
        How often each of its pictures is drawn, relative to the others; 1 if absent.
    held_out : mapping of subfolder to int
        Pictures that training never sees, nor others of the same photos.
    """

    name: str = "detector-v5"
    start: str = ""
    model: DetectorConfig = field(default_factory=DetectorConfig)
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            epochs=24, optimizer="adamw", learning_rate=4e-3, weight_decay=0.02, average=0.999, clip=10.0
        )
    )
    views: ViewConfig = field(default_factory=ViewConfig)
    batch_size: int = 128
    steps: int = 200
    box_weight: float = 2.0
    draws: Mapping[str, float] = field(
        default_factory=lambda: {"afw_scenes": 8.0, "ytf": 0.7, "muxspace": 0.4, "face_free": 0.8}
    )
    held_out: Mapping[str, int] = field(default_factory=lambda: {"afw_scenes": 37, "helen_train": 100})


class Targets(NamedTuple):
    """What each cell should say.

    Attributes
    ----------
    scores : (B, A) float32
        0 for background, up to 1 for the cells that learn a face.
    boxes : (B, A, 4) float32
        Of the cell's face, where its score is not 0.
    counts : (B, A) bool
        False where a doubtful label leaves the score open.
    """

    scores: Tensor
    boxes: Tensor
    counts: Tensor


@torch.no_grad()
def assign(cells: Cells, grid: Tensor, boxes: Tensor, kinds: Tensor) -> Targets:
    """Choose for each face the cells inside its box that already see it best [1]_.

    Parameters
    ----------
    cells : Cells
    grid : (A, 3), see cell_grid
    boxes : (B, G, 4) float32, kinds : (B, G) uint8
        Labels, see detection_scenes.
    """
    centre = grid[:, :2]
    low, high = boxes[:, :, None, :2], boxes[:, :, None, 2:]
    inside = ((centre > low) & (centre < high)).all(-1)  # (B, G, A)
    overlap = pairwise_overlaps(boxes, cells.boxes)
    alignment = cells.logits.sigmoid()[:, None].sqrt() * overlap**4 + 1e-9
    alignment = torch.where(inside & (kinds == FACE)[..., None], alignment, 0.0)
    least = alignment.topk(CELLS_A_FACE, -1).values[..., -1:]
    alignment = torch.where(alignment >= least, alignment, 0.0)
    best = alignment.amax(-1, keepdim=True).clamp(min=1e-9)
    taken = alignment > 0
    reached = torch.where(taken, overlap, 0.0).amax(-1, keepdim=True)
    scores, face = (alignment / best * (reached / FULL_SCORE_OVERLAP).clamp(max=1)).max(1)
    in_doubt = (inside & (kinds == DOUBTFUL)[..., None]).any(1)
    chosen = boxes.gather(1, face[..., None].expand(-1, -1, 4))
    return Targets(scores, chosen, ~in_doubt | (scores > 0))


def pairwise_overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Give the intersection over union (B, G, A) of boxes (B, G, 4) with boxes (B, A, 4)."""
    low = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    high = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    extent = (high - low).clamp(min=0)
    shared = extent[..., 0] * extent[..., 1]
    union = geometry.areas(first)[:, :, None] + geometry.areas(second)[:, None] - shared
    overlap: Tensor = shared / union.clamp(min=1e-6)
    return overlap


def detector_loss(cells: Cells, targets: Targets, box_weight: float) -> Tensor:
    """Give cross entropy of scores plus complete-IoU loss of boxes [2]_, both an assigned cell."""
    total = targets.scores.sum().clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(cells.logits, targets.scores, reduction="none")
    loss = (entropy * targets.counts).sum() / total
    learned = targets.scores > 0
    apart: Tensor = complete_box_iou_loss(cells.boxes[learned], targets.boxes[learned])
    return loss + box_weight * (apart * targets.scores[learned]).sum() / total


class HeldOut:
    """Held-out pictures in batches of one padded size, with their labels."""

    def __init__(self, labels: Labels) -> None:
        self.faces = [own[kinds_of(own) == FACE, :4] for own in labels.faces]
        self.doubtful = [own[kinds_of(own) == DOUBTFUL, :4] for own in labels.faces]
        self.images = [read_image(path) for path in labels.paths]
        sizes: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(self.images):
            sizes.setdefault(padded_size(*image.shape[:2]), []).append(place)
        self.batches = [
            places[start : start + HELD_OUT_BATCH]
            for places in sizes.values()
            for start in range(0, len(places), HELD_OUT_BATCH)
        ]

    @torch.inference_mode()
    def match(self, network: nn.Module, device: torch.device) -> Matches:
        """Detect in all pictures and match by logit."""
        found: list[Any] = [None] * len(self.images)
        for places in self.batches:
            pictures = stack_padded([self.images[place] for place in places], device) / 255
            for place, own in zip(places, best_cells(network(pictures), LOWEST_LOGIT, OVERLAP), strict=True):
                found[place] = own
        boxes, logits = zip(*found, strict=True)
        return match(boxes, logits, self.faces, self.doubtful)


class DetectorObjective:
    """Faces of random views of scenes; see fitting.fit.

    Parameters
    ----------
    train, held_out : Labels
    config : DetectorTrainConfig
    device : torch.device
    """

    name = "detector"
    every = 1

    def __init__(
        self, train: Labels, held_out: Labels, config: DetectorTrainConfig, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        self.scenes = load_scenes(train, device)
        draws = [config.draws.get(path.parent.name, 1.0) for path in train.paths]
        self.draws = torch.tensor(draws, device=device)
        self.held_out = HeldOut(held_out)
        self.grid = cell_grid(config.views.size, config.views.size, device)

    def batches(self) -> int:
        """Count the batches of an epoch."""
        return self.config.steps

    def start_epoch(self, cycle: int, done: float, generator: Generator) -> None:
        """Nothing to draw: each view draws its picture."""

    def loss(self, network: nn.Module, step: int, generator: Generator) -> Tensor:  # noqa: ARG002
        """Give the loss () of a batch."""
        views = random_views(self.scenes, self.draws, self.config.batch_size, self.config.views, generator)
        cells = network(views.pixels)
        targets = assign(cells, self.grid, views.boxes, views.kinds)
        return detector_loss(cells, targets, self.config.box_weight)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Give average precision, and recall and false positives a picture at a logit of 0."""
        matches = self.held_out.match(network, self.device)
        return {
            "average_precision": matches.average_precision(),
            "recall": matches.recall(0.0),
            "false_positives": matches.false_positives(0.0),
        }


def train_detector(
    config: DetectorTrainConfig,
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    device: str = "auto",
) -> Iterator[EpochRecord]:
    """Train the detector on folders of scenes and write weights.

    Parameters
    ----------
    config : DetectorTrainConfig
    data : sequence of paths
        Folders as detection_scenes describes them.
    out : path
        Folder for the checkpoint, history.csv, and at the end weights.safetensors.
    resume : bool
        Go on where an interrupted run stopped.
    device : str
        auto, cpu, cuda, cuda:N or mps.

    Yields
    ------
    EpochRecord

    Raises
    ------
    DatasetError, ConfigError, ProcessError
    """
    folder, (processes, on) = Path(out), join_processes(choose_device(device))
    folder.mkdir(parents=True, exist_ok=True)
    train, held_out = split_labels(read_labels([Path(path) for path in data]), config.held_out)
    for part, labels in (("to train on", train), ("held out", held_out)):
        if not any((kinds_of(own) == FACE).any() for own in labels.faces):
            raise DatasetError(
                f"{', '.join(map(str, data))}: no faces {part}; see DetectorTrainConfig.held_out"
            )
    torch.manual_seed(config.fit.seed)
    network = DetectorNetwork(config.model)
    if config.start:
        begin_with(network, load_detector(config.start)[0].state_dict(), config.start, _last_norm)
    network.to(on)
    objective = DetectorObjective(train, held_out, config, on)
    yield from fit(network, [objective], config.fit, folder, resume=resume, processes=processes)
    if not processes.leads:
        return
    matches = objective.held_out.match(network, on)
    header = {
        "name": config.name,
        "model": asdict(config.model),
        "overlap": OVERLAP,
        **calibrate(matches.scores, matches.right),
        "average_precision": matches.average_precision(),
        "data": {
            "train": len(train.paths),
            "held_out": sorted(f"{path.parent.name}/{path.stem}" for path in held_out.paths),
        },
    }
    save_weights(folder / "weights.safetensors", network, "detector", header)


def _last_norm(module: nn.Module) -> nn.Module | None:
    return module.pointwise_norm if isinstance(module, Separable) and module.residual else None


def calibrate(logits: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Fit the logistic that turns logits into the share of detections that are right.

    The reliability is that of one half of the detections under the fit to the other, both ways.
    """
    half = np.arange(len(logits)) % 2 == 0
    scores = np.empty(len(logits))
    for part in (half, ~half):
        slope, offset = fit_logistic(logits[~part], right[~part])
        scores[part] = sigmoid(slope * logits[part] + offset)
    bins, error = reliability(scores, right)
    slope, offset = fit_logistic(logits, right)
    return {"slope": slope, "offset": offset, "calibration_error": error, "reliability": bins}
