"""Training samples as uint8 tensors that lie on the device: canvases around each crop, with their targets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit import geometry
from facekit.data.label_boxes import label_boxes
from facekit.data.reading import read_ahead
from facekit.data.samples import Dataset
from facekit.errors import DatasetError, ImageError
from facekit.images import to_gray
from facekit.schema import ALIGNED_SIZE, FERPLUS

KEYPOINT_CANVAS = 160
EXPRESSION_CANVAS = 64
MARGIN = (EXPRESSION_CANVAS - ALIGNED_SIZE) // 2
ALIGNED_TOGETHER = 256

_log = logging.getLogger(__name__)
_T = TypeVar("_T", bound="KeypointSamples | ExpressionSamples")


@dataclass(frozen=True)
class KeypointSamples:
    """Faces with points.

    Attributes
    ----------
    canvases : (N, 1, 160, 160) uint8, stage 1's 96x96 crop in the middle
    points_canvas : (N, 15, 2) float32, canvas pixels, NaN where missing
    draws : (N,) float32, how often a sample is drawn, relative to the others
    """

    canvases: Tensor
    points_canvas: Tensor
    draws: Tensor

    def __len__(self) -> int:
        return len(self.canvases)


@dataclass(frozen=True)
class ExpressionSamples:
    """Faces with expressions.

    Attributes
    ----------
    canvases : (N, 1, 64, 64) uint8, the aligned 48x48 crop in the middle
    draws : (N,) float32, how often a sample is drawn an epoch
    targets : (N, sum of C) float32, each head's target distribution, heads side by side
    weights : (N, heads) float32, 0 where the sample says nothing to the head
    """

    canvases: Tensor
    draws: Tensor
    targets: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.canvases)


def to_device(samples: _T, device: torch.device) -> _T:
    """Move samples to a device."""
    return type(samples)(*(getattr(samples, field.name).to(device) for field in fields(samples)))


def take(samples: _T, which: NDArray[Any]) -> _T:
    """Give the samples that a mask (N,) of bool or an array of places names."""
    index = torch.from_numpy(np.asarray(which))
    return type(samples)(*(getattr(samples, field.name)[index] for field in fields(samples)))


def join(parts: Sequence[_T]) -> _T:
    """Put samples one after the other."""
    first = parts[0]
    columns = ([getattr(part, field.name) for part in parts] for field in fields(first))
    return type(first)(*(torch.cat(column) for column in columns))


def read_pictures(dataset: Dataset) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Read a dataset's pictures in order, a few ahead; how many cannot be read is logged.

    Yields
    ------
    place : int
    gray : (H, W) uint8
    """
    unread = []
    for place, picture in read_ahead(dataset, np.arange(len(dataset))):
        if isinstance(picture, ImageError):
            unread.append(picture)
        else:
            yield place, to_gray(picture)
    if unread:
        _log.warning("%s: %d pictures are left out, the first: %s", dataset.path, len(unread), unread[0])


def keypoint_samples(
    dataset: Dataset, crop_factor: float, draw: float
) -> tuple[KeypointSamples, NDArray[np.int64]]:
    """Cut stage 1's canvases around labelled faces.

    Parameters
    ----------
    dataset : Dataset with points
    crop_factor : float
        Side of stage 1's crop over the side of the square around the 15 points.
    draw : float
        How often each sample is drawn, relative to other sets' samples.

    Returns
    -------
    KeypointSamples of M faces
    (M,) int64, the dataset's samples that they show
    """
    assert dataset.points is not None
    boxes = geometry.square(label_boxes(dataset.points), crop_factor * KEYPOINT_CANVAS / 96)
    image_from_canvas = geometry.crop(boxes.astype(np.float64), KEYPOINT_CANVAS)
    points = geometry.apply(geometry.invert(image_from_canvas), dataset.points)
    usable = np.isfinite(boxes).all(1)
    canvases = np.empty((len(dataset), 1, KEYPOINT_CANVAS, KEYPOINT_CANVAS), np.uint8)
    kept = []
    for place, gray in read_pictures(dataset):
        if usable[place]:
            canvases[place, 0] = geometry.warp_picture(gray, image_from_canvas[place], KEYPOINT_CANVAS)
            kept.append(place)
    _log.info("%s: %d faces with points", dataset.name, len(kept))
    samples = KeypointSamples(
        torch.from_numpy(canvases[kept]),
        torch.from_numpy(points[kept].astype(np.float32)),
        torch.full((len(kept),), draw),
    )
    return samples, np.array(kept, np.int64)


Aligner = Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float64]]
"""Gives image_from_aligned (B, 2, 3) of gray pictures (H, W), NaN where no face was found."""


def expression_canvases(
    dataset: Dataset, aligner: Aligner | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Cut stage 2's canvases: FER2013's own pixels as they are, every other picture by the aligner.

    Parameters
    ----------
    dataset : Dataset
    aligner : Aligner or None
        None if the dataset's pictures are FER2013's.

    Returns
    -------
    canvases : (M, 64, 64) uint8
    places : (M,) int64, the dataset's samples that they show

    Raises
    ------
    DatasetError
        There are none.
    """
    canvases, places, faceless = [], [], 0
    pictures = read_pictures(dataset)
    while chunk := list(islice(pictures, ALIGNED_TOGETHER)):
        grays = [gray for _, gray in chunk]
        if dataset.fer2013_frame or aligner is None:
            canvases += [np.pad(gray, MARGIN, mode="edge") for gray in grays]
            places += [place for place, _ in chunk]
            continue
        for (place, gray), matrix in zip(chunk, aligner(grays), strict=True):
            if np.isnan(matrix).any():
                faceless += 1
                continue
            canvases.append(_canvas(gray, matrix))
            places.append(place)
    if faceless:
        _log.warning("%s: no face found in %d pictures, which are left out", dataset.path, faceless)
    if not canvases:
        raise DatasetError(f"{dataset.path}: no faces to train on among {len(dataset)} training pictures")
    return np.stack(canvases), np.array(places, np.int64)


def reframed_canvases(
    canvases: NDArray[np.uint8], aligner: Aligner, shares: Sequence[float]
) -> NDArray[np.uint8]:
    """Cut faces that come framed as FER2013's are once more, at shares of the way to the aligned ones.

    Parameters
    ----------
    canvases : (N, 64, 64) uint8
        Of the faces as they are framed.
    aligner : Aligner
        One that finds a face in every picture.
    shares : sequence of S floats

    Returns
    -------
    (S, N, 64, 64) uint8
    """
    framed = list(np.ascontiguousarray(canvases[:, MARGIN:-MARGIN, MARGIN:-MARGIN]))
    starts = range(0, len(framed), ALIGNED_TOGETHER)
    aligned = np.concatenate([aligner(framed[start : start + ALIGNED_TOGETHER]) for start in starts])
    given, reframed = np.eye(2, 3), np.empty((len(shares), *canvases.shape), np.uint8)
    for views, share in zip(reframed, shares, strict=True):
        for view, gray, matrix in zip(views, framed, aligned, strict=True):
            view[:] = _canvas(gray, geometry.between(given, matrix, share))
    return reframed


def _canvas(gray: NDArray[np.uint8], image_from_crop: geometry.Floats) -> NDArray[np.uint8]:
    canvas_inside = np.array([[1.0, 0.0, -MARGIN], [0.0, 1.0, -MARGIN]])
    return geometry.warp_picture(gray, geometry.compose(image_from_crop, canvas_inside), EXPRESSION_CANVAS)


def expression_samples(
    canvases: NDArray[np.uint8],
    dataset: Dataset,
    heads: Mapping[str, tuple[str, ...]],
    own_head: str | None,
    default_weight: float,
    draw: float,
) -> ExpressionSamples:
    """Put targets beside canvases.

    The default head (FER2013's seven classes) learns from every set by `default_weight`; a set's own head
    learns from that set alone; the FER+ head learns the taggers' votes.

    Parameters
    ----------
    canvases : (N, 64, 64) uint8
    dataset : Dataset of the N samples, with labels
    heads : mapping of head to classes
    own_head : str or None
        The head of this set's own label convention.
    default_weight : float
        Weight of this set's labels for the default head.
    draw : float
        How often each sample is drawn an epoch.
    """
    assert dataset.labels is not None
    targets, weights = [], []
    for head, classes in heads.items():
        if head == "ferplus":
            target, weight = _votes(dataset)
        else:
            default = head == next(iter(heads))
            importance = default_weight if default else float(head == own_head)
            target, weight = _one_hot(dataset.labels, classes, importance)
        targets.append(target)
        weights.append(weight)
    return ExpressionSamples(
        torch.from_numpy(canvases)[:, None],
        torch.full((len(dataset),), draw),
        torch.from_numpy(np.concatenate(targets, 1).astype(np.float32)),
        torch.from_numpy(np.stack(weights, 1).astype(np.float32)),
    )


def _one_hot(
    labels: NDArray[Any], classes: tuple[str, ...], weight: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    target = np.array([[label == name for name in classes] for label in labels], np.float32)
    return target, target.sum(1) * np.float32(weight)


def _votes(dataset: Dataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if dataset.votes is None:
        nothing = np.zeros((len(dataset), len(FERPLUS)), np.float32)
        return nothing, nothing[:, 0]
    votes = dataset.votes[:, : len(FERPLUS)].astype(np.float32)
    total = votes.sum(1, keepdims=True)
    return votes / np.maximum(total, 1), (total[:, 0] > 0).astype(np.float32)
