"""What a detector is: pictures in, boxes and scores out, and how boxes become stage 1's crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facekit import geometry

Image = NDArray[np.uint8]

LEEWAY = 1.1
"""How much wider a detector's box is cropped than the square around labelled points: what a box cuts off is
lost. Keypoints are as exact (100 held-out Helen faces), and faces are not lost in videos."""


@dataclass(frozen=True)
class Detections:
    """The faces of one picture, largest first; equal areas by y0, then x0.

    Attributes
    ----------
    boxes : (N, 4) float32, image edges x0, y0, x1, y1; they pass the picture's border where a face does
    scores : (N,) float32, 0..1
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        """Count the faces."""
        return len(self.boxes)


@dataclass(frozen=True)
class BoxFraming:
    """How a detector's box is brought to another square, in units of the box's longer side.

    The box is made square about its centre, moved by `shift` (right and down), and scaled by `scale`.
    """

    shift: tuple[float, float]
    scale: float

    def scaled(self, factor: float) -> BoxFraming:
        """Give the framing of a square that is so many times as large about the same centre."""
        return BoxFraming(self.shift, self.scale * factor)

    def crop(self, crop_factor: float) -> BoxFraming:
        """Give the framing of stage 1's crop from that of the square around the points."""
        return self.scaled(LEEWAY * crop_factor)


class Detector(Protocol):
    """Finds the faces of pictures; threads may share it.

    Attributes
    ----------
    name : str
    face_from_box : BoxFraming
        From this detector's boxes to the squares around the faces' points, which a crop factor makes crops.
    """

    name: str
    face_from_box: BoxFraming

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """Find the faces of each picture.

        Parameters
        ----------
        images : sequence of (H, W, 3) uint8, RGB, or (H, W), gray; of any sizes

        Returns
        -------
        list of Detections, one a picture, empty where there is no face
        """
        ...


def crop_boxes(boxes: NDArray[np.float32], framing: BoxFraming) -> NDArray[np.float32]:
    """Give squares (N, 4), image edges, such as stage 1's crops, of a detector's boxes (N, 4)."""
    return np.asarray(geometry.square(boxes, framing.scale, framing.shift), np.float32)
