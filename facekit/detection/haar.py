"""OpenCV's Haar cascades."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.detection.candidates import in_order, nms, shrink
from facekit.detection.interface import BoxFraming, Detections, Image
from facekit.detection.per_thread import PerThread
from facekit.detection_metrics import sigmoid
from facekit.errors import DetectorError
from facekit.images import to_gray
from facekit.mirror import mirror_boxes, mirror_image
from facekit.schema import BOX_FACTOR

LONGEST_SIDE = 640
"""Pixels; Haar's cascades take half a second for this already."""


class HaarDetector:
    """OpenCV's cascades of Haar features: frontal faces, and profiles to both sides [1]_.

    Parameters
    ----------
    min_score : float, optional
        Default 0.5.

    Raises
    ------
    DetectorError
        This OpenCV has no cascades (5.0 dropped them).

    References
    ----------
    .. [1] P. Viola, M. Jones, "Rapid object detection using a boosted cascade of simple features", CVPR 2001.
    """

    name = "haar"
    # Medians over the 1,087 faces of the Helen training set and AFW that it finds: (0.002, 0.066), 1.078.
    face_from_box = BoxFraming((0.0, 0.066), 1.08 / BOX_FACTOR)

    def __init__(self, min_score: float | None = None) -> None:
        self.min_score = 0.5 if min_score is None else min_score
        self._cascades = PerThread(_load_cascades)
        self._cascades.get()

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """See Detector."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Image) -> Detections:
        small, boxes_scale = shrink(to_gray(image), LONGEST_SIDE)
        boxes: list[NDArray[Any]] = [np.zeros((0, 4))]
        scores: list[NDArray[Any]] = [np.zeros(0)]
        frontal, profile = self._cascades.get()
        for cascade, step, slope, offset, shift, mirrored in (
            # Slope and offset: logistic fit of "overlaps a face that YuNet finds" to the last stage's sum.
            (frontal, 1.1, 0.741, -1.389, 0.0, False),
            # Profile boxes sit towards the back of the head, by 15% of their side.
            (profile, 1.2, 1.230, 0.871, -0.15, False),
            (profile, 1.2, 1.230, 0.871, -0.15, True),
        ):
            seen = np.ascontiguousarray(mirror_image(small)) if mirrored else small
            found, _, sums = cascade.detectMultiScale3(seen, step, 3, 0, (20, 20), outputRejectLevels=True)
            if not len(found):
                continue
            edges = np.asarray(found, np.float64)
            edges[:, 2:] += edges[:, :2]
            edges = geometry.square(edges, 1.0, (shift, 0.0))
            boxes.append(mirror_boxes(edges, small.shape[1]) if mirrored else edges)
            scores.append(sigmoid(slope * np.ravel(sums) + offset))
        faces, all_scores = np.concatenate(boxes), np.concatenate(scores)
        kept = nms(faces, all_scores)
        return in_order(faces[kept] * boxes_scale, all_scores[kept], self.min_score, image)


def _load_cascades() -> tuple[Any, Any]:
    import cv2
    import cv2.data

    folder = Path(cv2.data.haarcascades)
    paths = [folder / f"haarcascade_{kind}.xml" for kind in ("frontalface_default", "profileface")]
    # OpenCV 5 has neither, unless a package of contributed modules brings the class alone.
    if not hasattr(cv2, "CascadeClassifier") or not all(path.is_file() for path in paths):
        raise DetectorError(f"OpenCV {cv2.__version__} has no Haar cascades: install opencv-python below 5")
    cascades = [cv2.CascadeClassifier(str(path)) for path in paths]
    for path, cascade in zip(paths, cascades, strict=True):
        if cascade.empty():
            raise DetectorError(f"{path}: not a cascade; reinstall opencv-python")
    return cascades[0], cascades[1]
