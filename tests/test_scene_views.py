"""Training views show what their labels say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facekit import scene_views
from facekit.data.detection_scenes import DOUBTFUL, FACE, LEVELS, NONE, Scenes, _pyramid
from facekit.scene_views import ViewConfig, Views, random_views

CPU = torch.device("cpu")
PLAIN = {"gray": 0, "dark": 0, "blur": 0, "low_resolution": 0, "noise": 0, "blocks": 0}


def _scenes(count: int) -> tuple[Scenes, torch.Tensor]:
    """Make black pictures with one white ellipse each, which is the face."""
    generator = np.random.default_rng(3)
    levels, boxes = [], []
    for _ in range(count):
        width, height = generator.integers(200, 320, 2)
        radius = generator.uniform(18, 50, 2)
        centre = generator.uniform(60, 140, 2)
        y, x = np.mgrid[:height, :width] + 0.5
        white = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 < 1
        picture = np.repeat((white * 255).astype(np.uint8)[..., None], 3, 2)
        levels += _pyramid(picture)
        boxes.append([*(centre - radius), *(centre + radius)])
    counts = np.array([level.shape[0] * level.shape[1] for level in levels])
    sizes = np.array([[level.shape[1], level.shape[0]] for level in levels])
    scenes = Scenes(
        torch.from_numpy(np.concatenate([level.reshape(-1, 3).T for level in levels], 1)),
        torch.from_numpy((np.cumsum(counts) - counts).reshape(-1, LEVELS)),
        torch.from_numpy(sizes.reshape(-1, LEVELS, 2)),
        torch.tensor(boxes, dtype=torch.float32)[:, None],
        torch.full((count, 1), FACE, dtype=torch.uint8),
    )
    return scenes, torch.ones(count)


def _white_box(picture: np.ndarray) -> np.ndarray:
    y, x = np.nonzero(picture > (picture.min() + picture.max()) / 2)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


@pytest.mark.parametrize(("stitched", "across"), [({}, 1), ({"mosaic": 0.75}, 2), ({"crowd": 0.75}, 4)])
def test_boxes_stand_around_what_they_label(stitched: dict[str, float], across: int) -> None:
    scenes, draws = _scenes(12)
    config = ViewConfig(size=128, pastes=0, **{"mosaic": 0, "crowd": 0, **stitched}, **PLAIN)
    views = random_views(scenes, draws, 64, config, torch.Generator().manual_seed(0))
    views = Views(*(part[-48:] for part in views))  # stitched views come last
    side, off = 128 // across, []
    for picture, boxes, kinds in zip(
        views.pixels.numpy(), views.boxes.numpy(), views.kinds.numpy(), strict=True
    ):
        for box in boxes[kinds == FACE]:
            corner = (box[:2] + box[2:]) // 2 // side * side
            tile = np.array([*corner, *(corner + side)]).astype(int)
            if (box[:2] < tile[:2] + 2).any() or (box[2:] > tile[2:] - 2).any():
                continue
            inside = picture[0, tile[1] : tile[3], tile[0] : tile[2]]
            if inside.max() - inside.min() > 0.2:
                off.append(np.abs(_white_box(inside) + tile[[0, 1, 0, 1]] - box).max())
    assert len(off) >= 20
    # Some views are filled brightly beside their picture: there, what is white is not the face alone.
    assert np.median(off) < 1.0
    assert np.mean(np.array(off) < 1.6) > 0.7


def test_faces_are_as_large_as_asked_for() -> None:
    scenes, draws = _scenes(12)
    config = ViewConfig(size=128, pastes=2, smallest_face=12, largest_face=60)
    views = random_views(scenes, draws, 64, config, torch.Generator().manual_seed(1))
    extent = (views.boxes[..., 2:] - views.boxes[..., :2]).amax(-1)
    assert (extent[views.kinds == FACE] >= 12 * 0.8 - 1e-3).all()
    assert views.pixels.shape == (64, 3, 128, 128)
    assert (views.pixels.min(), views.pixels.max()) >= (0, 0)
    assert views.pixels.max() <= 1


def test_views_follow_from_the_seed() -> None:
    scenes, draws = _scenes(4)
    config = ViewConfig(size=64)
    first, again = (
        random_views(scenes, draws, 8, config, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


def test_the_covered_share_is_counted() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(2, 32, 32, generator=generator) < 0.4
    boxes = torch.tensor([[[2.0, 3, 20, 30], [0, 0, 32, 32]], [[-5.0, 10, 8, 40], [30, 30, 31, 31]]])
    expected = [
        [mask[0, 3:30, 2:20].float().mean(), mask[0].float().mean()],
        [mask[1, 10:32, 0:8].float().mean(), mask[1, 30, 30].float()],
    ]
    torch.testing.assert_close(scene_views._covered(mask, boxes), torch.tensor(expected))


def test_faces_cut_by_the_border_become_doubtful_and_vanish() -> None:
    boxes = torch.tensor([[[-4.0, 0, 16, 20], [-12, 0, 8, 20], [-19, 0, 1, 20]]])
    kinds = torch.full((1, 3), FACE, dtype=torch.uint8)
    assert scene_views._inside_view(boxes, kinds, 64)[1].tolist() == [[FACE, DOUBTFUL, NONE]]


def test_pasted_covers_hide_the_faces_below() -> None:
    scenes, draws = _scenes(6)
    scenes = Scenes(
        torch.zeros_like(scenes.pixels), scenes.starts, scenes.sizes, scenes.boxes, scenes.kinds * 0
    )
    pixels = torch.ones(32, 3, 64, 64)
    boxes = torch.zeros(32, scene_views.SLOTS, 4)
    boxes[:, 0] = torch.tensor([20.0, 20, 44, 44])
    kinds = torch.zeros(32, scene_views.SLOTS, dtype=torch.uint8)
    kinds[:, 0] = FACE
    shares, kept = [], []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        views = scene_views._paste(Views(pixels, boxes, kinds), scenes, draws, ViewConfig(size=64), generator)
        shares.append((views.pixels[:, 0, 20:44, 20:44] < 0.5).float().mean((1, 2)))
        kept.append((views.kinds == FACE).any(1))
    covered, is_face = torch.cat(shares), torch.cat(kept)
    assert torch.equal(is_face, covered <= 0.35)
    assert (~is_face).sum() > 5
    assert (is_face & (covered > 0)).sum() > 20


def test_blocks_are_those_of_the_cosine_transform() -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fine = scene_views._blocks(pixels, torch.full((2,), 1e-4))
    torch.testing.assert_close(fine, pixels, atol=1e-4, rtol=0)
    coarse = scene_views._blocks(pixels, torch.full((2,), 100.0))
    blocks = coarse.reshape(2, 3, 4, 8, 4, 8)
    torch.testing.assert_close(blocks.std((3, 5)), torch.zeros(2, 3, 4, 4), atol=1e-5, rtol=0)


def test_blurring_keeps_brightness_and_lowers_contrast() -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = scene_views._blur(pixels, torch.tensor([0.4, 2.0]))
    torch.testing.assert_close(blurred.mean((1, 2, 3)), pixels.mean((1, 2, 3)), atol=0.01, rtol=0)
    assert pixels[1].std() > 2 * blurred[1].std()
    assert blurred[0].std() > 2 * blurred[1].std()
