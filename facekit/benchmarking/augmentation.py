"""How many varied training crops a second the augmentations of both heads give, whole and by part."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from facekit.augmentation import (
    AugmentConfig,
    augment_expression,
    augment_keypoints,
    random_matrices,
    sample,
    vary_light,
)
from facekit.backends import cores
from facekit.benchmarking.measuring import Case, Clock, Figure, Setting, in_turns, threads, timing
from facekit.benchmarking.stages import resident
from facekit.data.resident import EXPRESSION_CANVAS, KEYPOINT_CANVAS
from facekit.schema import INPUT_SIZE, MEAN_FACE


def cases(setting: Setting) -> list[Case]:
    """Give both heads' augmentations by batch."""
    batches: tuple[int, ...] = (128,) if setting.quick else (32, 128, 512)
    if setting.device.type != "cpu" and not setting.quick:
        batches = (*batches, 4096)
    seconds = 5 if setting.quick else 15
    return [Case(f"batch {batch}", seconds, partial(_augment, setting, batch)) for batch in batches]


def _augment(setting: Setting, batch: int) -> list[Figure]:
    device, config = setting.device, AugmentConfig()
    generator = torch.Generator(device).manual_seed(0)
    faces = resident(batch, EXPRESSION_CANVAS, device)
    wide = resident(batch, KEYPOINT_CANVAS, device)
    points = torch.tensor(MEAN_FACE, dtype=torch.float32, device=device).expand(batch, -1, -1) * 50 + 80
    size = INPUT_SIZE["expression"]
    crops = sample(faces, random_matrices(batch, EXPRESSION_CANVAS, size, config, generator)[0], size)

    def moved() -> Any:
        matrices, _ = random_matrices(batch, EXPRESSION_CANVAS, size, config, generator)
        return sample(faces, matrices, size)

    calls: dict[str, Callable[[], Any]] = {
        "expression": lambda: augment_expression(faces, size, config, generator),
        "expression, moved": moved,
        "expression, light": lambda: vary_light(crops, config, generator),
        "keypoints": lambda: augment_keypoints(wide, points, INPUT_SIZE["keypoints"], config, generator),
    }
    with threads(cores()):
        times = in_turns(calls, Clock(device), seconds=3 if setting.quick else 12, most=100)
    return [
        timing(name, taken, "crops/s", batch, batch=batch, threads=cores()) for name, taken in times.items()
    ]
