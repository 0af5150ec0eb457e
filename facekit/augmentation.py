"""Varied copies of training crops, for a whole batch at once on its device.

Samples rest as uint8 on canvases that are wider than the network's input; one affine matrix a sample (mirror,
rotation, scale, shift) samples the input from its canvas and moves the points alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from facekit import geometry
from facekit.mirror import mirroring_matrix, swap_sides


@dataclass(frozen=True)
class AugmentConfig:
    """How strongly crops are varied; zeros leave them as they are.

    Attributes
    ----------
    rotation : float
        Largest angle either way, degrees.
    scale : float
        Largest relative change of size either way.
    shift : float
        Largest displacement either way, as a share of the crop's side.
    mirror : bool
        Mirror half of the crops, with left and right swapped.
    swap_sides : bool
        False leaves the points' names when mirroring: only for the experiment that shows what this bug costs.
    contrast, brightness : float
        Largest relative change of contrast, and of brightness as a share of white.
    gamma : float
        Largest relative change of the exponent.
    noise : float
        Largest standard deviation of pixel noise, as a share of white.
    low_resolution : float
        Share of crops that are shrunk by 2, 3 or 4 and enlarged again.
    cutout : float
        Largest side of a rectangle put over the crop, as a share of its side; half of the crops get one.
    """

    rotation: float = 15.0
    scale: float = 0.15
    shift: float = 0.1
    mirror: bool = True
    swap_sides: bool = True
    contrast: float = 0.4
    brightness: float = 0.15
    gamma: float = 0.3
    noise: float = 0.04
    low_resolution: float = 0.15
    cutout: float = 0.45


STILL = AugmentConfig(0, 0, 0, False, True, 0, 0, 0, 0, 0, 0)
"""Leaves crops as they are."""


def canvas_from_crop(canvas: int, size: int) -> Tensor:
    """Give the matrix (2, 3) that puts a crop of `size` pixels a side in the middle of its canvas."""
    margin = (canvas - size) / 2
    return torch.tensor([[1.0, 0.0, margin], [0.0, 1.0, margin]])


def _uniform(count: int, limit: float, generator: Generator) -> Tensor:
    return (torch.rand(count, device=generator.device, generator=generator) * 2 - 1) * limit


def _chosen(count: int, share: float, generator: Generator) -> Tensor:
    return torch.rand(count, device=generator.device, generator=generator) < share


def random_matrices(
    count: int, canvas: int, size: int, config: AugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Draw canvas_from_crop (B, 2, 3) and which samples are mirrored (B,) bool.

    Rotation and scale turn about the crop's centre; mirrored crops are read from right to left.
    """
    angle = _uniform(count, math.radians(config.rotation), generator)
    scale = 1 + _uniform(count, config.scale, generator)
    middle = (size - 1) / 2
    matrix = torch.zeros(count, 2, 3, device=generator.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale * angle.cos()
    matrix[:, 1, 0] = scale * angle.sin()
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    for row in range(2):
        shift = _uniform(count, config.shift * size, generator)
        matrix[:, row, 2] = middle + shift - matrix[:, row, :2].sum(-1) * middle
    matrix = geometry.compose(canvas_from_crop(canvas, size).to(matrix.device), matrix)
    mirrored = _chosen(count, 0.5 if config.mirror else 0.0, generator)
    reading = torch.tensor(mirroring_matrix(size), device=matrix.device)
    return torch.where(mirrored[:, None, None], geometry.compose(matrix, reading), matrix), mirrored


def sample(canvases: Tensor, canvas_from_crop: Tensor, size: int) -> Tensor:
    """Cut crops (B, 1, size, size) float32 0..1 out of canvases (B, 1, S, S) uint8 by matrices (B, 2, 3)."""
    side = canvases.shape[-1]
    theta = geometry.theta(canvas_from_crop, (side, side), (size, size))
    grid = F.affine_grid(theta, [len(canvases), 1, size, size], align_corners=False)
    pixels = canvases.float() / 255
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def vary_light(crops: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Vary contrast, brightness, gamma and resolution, add noise and cover parts of (B, 1, S, S)."""
    count, side = len(crops), crops.shape[-1]

    def each(limit: float) -> Tensor:
        return _uniform(count, limit, generator)[:, None, None, None]

    gain, gamma, offset = 1 + each(config.contrast), 1 + each(config.gamma), each(config.brightness)
    mean = crops.mean((2, 3), keepdim=True)
    crops = ((crops - mean) * gain + mean + offset).clamp(1e-4, 1) ** gamma
    if config.low_resolution:
        kind = torch.rand(count, device=crops.device, generator=generator) / config.low_resolution * 3
        for step in range(3):
            small = F.avg_pool2d(crops, step + 2, ceil_mode=True, count_include_pad=False)
            again = F.interpolate(small, size=side, mode="bilinear", align_corners=False)
            crops = torch.where(((kind >= step) & (kind < step + 1))[:, None, None, None], again, crops)
    if config.noise:
        level = each(config.noise).abs()
        noise = torch.randn(crops.shape, device=crops.device, generator=generator)
        crops = crops + noise * level
    return _cover(crops, config.cutout, generator) if config.cutout else crops


def _cover(crops: Tensor, limit: float, generator: Generator) -> Tensor:
    count, side = len(crops), crops.shape[-1]
    inside = torch.ones(count, side, side, dtype=torch.bool, device=crops.device)
    place = torch.arange(side, device=crops.device)
    for axis in (1, 2):
        length = torch.rand(count, device=crops.device, generator=generator) * limit * side
        centre = torch.rand(count, device=crops.device, generator=generator) * side
        along = (place - centre[:, None]).abs() < length[:, None] / 2
        inside &= along[:, :, None] if axis == 1 else along[:, None, :]
    inside &= _chosen(count, 0.5, generator)[:, None, None]
    gray = torch.rand(count, 1, 1, 1, device=crops.device, generator=generator)
    return torch.where(inside[:, None], gray, crops)


def augment_expression(canvases: Tensor, size: int, config: AugmentConfig, generator: Generator) -> Tensor:
    """Give varied crops of faces in FER2013's frame.

    Parameters
    ----------
    canvases : (B, 1, S, S) uint8, the frame in the middle
    size : int
        Side of the crops, pixels.
    generator : torch.Generator on the canvases' device

    Returns
    -------
    (B, 1, size, size) float32, about 0..1
    """
    matrices, _ = random_matrices(len(canvases), canvases.shape[-1], size, config, generator)
    return vary_light(sample(canvases, matrices, size), config, generator)


def augment_keypoints(
    canvases: Tensor, points_canvas: Tensor, size: int, config: AugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Give varied crops of faces with their points moved alike.

    Parameters
    ----------
    canvases : (B, 1, S, S) uint8, the crop in the middle
    points_canvas : (B, 15, 2) float32, canvas pixels, NaN where missing
    size : int
        Side of the crops, pixels.
    generator : torch.Generator on the canvases' device

    Returns
    -------
    (B, 1, size, size) float32, about 0..1
    (B, 15, 2) float32, crop pixels, NaN where missing
    """
    side = canvases.shape[-1]
    matrices, mirrored = random_matrices(len(canvases), side, size, config, generator)
    points = geometry.apply(geometry.invert(matrices), points_canvas)
    if config.swap_sides:
        points = torch.where(mirrored[:, None, None], swap_sides(points), points)
    return vary_light(sample(canvases, matrices, size), config, generator), points
