"""What detectors share: pictures shrunk to their size, one box a face, faces in order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.detection.interface import Detections, Image

NMS_OVERLAP = 0.3
"""Boxes that overlap by more (intersection over union) are the same face."""

VISIBLE = 1 / 3
"""Least share of a face's box that lies in the picture: YuNet sees faces in the padding of narrow ones."""

LONGEST_SIDE = 960
"""Pixels; larger pictures are shrunk to it before a network sees them, unless told otherwise."""


def shrink(image: Image, longest_side: int, least: int = 0) -> tuple[Image, NDArray[np.float64]]:
    """Give the picture, no longer than `longest_side` pixels, and the factors (4,) that bring boxes back.

    A picture whose longest side is below `least` is enlarged to it.
    """
    import cv2

    height, width = image.shape[:2]
    longest = max(height, width)
    side = min(max(longest, least), longest_side)
    if side == longest:
        return np.ascontiguousarray(image), np.ones(4)
    size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
    way = cv2.INTER_AREA if side < longest else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
    return resized, np.tile([width / size[0], height / size[1]], 2)


def nms(boxes: NDArray[Any], scores: NDArray[Any], overlap: float = NMS_OVERLAP) -> NDArray[np.int64]:
    """Give the places of the best box of each face: non-maximum suppression."""
    rest, kept = np.argsort(-scores, kind="stable"), []
    while len(rest):
        kept.append(rest[0])
        best, rest = rest[:1], rest[1:]
        rest = rest[geometry.overlaps(boxes[best], boxes[rest])[0] <= overlap]
    return np.array(kept, np.int64)


def in_order(boxes: NDArray[Any], scores: NDArray[Any], min_score: float, image: Image) -> Detections:
    """Keep what is well in the picture and scores enough, in the stable order of Detections."""
    height, width = image.shape[:2]
    seen = geometry.areas(boxes.clip(0, [width, height, width, height]))
    possible = (scores >= min_score) & (seen >= VISIBLE * geometry.areas(boxes))
    boxes, scores = boxes[possible].astype(np.float32), scores[possible].astype(np.float32)
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -geometry.areas(boxes)))
    return Detections(boxes[order], scores[order])
