"""Models in 8-bit integers: crops of real faces, and the ranges that they set, by ONNX Runtime."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.alignment import align
from facekit.analyzer import FaceAnalyzer
from facekit.data.label_boxes import label_boxes
from facekit.data.samples import Dataset
from facekit.detection import WholePicture, crop_boxes
from facekit.errors import ConfigError, DatasetError, ImageError
from facekit.geometry import crop, square
from facekit.images import to_gray
from facekit.keypoints import find_keypoints
from facekit.schema import ALIGNED_SIZE, CROP_SIZE

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
            box = crop_boxes(detector([picture])[0].boxes[:1], detector.crop_from_box)
        if len(box) and (box[:, 2] - box[:, 0] >= 2).all():  # NaN, of too few points, fails too
            yield to_gray(picture), box


def quantized(model: bytes, crops: NDArray[np.float32]) -> bytes:
    """Give a model whose convolutions take 8-bit integers, in ranges that normalised crops (N, 1, S, S) set.

    Raises
    ------
    ConfigError
        The packages onnx and onnxruntime are not installed.
    """
    try:
        import onnx
        from onnxruntime import quantization  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}; int8 needs it: pip install 'facekit[onnx]'") from error

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(np.array_split(crops, -(-len(crops) // BATCH)))

        def get_next(self) -> Mapping[str, Any] | None:
            part = next(self._rest, None)
            return None if part is None else {"crops": part}

    floats = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    # ONNX Runtime warns of models that its own preparation has not folded; these are built folded.
    onnx.helper.set_model_props(floats, {"onnx.quant.pre_process": "onnxruntime.quant"})
    nodes = [(node.name, node.op_type) for node in floats.graph.node]
    last = max(place for place, (_, operator) in enumerate(nodes) if operator == "Conv")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantization.quantize_static(
            floats,
            path,
            Reader(),
            op_types_to_quantize=["Conv", "Add", "Relu"],
            # The softmax over places takes its scores finer than in 8 bits, and so do the points after it:
            # with all operators quantised, NME grew by 24% (100 held-out Helen faces).
            nodes_to_exclude=[name for name, _ in nodes[last:]] if "Softmax" in dict(nodes).values() else [],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return path.read_bytes()
