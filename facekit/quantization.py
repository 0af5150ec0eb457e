"""Ranges for 8-bit integers: crops of real faces, and what a network's maps hold on them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from facekit.alignment import align
from facekit.analyzer import FaceAnalyzer
from facekit.backends.onnx import open_session
from facekit.backends.onnx_graph import GRAPHS, Graph
from facekit.data.label_boxes import label_boxes
from facekit.data.samples import Dataset
from facekit.detection import WholePicture, crop_boxes
from facekit.errors import DatasetError, ImageError
from facekit.geometry import crop, square
from facekit.images import to_gray
from facekit.keypoints import find_keypoints
from facekit.schema import ALIGNED_SIZE, CROP_SIZE
from facekit.weights import StoredWeights

FACES, BATCH = 256, 32
"""Faces that set the ranges, and how many go through the network together."""

_log = logging.getLogger(__name__)


def calibration_crops(dataset: Dataset, analyzer: FaceAnalyzer) -> dict[str, NDArray[np.float32]]:
    """Cut both stages' normalised crops of up to FACES faces, drawn at random, always the same.

    Labelled points give stage 1's crop; else the picture is the face, or the detector finds the largest one.

    Returns
    -------
    dict of task to (N, 1, S, S) float32

    Raises
    ------
    DatasetError
        No picture of the dataset shows a face that can be read.
    """
    header, cut = analyzer.backend.header, analyzer.backend.warp
    found: dict[str, list[NDArray[np.float32]]] = {"keypoints": [], "expression": []}
    for gray, box in _faces(dataset, analyzer):
        first = np.zeros(1, np.int64)
        points, _ = find_keypoints(analyzer.backend, [gray], first, box)
        found["keypoints"].append(cut([gray], first, crop(box.astype(np.float64), CROP_SIZE), CROP_SIZE))
        found["expression"].append(cut([gray], first, align(points, header["frame"]), ALIGNED_SIZE))
        if len(found["keypoints"]) == FACES:
            break
    if not found["keypoints"]:
        raise DatasetError(f"{dataset.path}: no face found to set the ranges of int8; name pictures of faces")
    return {
        task: np.asarray((np.concatenate(crops) - header["mean"]) / header["std"], np.float32)
        for task, crops in found.items()
    }


def _faces(
    dataset: Dataset, analyzer: FaceAnalyzer
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Give gray pictures, in random order, and stage 1's crop (1, 4) of a face in each."""
    detector = analyzer.detector if dataset.whole_pictures else WholePicture()
    for place in np.random.default_rng(0).permutation(len(dataset)).tolist():
        try:
            picture = dataset.load(place)
        except ImageError as error:
            _log.warning("%s: left out: %s", dataset.sources[place], error)
            continue
        if dataset.points is not None:
            box = square(label_boxes(dataset.points[[place]]), analyzer.backend.header["crop_factor"])
        else:
            framing = detector.face_from_box.crop(analyzer.backend.header["crop_factor"])
            box = crop_boxes(detector([picture])[0].boxes[:1], framing)
        if len(box) and (box[:, 2] - box[:, 0] >= 2).all():  # NaN, of too few points, fails too
            yield to_gray(picture), box


def measure_ranges(
    stored: StoredWeights, crops: Mapping[str, NDArray[np.float32]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Give the ranges that maps need for normalised crops (N, 1, S, S) of each task, see onnx_graph.Graph.

    Raises
    ------
    ConfigError
        ONNX Runtime is not installed.
    """
    return {task: _ranges(Graph(stored.doing(task), watched=True), task, crops[task]) for task in crops}


def _ranges(graph: Graph, task: str, crops: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
    session = open_session(GRAPHS[task](graph))
    values = {name: value for name, value in graph.maps.items() if value != "crops"}
    ends = []
    for part in np.array_split(crops, -(-len(crops) // BATCH)):
        maps = session.run([*values.values()], {"crops": part})
        ends.append([(min(found.min(), 0), max(found.max(), 0)) for found in maps])
    spread = np.array(ends)
    header = graph.stored.header
    black_to_white = ((0 - header["mean"]) / header["std"], (1 - header["mean"]) / header["std"])
    measured = zip(spread[..., 0].min(0).tolist(), spread[..., 1].max(0).tolist(), strict=True)
    return {"crops": black_to_white} | dict(zip(values, measured, strict=True))
