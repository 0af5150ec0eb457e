"""What runs the arithmetic: warping crops out of pictures and the two forward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Crops = Any
"""A batch of crops in the backend's own array type, on its device."""


class Backend(Protocol):
    """One set of weights on one device."""

    @property
    def name(self) -> str:
        """Name of the weights."""
        ...

    @property
    def header(self) -> Mapping[str, Any]:
        """The weights' header, see weights.Weights."""
        ...

    def warp(
        self,
        grays: Sequence[NDArray[np.uint8]],
        picture_of_face: NDArray[np.int64],
        image_from_crop: NDArray[np.float64],
        size: int,
    ) -> Crops:
        """Cut crops out of gray pictures (H, W) by matrices (N, 2, 3)."""
        ...

    def keypoints(self, crops: Crops) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give points (N, 15, 2) and expected errors (N, 15), crop pixels, of 96x96 crops."""
        ...

    def expression(self, crops: Crops, head: str) -> NDArray[np.float32]:
        """Give a head's logits (N, C) of 48x48 crops."""
        ...
