"""The face detector's network: a separable ResNet over three strides, each cell of which says score and box.

References
----------
.. [1] A. Howard et al., "MobileNets", 2017 (separable convolutions).
.. [2] T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.
.. [3] Z. Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019 (anchor-free boxes).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou

from facekit.model import fold_batch_norms
from facekit.padding import padded_batch
from facekit.schema import LONGEST_REACH, VOTING_OVERLAP

STRIDES = (8, 16, 32)
"""Pixels of the picture a cell, by level; a picture's sides are multiples of the largest."""


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector's network is built from; it stands in the weights' header.

    Attributes
    ----------
    stem : int
        Channels at stride 4.
    widths : tuple of int
        Channels at strides 8, 16 and 32.
    blocks : tuple of int
        Residual blocks at strides 4, 8, 16 and 32.
    head : int
        Channels of the pyramid and of the head.
    """

    stem: int = 32
    widths: tuple[int, ...] = (48, 96, 128)
    blocks: tuple[int, ...] = (1, 2, 3, 2)
    head: int = 48


class Separable(nn.Module):
    """Depthwise and pointwise convolution, a batch norm each; added to its input where shapes agree [1]_."""

    def __init__(self, channels: int, width: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, size, stride, padding=size // 2, groups=channels, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, width, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(width)
        self.residual = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        """Give (B, width, H / stride, W / stride)."""
        y = self.pointwise_norm(self.pointwise(self.norm(self.depthwise(x))))
        return F.relu(x + y if self.residual else y, inplace=True)


class Cells(NamedTuple):
    """What the network says in each of the A cells of all levels, finest level first.

    Attributes
    ----------
    logits : (B, A) float32
    boxes : (B, A, 4) float32, image edges x0, y0, x1, y1
    """

    logits: Tensor
    boxes: Tensor


class DetectorNetwork(nn.Module):
    """Pictures (B, 3, H, W) in 0..1, sides multiples of 32, to Cells."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        # Tiles of 4x4 pixels: on one core this costs a quarter of two 3x3 convolutions of stride 2.
        tiles = nn.Conv2d(3, config.stem, 4, stride=4, bias=False)
        self.stem = nn.Sequential(
            tiles,
            nn.BatchNorm2d(config.stem),
            nn.ReLU(inplace=True),
            *(Separable(config.stem, config.stem, 5) for _ in range(config.blocks[0])),
        )
        self.stages = nn.ModuleList()
        channels = config.stem
        for width, blocks in zip(config.widths, config.blocks[1:], strict=True):
            deeper = [Separable(width, width, 5) for _ in range(blocks)]
            self.stages.append(nn.Sequential(Separable(channels, width, 5, 2), *deeper))
            channels = width
        self.laterals = nn.ModuleList(
            nn.Identity() if width == config.head else nn.Conv2d(width, config.head, 1)
            for width in config.widths
        )
        self.smooth = nn.ModuleList(Separable(config.head, config.head) for _ in config.widths)
        self.outputs = nn.ModuleList(nn.Conv2d(config.head, 5, 1) for _ in config.widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for output in self.outputs:
            assert isinstance(output, nn.Conv2d)
            assert output.bias is not None
            nn.init.normal_(output.weight, std=0.01)
            nn.init.constant_(output.bias, 0.7)
            # At first a cell is a face to 1%, so that the many empty ones do not swamp the loss.
            nn.init.constant_(output.bias[:1], -math.log(99))

    def forward(self, pictures: Tensor) -> Cells:
        """Give scores and boxes of all cells."""
        x, maps = self.stem(pictures), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        pyramid = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)]
        for level in reversed(range(len(maps) - 1)):
            pyramid[level] = pyramid[level] + F.interpolate(pyramid[level + 1], scale_factor=2.0)
        cells = [
            output(smooth(level))
            for output, smooth, level in zip(self.outputs, self.smooth, pyramid, strict=True)
        ]
        said = torch.cat([level.flatten(2) for level in cells], 2).mT.float()  # (B, A, 5)
        grid = cell_grid(pictures.shape[2], pictures.shape[3], pictures.device)
        reach = said[..., 1:].clamp(max=LONGEST_REACH).exp() * grid[:, 2:]
        boxes = torch.cat([grid[:, :2] - reach[..., :2], grid[:, :2] + reach[..., 2:]], -1)
        return Cells(said[..., 0], boxes)


def cell_grid(height: int, width: int, device: torch.device) -> Tensor:
    """Give each cell's centre, counted as edges are, and stride: (A, 3) float32, finest level first."""
    levels = []
    for stride in STRIDES:
        down = (torch.arange(height // stride, device=device) + 0.5) * stride
        across = (torch.arange(width // stride, device=device) + 0.5) * stride
        y, x = torch.meshgrid(down, across, indexing="ij")
        levels.append(torch.stack([x, y, torch.full_like(x, stride)], -1).flatten(0, 1))
    return torch.cat(levels)


def for_inference(network: DetectorNetwork) -> DetectorNetwork:
    """Give a copy with batch norms folded into convolutions, for pictures in 0..255; threads may share it."""
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    fold_batch_norms(folded)
    tiles = folded.stem[0]
    assert isinstance(tiles, nn.Conv2d)
    tiles.weight /= 255
    return folded


def stack_padded(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Put pictures (H, W, 3) or (H, W) of one padded size on black: (B, 3, H, W) float32, 0..255."""
    return torch.from_numpy(padded_batch(images)).to(device).permute(0, 3, 1, 2).float()


def best_cells(
    cells: Cells, min_logit: float, overlap: float
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Keep the best cell of each face, by non-maximum suppression for the whole batch at once.

    Its box is the mean of those of the cells that agree with it (box voting [1]_).

    Returns
    -------
    list of (boxes (N, 4), logits (N,)), one a picture, the best first

    References
    ----------
    .. [1] S. Gidaris and N. Komodakis, "Object detection via a multi-region and semantic segmentation-aware
       CNN model", ICCV 2015.
    """
    picture, cell = (cells.logits > min_logit).nonzero(as_tuple=True)
    boxes, logits = cells.boxes[picture, cell], cells.logits[picture, cell]
    kept = batched_nms(boxes, logits, picture, overlap)
    agree = (picture[kept, None] == picture) & (box_iou(boxes[kept], boxes) > VOTING_OVERLAP)
    votes = agree * logits.sigmoid()
    voted = votes @ boxes / votes.sum(1, keepdim=True)
    picture_of, own_boxes, own_logits = (part.cpu().numpy() for part in (picture[kept], voted, logits[kept]))
    return [(own_boxes[picture_of == k], own_logits[picture_of == k]) for k in range(len(cells.logits))]
