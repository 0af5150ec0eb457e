"""No detector: the picture is the face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facekit.detection.interface import BoxFraming, Detections, Image
from facekit.schema import BOX_FACTOR


class WholePicture:
    """Takes each picture as one face, for face crops framed as FER2013's are."""

    name = "none"
    # The mean face of Helen, fitted to the mean eyes, nose and mouth corners of FER2013's 48x48 pictures.
    face_from_box = BoxFraming((0.005, 0.063), 1.054 / BOX_FACTOR)

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """See Detector."""
        wholes = [np.array([[0.0, 0.0, image.shape[1], image.shape[0]]], np.float32) for image in images]
        return [Detections(whole, np.ones(1, np.float32)) for whole in wholes]
