"""facekit's own detector."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.backends import check_backend
from facekit.detection.candidates import LONGEST_SIDE, in_order, nms, shrink
from facekit.detection.interface import BoxFraming, Detections, Image
from facekit.detection_metrics import sigmoid
from facekit.padding import padded_size
from facekit.schema import BOX_FACTOR, VOTING_OVERLAP

USUAL_PIXELS = 640 * 480
"""Of a picture; of larger ones fewer go through the network together."""

LARGEST_TRAINED_FACE = 350
"""Longest side, pixels of a view; eyes and mouths of larger faces look like faces."""

INSIDE = 0.75
"""Share of such a part's box that lies in the face's."""

LARGE_FACES = 512
"""Larger pictures, pixels, are also seen at half their size, and so on: training showed few larger faces, and
few that fill the picture."""

LAST_LOOK = 256
"""Where no face is sure, pictures above this, pixels, are seen at half their size too, and so on."""

SURE = 0.85
"""Default least score; a face of this score keeps a picture from being looked at again."""

LARGE_FACE = 48
"""Least side, pixels, of the boxes that count in such a view; the others are seen better in larger ones."""


class FacekitDetector:
    """facekit's own network, in whole batches, on CPU or an accelerator.

    Pictures above LARGE_FACES are looked at again at half their size, and so on; smaller ones where no face
    in them is sure.

    Its boxes reach from forehead to chin and from ear to ear, as YuNet's do, which labelled its training
    pictures. Its scores are calibrated: of the detections with score p, a share p is right.

    Parameters
    ----------
    weights : str or path-like
        Of the detector: a shipped name or a file.
    min_score : float, optional
        Default 0.85: on held-out pictures more faces than Haar's cascades find, and no more false ones.
    longest_side : int
        Larger pictures are shrunk to it, pixels.
    least_side : int
        Pictures whose longest side is smaller are enlarged to it, for the small faces in them.
    device : str
        auto, cpu, cuda, cuda:N or mps.
    batch_size : int
        Pictures of up to 640x480 that go through the network together, where their sizes agree; of larger
        ones fewer, so that they need no more memory.
    backend : str
        torch or onnx.

    Raises
    ------
    WeightsError, ConfigError
    """

    name = "facekit"
    face_from_box = BoxFraming((0.0, 0.053), 1 / BOX_FACTOR)

    def __init__(
        self,
        weights: str | os.PathLike[str] = "detector",
        min_score: float | None = None,
        longest_side: int = LONGEST_SIDE,
        least_side: int = 320,
        device: str = "auto",
        batch_size: int = 32,
        backend: str = "torch",
    ) -> None:
        header, self._run = _detector_network(weights, device, backend)
        self.min_score = SURE if min_score is None else min_score
        self.longest_side, self.least_side, self.batch_size = longest_side, least_side, batch_size
        self._slope, self._offset = header["slope"], header["offset"]

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """See Detector."""
        views = [self._views(place, image) for place, image in enumerate(images)]
        found: list[list[Found]] = [[] for _ in images]
        self._look([view for own in views for view in own], found)
        sure = self._logit(SURE)
        unsure = [own[-1] for own, parts in zip(views, found, strict=True) if not _any_above(sure, parts)]
        self._look([half for view in unsure for half in _halves(view, LAST_LOOK)], found)
        return [
            self._joined(image, own[0], parts) for image, own, parts in zip(images, views, found, strict=True)
        ]

    def _views(self, place: int, image: Image) -> list[_View]:
        """Give a picture at its size for the network, and halved for large faces until it is small."""
        whole = _View(place, *shrink(image, self.longest_side, self.least_side), 0)
        return [whole, *_halves(whole, LARGE_FACES)]

    def _logit(self, score: float) -> float:
        odds = math.log(max(score, 1e-6) / max(1 - score, 1e-6))
        return float((odds - self._offset) / self._slope)

    def _look(self, views: Sequence[_View], found: Sequence[list[Found]]) -> None:
        """Add what views show to what is found in each picture."""
        min_logit = self._logit(min(self.min_score, SURE))
        sizes: dict[tuple[int, int], list[_View]] = {}
        for view in views:
            sizes.setdefault(padded_size(*view.picture.shape[:2]), []).append(view)
        for (height, width), alike in sizes.items():
            together = max(1, min(self.batch_size, self.batch_size * USUAL_PIXELS // (height * width)))
            for start in range(0, len(alike), together):
                batch = alike[start : start + together]
                cells = self._run([view.picture for view in batch], min_logit)
                for view, (boxes, logits) in zip(batch, cells, strict=True):
                    large = (boxes[:, 2:] - boxes[:, :2]).min(1) >= view.least
                    found[view.place].append((boxes[large] * view.factors, logits[large]))

    def _joined(self, image: Image, whole: _View, found: Sequence[Found]) -> Detections:
        boxes, logits = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if len(found) > 1:
            kept = nms(boxes, logits)
            boxes, logits = boxes[kept], logits[kept]
        faces = ~_are_parts(boxes, logits, LARGEST_TRAINED_FACE * whole.factors.max())
        boxes, logits = boxes[faces], logits[faces]
        return in_order(boxes, sigmoid(self._slope * logits + self._offset), self.min_score, image)


@dataclass(frozen=True)
class _View:
    """A picture as the network sees it.

    Attributes
    ----------
    place : int
        Of the picture in its batch.
    picture : (H, W, 3) uint8
    factors : (4,) float64
        What bring boxes back to the picture.
    least : float
        Least side of the boxes that count, pixels of the view.
    """

    place: int
    picture: Image
    factors: NDArray[np.float64]
    least: float


Found = tuple[NDArray[Any], NDArray[Any]]
"""Boxes (N, 4), pixels of the picture, and logits (N,)."""


def _halves(view: _View, until: int) -> Iterator[_View]:
    """Give a view at half its size, and so on, until its longest side is at most `until`."""
    while (longest := max(view.picture.shape[:2])) > until:
        half, further = shrink(view.picture, longest // 2)
        view = _View(view.place, half, view.factors * further, LARGE_FACE)
        yield view


def _any_above(logit: float, found: Sequence[Found]) -> bool:
    return any((logits > logit).any() for _, logits in found)


BestCells = Callable[[Sequence[Image], float], list[tuple[NDArray[np.float32], NDArray[np.float32]]]]
"""Gives, of pictures of one padded size and a least logit, each picture's boxes (N, 4) and logits (N,)."""


def _detector_network(
    weights: str | os.PathLike[str], device: str, backend: str
) -> tuple[Mapping[str, Any], BestCells]:
    """Give the header of a detector's weights, and its network with non-maximum suppression."""
    check_backend(backend)
    if backend == "onnx":
        from facekit.backends.onnx import OnnxDetector

        cells = OnnxDetector(weights)

        def run_onnx(images: Sequence[Image], min_logit: float) -> list[tuple[Any, Any]]:
            return [_voted(*said, cells.header["overlap"]) for said in cells(images, min_logit)]

        return cells.header, run_onnx
    import torch

    from facekit.backends.torch import choose_device
    from facekit.detector_network import best_cells, for_inference, stack_padded
    from facekit.weights import load_detector

    network, header = load_detector(weights)
    chosen = choose_device(device)
    folded = for_inference(network).to(chosen).to(memory_format=torch.channels_last)

    def run_torch(images: Sequence[Image], min_logit: float) -> list[tuple[Any, Any]]:
        with torch.inference_mode():
            return best_cells(folded(stack_padded(images, chosen)), min_logit, header["overlap"])

    return header, run_torch


def _voted(
    boxes: NDArray[np.float32], logits: NDArray[np.float32], overlap: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give faces as `detector_network.best_cells` does."""
    kept = nms(boxes, logits, overlap)
    agree = geometry.overlaps(boxes[kept], boxes) > VOTING_OVERLAP
    votes = agree * sigmoid(logits)
    return np.asarray(votes @ boxes / votes.sum(1, keepdims=True), np.float32), logits[kept]


def _are_parts(boxes: NDArray[Any], scores: NDArray[Any], largest: float) -> NDArray[np.bool_]:
    """Tell which boxes (N,) are parts of a face longer than `largest`: they lie in a surer box."""
    long = (boxes[:, 2:] - boxes[:, :2]).max(1) > largest
    inside = geometry.intersections(boxes[long], boxes) > INSIDE * geometry.areas(boxes)
    return np.asarray((inside & (scores[long, None] > scores)).any(0))
