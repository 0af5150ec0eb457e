"""Pictures of about one size as a batch: padded with black to sides that the detector's network takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEP = 32
"""Sides are multiples of it: the largest stride of the detector's network."""


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Give the height and width that a picture is padded to."""
    return -(-height // STEP) * STEP, -(-width // STEP) * STEP


def padded_batch(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put pictures (H, W, 3) or (H, W) of one padded size on black: (B, H, W, 3) uint8."""
    canvas = np.zeros((len(images), *padded_size(*images[0].shape[:2]), 3), np.uint8)
    for place, image in enumerate(images):
        canvas[place, : image.shape[0], : image.shape[1]] = image.reshape(*image.shape[:2], -1)
    return canvas


def padded_planes(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Give the channels of `padded_batch` apart: (B, 3, H, W) float32, 0..255."""
    import cv2

    batch = padded_batch(images)
    planes = np.empty((len(batch), 3, *batch.shape[1:3]), np.float32)
    for apart, picture in zip(planes, batch, strict=True):
        for plane, channel in zip(apart, cv2.split(picture), strict=True):  # faster than to transpose
            plane[:] = channel
    return planes
