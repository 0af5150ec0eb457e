"""Networks for use without facekit: files of both stages and the detector, and a card that tells the rest."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from facekit.analyzer import FaceAnalyzer
from facekit.backends import CARD
from facekit.backends.onnx_graph import GRAPHS, Graph, GraphPrecision, Ranges, detector_graph
from facekit.data.catalog import load_dataset
from facekit.detection import FacekitDetector, HaarDetector, WholePicture, YuNetDetector
from facekit.errors import ConfigError
from facekit.keypoints import ASIDE, MISSIZED, NO_FACE, TILTED
from facekit.padding import STEP
from facekit.quantization import calibration_crops, measure_ranges
from facekit.schema import ALIGNED_POINTS, INPUT_SIZE, KEYPOINTS, MIRROR_PERMUTATION
from facekit.weights import StoredWeights, read_stages, read_weights, shipped
from facekit.writing import write_atomically

FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {"onnx": ".onnx", "torchscript": ".pt", "torch.export": ".pt2"}
)
"""The formats, and how the names of their files end."""

PRECISIONS: Final = ("fp32", "fp16", "int8")

STEPS: Final = (
    "Points are x, y with pixel centres at integers. Boxes are edges x0, y0, x1, y1: the whole picture is 0, "
    "0, width, height, so an edge at x lies at x - 0.5 as a point's coordinate.",
    "A picture becomes gray: 0.299 R + 0.587 G + 0.114 B, 0 to 255.",
    "A detector's box is made square about its centre, with the longer side; the centre is moved right and "
    "down by crop_from_box.shift times that side, which is then multiplied by crop_from_box.scale. Where 15 "
    "points are known instead, the crop is the square about the box around them, times crop_factor.",
    "Crops are cut by bilinear sampling; outside the picture its nearest edge pixel counts. Where a pixel of "
    "the crop covers s x s of the picture, s > 1.5, the picture is first reduced to means of blocks of "
    "round(s) x round(s).",
    "Stage 1 takes the crop at 96x96, normalised: (gray / 255 - mean) / std. It runs on the crop and on its "
    "mirror. Of the mirror's points x becomes 95 - x, and point k is taken from place mirror_permutation[k], "
    "as its sigma is. Points and sigmas of the two are averaged, and sigma is multiplied by sigma_factor.",
    "Points and sigma, pixels of the crop, are brought to the picture by the crop's place and scale.",
    "The points imply a crop: turned until the line from right_eye_center to left_eye_center is level, they "
    "have a box, and the square about it, times crop_factor, is turned back. If that crop is turned by more "
    "than tilted degrees against the first, its middle lies off by more than aside times the first one's "
    "side, in the first one's x or y, or its side is more than missized times longer or shorter, but less "
    "than no_face times, stage 1 runs once more, on it, and gives the points and sigma.",
    "The similarity (rotation, scale, shift; least squares) that brings the points frame_points to frame "
    "gives the 48x48 crop of stage 2, cut and normalised as above.",
    "Stage 2 gives logits for every head: softmax(logits / temperature[head]) are the probabilities of the "
    "names heads[head], in this order. To logits / temperature of faces of photos, all but those of the next "
    "step, photo_bias[head] is added, where there is one.",
    "A picture of 48x48 pixels that is a face framed as FER2013's are (detector none) gives two crops, "
    "itself and one half way to the aligned one: the mean of both matrices from crop to picture. The "
    "probabilities of both are averaged.",
)
"""What stands between the networks, as the card tells it."""

DETECTOR_STEPS: Final = (
    "The detector takes RGB pictures of 0 to 255, no longer than 640 pixels, padded with black to the right "
    f"and at the bottom to multiples of {STEP}.",
    "The score of a cell's box is sigmoid(slope * logit + offset). Of boxes whose intersection over union is "
    "more than overlap, only the best counts.",
)


def export_networks(
    out: str | os.PathLike[str],
    weights: str | os.PathLike[str] = "default",
    *,
    format: str = "onnx",
    precision: str = "fp32",
    calibrate: str | os.PathLike[str] | None = None,
    detector: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Write the networks of weights, and a card that says how to use them.

    Parameters
    ----------
    out : path-like
        The folder; files of an earlier export are replaced.
    weights : str or path-like
        A shipped name or a file.
    format : str
        onnx, torchscript or torch.export.
    precision : str
        Of the convolutions: fp32, fp16, or int8, which is for ONNX alone. Inputs and outputs stay float32.
    calibrate : path-like, optional
        Labelled or unlabelled faces of a known format, whose crops set the ranges of int8; None: the ranges
        in the weights, which the shipped ones have.
    detector : path-like, optional
        Weights of a detector; None: the shipped one, where there is one.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    ConfigError
        The format or precision is unknown, the two do not go together, `calibrate` is idle, or there are no
        ranges.
    WeightsError, DatasetError
        Something cannot be read.
    """
    _check(format, precision, calibrate)
    stored = read_stages(weights)
    if precision == "int8" and calibrate is None and not stored.has_ranges:
        raise ConfigError(
            f"{stored.path}: no ranges for int8 in it; name faces that set them: --calibrate DATASET"
        )
    if detector is None and "detector" in shipped():
        detector = "detector"
    of_detector = None if detector is None else read_weights(detector, "detector")
    if format == "onnx":
        files = _onnx_files(stored, of_detector, precision, calibrate)
    else:
        files = _torch_files(stored, of_detector, format, precision)
    folder, suffix = Path(out), FORMATS[format]
    card = {
        **_card(stored, of_detector),
        "format": format,
        "precision": precision,
        "files": {
            task: {"file": f"{task}{suffix}", "sha256": sha256(data).hexdigest(), **_signature(task, stored)}
            for task, data in files.items()
        },
    }
    for task, data in files.items():
        write_atomically(folder / f"{task}{suffix}", data)
    write_atomically(folder / CARD, (json.dumps(card, indent=1, allow_nan=False) + "\n").encode())
    return card


def _check(format: str, precision: str, calibrate: object) -> None:
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}: expected {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}: expected {', '.join(PRECISIONS)}")
    if precision == "int8" and format != "onnx":
        raise ConfigError(f"precision int8 is for format onnx, not {format}; take fp32 or fp16")
    if precision != "int8" and calibrate is not None:
        raise ConfigError(f"--calibrate sets the ranges of int8; precision {precision} has none")


def _card(stored: StoredWeights, detector: StoredWeights | None) -> dict[str, Any]:
    """Tell what of the networks' use is not in their files."""
    header = stored.header
    kept = ("model", "mean", "std", "crop_factor", "frame", "temperature", "sigma_factor")
    card = {
        "kind": "facekit export",
        "version": 1,
        "facekit": version("facekit"),
        "name": stored.name,
        "weights_sha256": stored.sha256,
        **{key: header[key] for key in kept},
        "photo_bias": header.get("photo_bias", {}),
        "heads": header["model"]["heads"],
        "keypoints": KEYPOINTS,
        "tilted": round(math.degrees(TILTED), 3),
        "aside": ASIDE,
        "missized": MISSIZED,
        "no_face": NO_FACE,
        "mirror_permutation": MIRROR_PERMUTATION,
        "frame_points": [KEYPOINTS[place] for place in ALIGNED_POINTS],
        "crop_from_box": {
            kind.name: asdict(kind.face_from_box.crop(header["crop_factor"]))
            for kind in (FacekitDetector, HaarDetector, YuNetDetector, WholePicture)
        },
        "steps": STEPS,
    }
    if detector is not None:
        told = {key: detector.header[key] for key in ("slope", "offset", "overlap")}
        card["detector"] = {**told, "weights_sha256": detector.sha256, "steps": DETECTOR_STEPS}
    return card


def _signature(task: str, stored: StoredWeights) -> dict[str, Any]:
    """Give names and shapes of a network's inputs and outputs, all float32."""
    if task == "detector":
        inputs: dict[str, list[Any]] = {"pictures": ["batch", 3, "height", "width"]}
        outputs: dict[str, list[Any]] = {"logits": ["batch", "cells"], "boxes": ["batch", "cells", 4]}
    else:
        inputs = {"crops": ["batch", 1, INPUT_SIZE[task], INPUT_SIZE[task]]}
        outputs = {head: ["batch", len(names)] for head, names in stored.header["model"]["heads"].items()}
        if task == "keypoints":
            outputs = {"points": ["batch", len(KEYPOINTS), 2], "sigma": ["batch", len(KEYPOINTS)]}
    return {"inputs": inputs, "outputs": outputs}


def _onnx_files(
    stored: StoredWeights,
    detector: StoredWeights | None,
    precision: str,
    calibrate: str | os.PathLike[str] | None,
) -> dict[str, bytes]:
    of_graph: GraphPrecision = "fp16" if precision == "fp16" else "fp32"
    ranges: Mapping[str, Ranges] = {}
    if calibrate is not None:
        analyzer = FaceAnalyzer(weights=str(stored.path), backend="onnx", device="cpu")
        ranges = measure_ranges(stored, calibration_crops(load_dataset(calibrate), analyzer))
    elif precision == "int8":
        ranges = stored.header["ranges"]
    files = {
        task: GRAPHS[task](Graph(stored.doing(task), of_graph, ranges.get(task))) for task in stored.tasks
    }
    if detector is not None:  # is small, and stays in floats with int8
        files["detector"] = detector_graph(Graph(detector, of_graph))
    return files


def _torch_files(
    stored: StoredWeights, detector: StoredWeights | None, format: str, precision: str
) -> dict[str, bytes]:
    from facekit.torch_programs import detector_program, stage_program

    files = {
        task: stage_program(str(stored.doing(task).path), task, format, precision) for task in stored.tasks
    }
    if detector is not None:
        files["detector"] = detector_program(str(detector.path), format, precision)
    return files
