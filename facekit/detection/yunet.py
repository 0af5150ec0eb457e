"""YuNet, from a model file of the user's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facekit.data.cache import cache_folder
from facekit.detection.candidates import LONGEST_SIDE, NMS_OVERLAP, in_order, shrink
from facekit.detection.interface import BoxFraming, Detections, Image
from facekit.detection.per_thread import PerThread
from facekit.errors import DetectorError
from facekit.schema import BOX_FACTOR

LEAST_SIDE = 8
"""Pixels; in smaller pictures YuNet sees faces in its padding, and its answers differ from run to run."""


class YuNetDetector:
    """YuNet through OpenCV, from a model file that the user gives [1]_.

    Parameters
    ----------
    model_file : path-like
        ``face_detection_yunet_*.onnx`` of OpenCV's model zoo.
    min_score : float, optional
        Default 0.6.
    longest_side : int
        Larger pictures are shrunk to it, pixels.

    Raises
    ------
    DetectorError
        The file is missing or is no such model.

    References
    ----------
    .. [1] W. Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023.
    """

    name = "yunet"
    # Medians over the 1,207 faces of the Helen training set and AFW: (0.006, 0.053), 0.997.
    face_from_box = BoxFraming((0.0, 0.053), 1 / BOX_FACTOR)

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        min_score: float | None = None,
        longest_side: int = LONGEST_SIDE,
    ) -> None:
        self.min_score = 0.6 if min_score is None else min_score
        self.longest_side = longest_side
        self._network = PerThread(lambda: _load_yunet(Path(model_file), self.min_score))
        self._network.get()

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """See Detector."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Image) -> Detections:
        import cv2

        small, boxes_scale = shrink(image, self.longest_side)
        if min(small.shape[:2]) < LEAST_SIDE:
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        code = cv2.COLOR_GRAY2BGR if small.ndim == 2 else cv2.COLOR_RGB2BGR
        network = self._network.get()
        network.setInputSize((small.shape[1], small.shape[0]))
        _, found = network.detect(cv2.cvtColor(small, code))
        rows = np.zeros((0, 15)) if found is None else np.asarray(found, np.float64)
        rows = rows[np.isfinite(rows).all(1)]  # the padding of narrow pictures gives infinities too
        boxes = rows[:, :4]
        boxes[:, 2:] += boxes[:, :2]
        return in_order(boxes * boxes_scale, rows[:, 14], self.min_score, image)


def _load_yunet(path: Path, min_score: float) -> Any:
    import cv2

    if not path.is_file():
        raise DetectorError(f"{path}: no such file; expected YuNet's ONNX model (detector_model)")
    try:
        return cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_score, NMS_OVERLAP, 5000)
    except cv2.error as error:
        raise DetectorError(f"{path}: OpenCV cannot read it as a YuNet model: {error}") from error


def find_model() -> Path:
    """Find the newest model in the cache folder; raise DetectorError where there is none."""
    folder = cache_folder()
    found = sorted(folder.glob("face_detection_yunet*.onnx"))
    if not found:
        raise DetectorError(
            f"no YuNet model: give its file (--detector-model, detector_model=) or put "
            f"face_detection_yunet*.onnx, from OpenCV's model zoo, into {folder}"
        )
    return found[-1]
