from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from facekit.augmentation import (
    STILL,
    AugmentConfig,
    augment_expression,
    augment_keypoints,
    canvas_from_crop,
    random_matrices,
    sample,
)
from facekit.schema import MEAN_FACE


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def faces(count: int, canvas: int = 160) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw canvases with a blob at each of the 15 points; the subject's left ones are brighter."""
    points = (torch.tensor(MEAN_FACE) * 60 + (canvas - 1) / 2).float().expand(count, -1, -1)
    place = torch.arange(canvas).float()
    pictures = torch.zeros(count, canvas, canvas)
    for x, y in points[0].tolist():
        spot = torch.exp(-((place[:, None] - y) ** 2 + (place[None] - x) ** 2) / 8)
        pictures += spot * (220 if x > canvas / 2 else 110)
    return pictures.clamp(max=255).to(torch.uint8)[:, None], points


def test_nothing_asked_gives_the_middle_of_the_canvas():
    canvases = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    crops = augment_expression(canvases, 48, STILL, generator())
    torch.testing.assert_close(crops, canvases[:, :, 8:56, 8:56].float() / 255, atol=1e-3, rtol=0)


def test_points_move_with_the_picture_and_keep_their_sides():
    canvases, points = faces(64)
    moved = replace(STILL, rotation=20, scale=0.15, shift=0.05, mirror=True)
    crops, moved_points = augment_keypoints(canvases, points, 96, moved, generator())
    inside = ((moved_points > 4) & (moved_points < 91)).all(-1)
    assert inside.float().mean() > 0.9
    column, row = moved_points[..., 0].round().long(), moved_points[..., 1].round().long()
    at = torch.arange(len(crops))[:, None].expand_as(row)
    value = crops[at, 0, row.clamp(0, 95), column.clamp(0, 95)]
    assert value[inside].min() > 0.25
    left_eye, right_eye = value[:, 0], value[:, 1]
    mirrored = left_eye < right_eye  # mirroring exchanges which side of the picture is bright
    assert 10 < mirrored.sum() < 54
    # whichever way round, "left" lies at larger x, as in every picture
    upright = moved_points[:, 0, 0] > moved_points[:, 1, 0]
    assert upright.all()


def test_without_the_swap_left_and_right_are_wrong_in_mirrored_crops():
    canvases, points = faces(64)
    careless = replace(STILL, mirror=True, swap_sides=False)
    _, moved = augment_keypoints(canvases, points, 96, careless, generator())
    assert 0.3 < (moved[:, 0, 0] < moved[:, 1, 0]).float().mean() < 0.7


def test_missing_points_stay_missing():
    canvases, points = faces(4)
    points = points.clone()
    points[:, 5] = float("nan")
    _, moved = augment_keypoints(canvases, points, 96, AugmentConfig(mirror=False), generator())
    assert moved[:, 5].isnan().all()
    assert not moved[:, :5].isnan().any()


@pytest.mark.parametrize(
    "change",
    [
        {"contrast": 0.4},
        {"brightness": 0.2},
        {"gamma": 0.3},
        {"noise": 0.1},
        {"low_resolution": 1.0},
        {"cutout": 0.5},
        {"rotation": 20.0},
        {"shift": 0.1},
    ],
)
def test_each_setting_changes_the_crops(change):
    canvases, _ = faces(16, 64)
    still = augment_expression(canvases, 48, STILL, generator())
    varied = augment_expression(canvases, 48, replace(STILL, **change), generator())
    assert (varied - still).abs().mean() > 1e-3


def test_the_same_generator_gives_the_same_crops():
    canvases, _ = faces(8, 64)
    first, second = (augment_expression(canvases, 48, AugmentConfig(), generator()) for _ in range(2))
    assert torch.equal(first, second)


def test_matrices_keep_to_their_limits():
    config = replace(STILL, rotation=30, scale=0.2, shift=0.1)
    matrices, mirrored = random_matrices(500, 160, 96, config, generator())
    scale = (matrices[:, 0, 0] ** 2 + matrices[:, 1, 0] ** 2).sqrt()
    assert scale.min() >= 0.8
    assert scale.max() <= 1.2
    centre = matrices[..., :2] @ torch.tensor([47.5, 47.5]) + matrices[..., 2]
    assert (centre - 79.5).abs().max() <= 9.6 + 1e-3
    assert not mirrored.any()


def test_sampling_the_middle_is_exact():
    canvases = torch.randint(0, 256, (2, 1, 160, 160), dtype=torch.uint8)
    crops = sample(canvases, canvas_from_crop(160, 96).expand(2, -1, -1), 96)
    torch.testing.assert_close(crops * 255, canvases[:, :, 32:128, 32:128].float(), atol=0.02, rtol=0)
