"""From labelled data to a baseline's weights: the preparation, loop and calibration of the shared network."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from facekit.augmentation import STILL
from facekit.backends.torch import choose_device
from facekit.baselines import BaselineConfig, BaselineNetwork, baseline_record
from facekit.baselines.standard import Standard
from facekit.configuration import DataConfig, ExpressionConfig, KeypointConfig, TrainConfig
from facekit.data.catalog import load_dataset
from facekit.data.samples import Dataset
from facekit.distributed import join_processes
from facekit.errors import ConfigError, DatasetError
from facekit.fitting import EpochRecord, FitConfig, fit
from facekit.imagenet import imagenet_weights
from facekit.model import ModelConfig
from facekit.objectives import ExpressionObjective
from facekit.plots import confusion
from facekit.preparation import prepare, seen_contents
from facekit.schema import DEFAULT_HEAD
from facekit.training import build_objectives, finish
from facekit.weights import Weights, load_weights, of_its_task, save_weights
from facekit.writing import write_atomically

CLASSIC = replace(STILL, shift=0.1, mirror=True, brightness=0.15)
"""What the references vary: mirror images, translation, brightness."""

WATCHED = 2000
"""Training samples whose figures stand beside the held-out ones, so that overfitting shows."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaselineTrainConfig:
    """A baseline's whole training run, as a TOML file states it, table by table.

    Attributes
    ----------
    model, fit, data, keypoints, expression
        See their classes.
    held_out_share : float
        Share of the rows held out of a set that `data.held_out` does not name.
    """

    model: BaselineConfig = field(default_factory=BaselineConfig)
    fit: FitConfig = FitConfig()
    data: DataConfig = field(default_factory=DataConfig)
    keypoints: KeypointConfig = field(
        default_factory=lambda: KeypointConfig(
            every=1, weight=1.0, watched=WATCHED, augment=CLASSIC, late_augment=CLASSIC
        )
    )
    expression: ExpressionConfig = field(
        default_factory=lambda: ExpressionConfig(
            smoothing=0.0, watched=WATCHED, augment=CLASSIC, late_augment=CLASSIC
        )
    )
    held_out_share: float = 0.1


def default_config(arch: str) -> BaselineTrainConfig:
    """Give the configuration that a baseline has unless told otherwise.

    Raises
    ------
    ConfigError
        Unknown name.
    """
    model = BaselineConfig(arch)
    rate = model.baseline.learning_rate
    return BaselineTrainConfig(
        model, FitConfig(epochs=30, optimizer="adamw", learning_rate=rate, weight_decay=0.0, average=0.998)
    )


def train_baseline(
    config: BaselineTrainConfig,
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    device: str = "auto",
) -> Iterator[EpochRecord]:
    """Train a classic model on labelled folders and write weights.

    Pictures that are not in FER2013's frame are brought there by the shipped weights. Rows with labels that
    are none of the model's classes are left out.

    Parameters
    ----------
    config : BaselineTrainConfig
    data : sequence of paths
        Datasets in any of the formats of data.catalog, with the labels of the model's task.
    out : path
        Folder for the checkpoint, history.csv and history.png, and at the end weights.safetensors,
        weights.seen and, for expressions, the held-out rows' confusion.png.
    resume : bool
        Go on where an interrupted run stopped.
    device : str
        auto, cpu, cuda, cuda:N or mps.

    Yields
    ------
    EpochRecord

    Raises
    ------
    DatasetError, ConfigError, WeightsError, ProcessError
    """
    folder = Path(out)
    processes, on = join_processes(choose_device(device))
    if config.fit.early_share and config.expression.early_size != 48:
        raise ConfigError(f"{config.model.arch} takes crops of 48 pixels only; leave early_size out")
    folder.mkdir(parents=True, exist_ok=True)
    chosen = _usable(config, [load_dataset(path) for path in data])
    if not chosen:
        raise DatasetError(f"{', '.join(map(str, data))}: no labels that {config.model.arch} learns from")
    shipped = load_weights()
    recipe = _recipe(config, chosen, shipped)
    prepared = yield from processes.led(prepare(recipe, chosen, folder, on, resume, aligned_by=shipped))
    torch.manual_seed(config.fit.seed)
    network = _network(config.model).to(on)
    objectives = build_objectives(recipe, prepared, on, {})
    yield from fit(network, objectives, config.fit, folder, resume=resume, processes=processes)
    if not processes.leads:
        return
    figures = finish(recipe, prepared, network, objectives)
    header = of_its_task(figures | {"model": baseline_record(config.model)})
    for objective in objectives:
        if isinstance(objective, ExpressionObjective) and objective.held_out:
            header["held_out_confusion"] = _draw_confusion(objective, network, folder, config.model.classes)
    save_weights(folder / "weights.safetensors", network, "baseline", header)
    write_atomically(folder / "weights.seen", b"".join(seen_contents(prepared, chosen)))


def _usable(config: BaselineTrainConfig, datasets: Sequence[Dataset]) -> list[Dataset]:
    """Give what holds labels of the model's task, without the other task's, and rows of its classes only."""
    usable = []
    for dataset in datasets:
        if dataset.name in config.data.leave_out:
            continue
        if config.model.baseline.task == "keypoints":
            if dataset.points is not None:
                usable.append(replace(dataset, labels=None))
            continue
        if dataset.labels is None:
            continue
        known = np.isin(dataset.labels.astype(str), config.model.classes)
        if absent := sorted(set(config.model.classes) - set(dataset.labels[known])):
            _log.warning("%s: has no faces labelled %s", dataset.path, ", ".join(absent))
        if known.any():
            usable.append(replace(dataset, points=None).select(known))
    return usable


def _recipe(config: BaselineTrainConfig, datasets: Sequence[Dataset], shipped: Weights) -> TrainConfig:
    """Tell the shared network's preparation what a baseline needs of it."""
    trained = [sum(split in (None, "train") for split in dataset.splits) for dataset in datasets]
    share = {
        dataset.name: round(config.held_out_share * count)
        for dataset, count in zip(datasets, trained, strict=True)
    }
    model = config.model
    return TrainConfig(
        name=model.arch,
        model=ModelConfig(heads={DEFAULT_HEAD: model.classes}, tasks=(model.baseline.task,)),
        fit=config.fit,
        data=replace(
            config.data,
            held_out=share | dict(config.data.held_out),
            crop_factor=shipped.header["crop_factor"],
        ),
        keypoints=config.keypoints,
        expression=config.expression,
    )


def _network(config: BaselineConfig) -> BaselineNetwork:
    network = BaselineNetwork(config)
    if config.pretrained:
        assert config.baseline.imagenet is not None
        assert isinstance(network.layers, Standard)
        network.layers.take_imagenet(imagenet_weights(config.baseline.imagenet))
    elif any(not parameter.requires_grad for parameter in network.parameters()):
        _log.warning("%s: its frozen features are random; `pretrained = true` takes ImageNet's", config.arch)
    return network


def _draw_confusion(
    objective: ExpressionObjective, network: nn.Module, folder: Path, classes: Sequence[str]
) -> dict[str, Any]:
    """Draw the held-out rows' confusion matrix and give it: rows truth, columns predicted."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for samples in objective.held_out.values():
        with torch.inference_mode():
            logits, truth = objective.answers(network, samples)
        np.add.at(counts, (truth.cpu().numpy(), logits.argmax(1).cpu().numpy()), 1)
    picture = io.BytesIO()
    confusion(counts, classes).savefig(picture, dpi=110)
    write_atomically(folder / "confusion.png", picture.getvalue())
    return {"labels": list(classes), "counts": counts.tolist()}
