"""Whole pictures with labelled faces, to train the detector: folders read into tensors on the device.

A folder holds pictures, at any depth, and faces.csv with the columns image (path in the folder), x0, y0, x1,
y1 (edges, pixels) and score (the labeller's, 0..1; 1 for a label that is certain). A picture without a line
has no face.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit import geometry
from facekit.data.files import photo_of, read_rows
from facekit.data.holdout import held_out
from facekit.errors import DatasetError
from facekit.images import find_pictures, read_image

FACES = "faces.csv"
COLUMNS = ("x0", "y0", "x1", "y1", "score")
FACE, DOUBTFUL, NONE = 1, 2, 0
"""Kinds of labels: a face; neither face nor background; no label (padding)."""
CERTAIN = 0.7
"""Labels with at least this score are faces; those below are doubtful."""
SMALLEST = 8.0
"""Faces with a shorter longer side are doubtful, pixels."""
LEVELS = 6
"""Sizes at which a picture is kept, each half of the one before, so that shrinking does not alias."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Labelled pictures.

    Attributes
    ----------
    paths : tuple of Path
    faces : tuple of (N, 5) float32, one a picture
        Edges x0, y0, x1, y1 and score.
    """

    paths: tuple[Path, ...]
    faces: tuple[NDArray[np.float32], ...]

    def select(self, which: NDArray[np.bool_]) -> Labels:
        """Give the pictures that a mask names."""
        places = np.flatnonzero(which)
        return Labels(tuple(self.paths[k] for k in places), tuple(self.faces[k] for k in places))


def read_labels(folders: Sequence[Path]) -> Labels:
    """List folders' pictures with the labels of their faces.csv.

    Raises
    ------
    DatasetError
        A faces.csv is missing or malformed, or names a picture that is not there.
    """
    paths: list[Path] = []
    faces: list[NDArray[np.float32]] = []
    for folder in folders:
        if not (folder / FACES).is_file():
            raise DatasetError(f"{folder}: no {FACES}; benchmarks/label_scenes.py writes such a folder")
        pictures = find_pictures(folder)
        labels: dict[Path, list[list[float]]] = {path: [] for path in pictures}
        for row, cells in read_rows(folder / FACES, ("image", *COLUMNS)):
            where = f"{folder / FACES}, row {row}"
            name = cells.get("image", "")
            if folder / name not in labels:
                raise DatasetError(f"{where}: no picture {name!r} in the folder")
            try:
                labels[folder / name].append([float(cells[column]) for column in COLUMNS])
            except (KeyError, ValueError) as error:
                raise DatasetError(f"{where}: expected numbers {', '.join(COLUMNS)}: {error}") from error
        paths += pictures
        faces += [np.array(labels[path], np.float32).reshape(-1, len(COLUMNS)) for path in pictures]
    return Labels(tuple(paths), tuple(faces))


def split_labels(labels: Labels, count_of: Mapping[str, int]) -> tuple[Labels, Labels]:
    """Split by photo into training and held-out pictures.

    Parameters
    ----------
    labels : Labels
    count_of : mapping of subfolder to int
        How many of its pictures are held out. Pictures of other subfolders that show the same photo
        (``100032540_1``, ``100032540_2``) are in neither part.
    """
    folders = np.array([path.parent.name for path in labels.paths])
    photos = np.array([photo_of(path.stem) for path in labels.paths])
    held = np.zeros(len(photos), np.bool_)
    for folder, count in count_of.items():
        inside = np.flatnonzero(folders == folder)
        held[inside[held_out(list(photos[inside]), count)]] = True
    return labels.select(~np.isin(photos, photos[held])), labels.select(held)


def kinds_of(faces: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Say of labels (N, 5) whether they are a FACE or DOUBTFUL."""
    extent = (faces[:, 2:4] - faces[:, :2]).max(1, initial=0)
    return np.where((faces[:, 4] >= CERTAIN) & (extent >= SMALLEST), FACE, DOUBTFUL).astype(np.uint8)


@dataclass(frozen=True)
class Scenes:
    """M pictures of any sizes, as one row of pixels in which each picture's levels follow one another.

    Attributes
    ----------
    pixels : (3, P) uint8
    starts : (M, LEVELS) int64, a level's first pixel
    sizes : (M, LEVELS, 2) int64, width and height of a level
    boxes : (M, G, 4) float32, image edges, pixels of the first level
    kinds : (M, G) uint8, FACE, DOUBTFUL or NONE
    """

    pixels: Tensor
    starts: Tensor
    sizes: Tensor
    boxes: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.starts)


def load_scenes(labels: Labels, device: torch.device) -> Scenes:
    """Read the pictures onto a device.

    Raises
    ------
    ImageError
        A picture cannot be read.
    """
    levels: list[NDArray[np.uint8]] = []
    for path in labels.paths:
        levels += _pyramid(read_image(path))
    counts = np.array([level.shape[0] * level.shape[1] for level in levels], np.int64)
    starts = (np.cumsum(counts) - counts).reshape(-1, LEVELS)
    sizes = np.array([[level.shape[1], level.shape[0]] for level in levels], np.int64)
    boxes, kinds = _padded(labels.faces)
    _log.info("%d pictures with %d faces", len(labels.paths), (kinds == FACE).sum())
    return Scenes(
        torch.from_numpy(np.concatenate([level.reshape(-1, 3).T for level in levels], 1)).to(device),
        torch.from_numpy(starts).to(device),
        torch.from_numpy(sizes.reshape(-1, LEVELS, 2)).to(device),
        torch.from_numpy(boxes).to(device),
        torch.from_numpy(kinds).to(device),
    )


def _pyramid(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Halve a picture by averaging 2x2 pixels; an odd last row or column is dropped."""
    import cv2

    levels = [image]
    for _ in range(LEVELS - 1):
        height, width = (max(1, side // 2) for side in levels[-1].shape[:2])
        even = levels[-1][: max(1, height * 2), : max(1, width * 2)]
        small = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(small, np.uint8))
    return levels


def _padded(faces: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    most = max((len(own) for own in faces), default=0)
    boxes = np.zeros((len(faces), max(most, 1), 4), np.float32)
    kinds = np.full(boxes.shape[:2], NONE, np.uint8)
    for place, own in enumerate(faces):
        boxes[place, : len(own)] = own[:, :4]
        kinds[place, : len(own)] = kinds_of(own)
    return boxes, kinds


def sample_scenes(
    scenes: Scenes, picture: Tensor, picture_from_view: Tensor, size: int, sharpness: Tensor
) -> tuple[Tensor, Tensor]:
    """Look at pictures through affine matrices, bilinearly, from the level whose pixels are about as large.

    Parameters
    ----------
    scenes : Scenes
    picture : (B,) int64
    picture_from_view : (B, 2, 3) float32, pixels of the first level from pixels of the view
    size : int
        Width and height of the views, pixels.
    sharpness : (B,) float32
        0.5 takes the level that is nearest in size; lower ones take a finer level, higher ones a coarser.

    Returns
    -------
    views : (B, 3, size, size) float32, 0..255; 0 outside the picture
    inside : (B, size, size) bool, which pixels show the picture
    """
    device = scenes.pixels.device
    shrink = geometry.scale_of(picture_from_view).log2()
    level = (shrink + sharpness).floor().clamp(0, LEVELS - 1).long()
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], device=device)
    level_from_picture = torch.stack([geometry.reduced_from_crop(identity, 2**k) for k in range(LEVELS)])
    level_from_view = geometry.compose(level_from_picture[level], picture_from_view)
    place = torch.arange(size, device=device, dtype=torch.float32)
    x, y = geometry.apply_to_grid(level_from_view, place).flatten(2).unbind(1)  # (B, S * S)
    width, height = scenes.sizes[picture, level].float()[:, :, None].unbind(1)  # (B, 1)
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    x, y = x.clamp(min=0).minimum(width - 1), y.clamp(min=0).minimum(height - 1)
    left, top = x.floor(), y.floor()
    across, down = x - left, y - top
    step = (left < width - 1).long()
    upper = scenes.starts[picture, level][:, None] + top.long() * width.long() + left.long()
    lower = upper + (top < height - 1) * width.long()
    seen = torch.zeros(3, upper.numel(), device=device)
    for index, weight in (
        (upper, (1 - down) * (1 - across)),
        (upper + step, (1 - down) * across),
        (lower, down * (1 - across)),
        (lower + step, down * across),
    ):
        flat_index, flat_weight = index.flatten(), (weight * inside).flatten()
        for plane, colour in zip(seen, scenes.pixels, strict=True):
            # index_select is several times as fast as indexing, on CPU.
            plane.addcmul_(colour.index_select(0, flat_index).float(), flat_weight)
    views = seen.reshape(3, -1, size, size).transpose(0, 1).contiguous()
    return views, inside.reshape(-1, size, size)
