"""Images a second of the training loop, and the time it takes to reach an accuracy on FER2013."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from facekit.augmentation import AugmentConfig
from facekit.backends import cores
from facekit.benchmarking.measuring import (
    Case,
    Figure,
    Setting,
    UnavailableError,
    rounded,
    threads,
    timing,
    value,
)
from facekit.benchmarking.stages import resident
from facekit.data.catalog import load_dataset
from facekit.data.holdout import content_hash
from facekit.data.resident import (
    EXPRESSION_CANVAS,
    KEYPOINT_CANVAS,
    ExpressionSamples,
    KeypointSamples,
    expression_canvases,
    expression_samples,
    to_device,
)
from facekit.data.samples import Dataset
from facekit.fitting import FitConfig, fit
from facekit.model import SharedNetwork, Task
from facekit.objectives import ExpressionObjective, KeypointObjective, Objective
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS, MEAN_FACE, PIXEL_MEAN, PIXEL_STD
from facekit.weights import load_weights

HEADS = {DEFAULT_HEAD: EXPRESSIONS}
TASK_SETS: tuple[tuple[Task, ...], ...] = (("expression",), ("keypoints",), ("expression", "keypoints"))
TARGETS = (0.65, 0.70)
STRONG = AugmentConfig(contrast=0.3, low_resolution=0.1, cutout=0.35)
LIGHT = AugmentConfig(
    rotation=8, scale=0.08, shift=0.06, contrast=0.2, brightness=0.1, gamma=0.15,
    noise=0.0, low_resolution=0.03, cutout=0.0,
)  # fmt: skip
CPU_BATCH = 128
RECIPE = FitConfig(
    epochs=30, optimizer="adamw", learning_rate=4e-3, weight_decay=0.05, average=0.998, early_share=0.5
)
"""Of the time to accuracy; the batch is 256."""


def cases(setting: Setting) -> list[Case]:
    """Give the loop's speed for each head and both, and the time to accuracy."""
    accelerated, quick = setting.device.type != "cpu", setting.quick
    speeds = [
        Case(
            f"{', '.join(tasks)}{', compiled' * compiled}",
            18 if quick else 40 if accelerated else 100,
            partial(_speed, setting, tasks, compiled),
        )
        for tasks in (TASK_SETS[:1] if quick else TASK_SETS)
        for compiled in ((False, True) if accelerated and not quick else (False,))
    ]  # fmt: skip
    return speeds if quick else [*speeds, Case("time to accuracy", 600, partial(_time_to_accuracy, setting))]


def _network(setting: Setting, tasks: tuple[Task, ...]) -> SharedNetwork:
    """Give an untrained network of the size that ships."""
    torch.manual_seed(0)
    shipped = load_weights(setting.weights).network.config
    config = replace(shipped, heads=HEADS, tasks=tasks)
    return SharedNetwork(config).to(setting.device)


def _speed(setting: Setting, tasks: tuple[Task, ...], compiled: bool) -> list[Figure]:
    """Time epochs of the loop on noise; the first one, in which everything is set up, does not count."""
    accelerated = setting.device.type != "cpu"
    batch = 512 if accelerated else CPU_BATCH
    steps = 50 if accelerated and not setting.quick else 2 if setting.quick else 4
    epochs = 3 if setting.quick else 6
    made = {"expression": _made_expressions, "keypoints": _made_keypoints}
    objectives = [made[task](batch, steps, setting.device) for task in tasks]
    with tempfile.TemporaryDirectory() as out, threads(cores()):
        config = replace(RECIPE, epochs=epochs, early_share=0.0, compiled=compiled)
        records = list(fit(_network(setting, tasks), objectives, config, Path(out)))
    return [
        timing(
            "training", [record.seconds for record in records[1:]], "images/s", steps * batch * len(tasks),
            tasks=" and ".join(tasks), batch=batch, compiled=compiled, threads=cores(),
        )
    ]  # fmt: skip


def _made_expressions(batch: int, steps: int, device: torch.device) -> Objective:
    count = batch * steps
    labels = torch.arange(count) % len(EXPRESSIONS)
    ones = torch.ones(count)
    samples = ExpressionSamples(
        resident(count, EXPRESSION_CANVAS, torch.device("cpu")),
        ones,
        torch.nn.functional.one_hot(labels).float(),
        ones[:, None],
    )
    return ExpressionObjective(
        to_device(samples, device), {}, HEADS, AugmentConfig(), PIXEL_MEAN, PIXEL_STD, batch
    )


def _made_keypoints(batch: int, steps: int, device: torch.device) -> Objective:
    count = batch * steps
    points = torch.tensor(MEAN_FACE, dtype=torch.float32).expand(count, -1, -1) * 50 + 80
    samples = KeypointSamples(
        resident(count, KEYPOINT_CANVAS, torch.device("cpu")), points.contiguous(), torch.ones(count)
    )
    few = KeypointSamples(samples.canvases[:1], samples.points_canvas[:1], samples.draws[:1])
    return KeypointObjective(
        to_device(samples, device), to_device(few, device), AugmentConfig(), PIXEL_MEAN, PIXEL_STD, batch
    )


def _time_to_accuracy(setting: Setting) -> list[Figure]:
    """Train stage 2 on FER2013's Training rows alone and watch PublicTest after every epoch."""
    if setting.device.type == "cpu":
        raise UnavailableError("takes hours without an accelerator")
    train, unseen = fer2013_samples(load_dataset(setting.csv_of_fer2013()))
    curve = accuracy_by_time(setting, train, unseen, replace(RECIPE, compiled=True))
    best = value("best accuracy", max(accuracy for _, accuracy in curve), "share", split="PublicTest")
    best["curve"] = [[rounded(seconds), rounded(accuracy)] for seconds, accuracy in curve]
    return [*(_time_to(target, curve) for target in TARGETS), best]


def accuracy_by_time(
    setting: Setting, train: ExpressionSamples, unseen: ExpressionSamples, recipe: FitConfig
) -> list[tuple[float, float]]:
    """Train stage 2 alone and give, after every epoch, the seconds since the start and the accuracy."""
    objective = ExpressionObjective(
        to_device(train, setting.device),
        {"PublicTest": to_device(unseen, setting.device)},
        HEADS,
        STRONG,
        PIXEL_MEAN,
        PIXEL_STD,
        256,
        early_share=recipe.early_share,
        early_size=32,
        late_augment=LIGHT,
    )
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        network = _network(setting, ("expression",))
        return [
            (time.perf_counter() - started, record.figures["PublicTest_accuracy"])
            for record in fit(network, [objective], recipe, Path(out))
        ]


def _time_to(target: float, curve: list[tuple[float, float]]) -> Figure:
    seconds = next((seconds for seconds, accuracy in curve if accuracy >= target), None)
    figure = value("time to accuracy", seconds, "s", accuracy=target, split="PublicTest")
    return figure if seconds is not None else {**figure, "reason": f"not reached in {len(curve)} epochs"}


def fer2013_samples(dataset: Dataset) -> tuple[ExpressionSamples, ExpressionSamples]:
    """Give the Training rows, less those whose pixels also stand in PublicTest, and PublicTest."""
    parts = []
    for split in ("train", "validation"):
        shown = dataset.split(split)
        canvases, places = expression_canvases(shown, None)
        parts.append((shown.select(places), canvases))
    hashes = {content_hash(canvas) for canvas in parts[1][1]}
    fresh = np.array([content_hash(canvas) not in hashes for canvas in parts[0][1]])
    parts[0] = parts[0][0].select(fresh), parts[0][1][fresh]
    train, unseen = (expression_samples(canvases, shown, HEADS, None, 1.0, 1.0) for shown, canvases in parts)
    return train, unseen
