"""ONNX Runtime runs the arithmetic on the CPU without torch: from weights, or what `facekit export` wrote."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import processor
from facekit.backends import CARD, cut_crops, usual_threads
from facekit.backends.onnx_graph import GRAPHS, Graph, detector_graph
from facekit.errors import ConfigError, WeightsError
from facekit.padding import padded_planes
from facekit.schema import INPUT_SIZE
from facekit.weights import read_stages, read_weights

InferenceSession = Any
"""onnxruntime.InferenceSession; the package has no types."""


class OnnxBackend:
    """Both stages of a network on the CPU; threads may share it.

    Parameters
    ----------
    weights : str or path-like
        A shipped name, a weights file, or the folder of an ONNX export, whose precision is then used.
    device : str
        auto or cpu.
    precision : str
        fp32; int8, with weights that hold its ranges; or auto: int8 where they do and the processor has
        instructions for it, else fp32. An export runs in its own, as auto.

    Raises
    ------
    ConfigError
        ONNX Runtime is not installed, or the device or precision is not to be had.
    WeightsError
        As `read_weights`; or an export's files are missing or of another kind.
    """

    def __init__(
        self, weights: str | os.PathLike[str] = "default", device: str = "auto", precision: str = "auto"
    ) -> None:
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device {device!r}: the onnx backend runs on the CPU; use the torch backend")
        exported = (Path(weights) / CARD).is_file()
        if exported and precision != "auto":
            raise ConfigError(f"precision {precision!r}: an export runs in its own; leave it at auto")
        if precision not in ("auto", "fp32", "int8"):
            raise ConfigError(
                f"precision {precision!r}: the onnx backend takes auto, fp32 and int8; for fp16 give it the "
                "folder of `facekit export --precision fp16` as weights"
            )
        self.header, models = _read_export(Path(weights)) if exported else _built(weights, precision)
        self.name: str = self.header["name"]
        self.arithmetic = f"onnx {self.header['precision']}"
        self._sessions = {task: open_session(model) for task, model in models.items()}

    def warp(
        self,
        grays: Sequence[NDArray[np.uint8]],
        picture_of_face: NDArray[np.int64],
        image_from_crop: NDArray[np.float64],
        size: int,
    ) -> NDArray[np.float32]:
        """Cut crops (N, 1, size, size) float32, 0..1, out of gray pictures (H, W) by matrices (N, 2, 3)."""
        return cut_crops(grays, picture_of_face, image_from_crop, size)

    def keypoints(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give points (N, 15, 2) and expected errors (N, 15), crop pixels, of 96x96 crops."""
        points, sigma = self._run("keypoints", crops, ["points", "sigma"])
        return points, sigma * np.float32(self.header["sigma_factor"])

    def expression(
        self, crops: NDArray[np.float32], heads: Collection[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Give the logits (N, C), as trained, of 48x48 crops by each of some heads."""
        return dict(zip(heads, self._run("expression", crops, heads), strict=True))

    def _run(
        self, task: str, crops: NDArray[np.float32], outputs: Collection[str]
    ) -> list[NDArray[np.float32]]:
        expected = INPUT_SIZE[task]
        if crops.shape[1:] != (1, expected, expected):
            raise ValueError(f"crops of shape {crops.shape}; expected (N, 1, {expected}, {expected})")
        session = self._sessions[task]
        if not len(crops):  # which ONNX Runtime's convolutions refuse
            shapes = {output.name: output.shape[1:] for output in session.get_outputs()}
            return [np.zeros((0, *shapes[name]), np.float32) for name in outputs]
        normalised = np.ascontiguousarray((crops - self.header["mean"]) / self.header["std"], np.float32)
        found: list[NDArray[np.float32]] = session.run(list(outputs), {"crops": normalised})
        return found


class OnnxDetector:
    """The detector's network on the CPU; threads may share it.

    Parameters
    ----------
    weights : str or path-like
        A shipped name, a weights file, or the folder of an ONNX export that holds a detector.

    Raises
    ------
    ConfigError, WeightsError
        As OnnxBackend.
    """

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        model: str | bytes
        if (Path(weights) / CARD).is_file():
            card, models = _read_export(Path(weights))
            if "detector" not in models:
                raise WeightsError(f"{weights}: an export without a detector; export anew with one")
            self.header, model = card["detector"], models["detector"]
        else:
            stored = read_weights(weights, "detector")
            self.header, model = stored.header, detector_graph(Graph(stored))
        self._session = open_session(model)

    def __call__(
        self, images: Sequence[NDArray[np.uint8]], min_logit: float
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Give boxes (N, 4) and logits (N,) of the cells above `min_logit`, for pictures of a padded size."""
        logits, boxes = self._session.run(["logits", "boxes"], {"pictures": padded_planes(images)})
        above = logits > min_logit
        return [(boxes[k, above[k]], logits[k, above[k]]) for k in range(len(images))]


def open_session(model: str | bytes) -> InferenceSession:
    """Make a model, or its file, ready to run on the CPU, on OMP_NUM_THREADS threads or one a core.

    Raises
    ------
    ConfigError
        ONNX Runtime is not installed.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error}; the onnx backend needs it: install facekit with its extra `onnx`"
        ) from error
    options = onnxruntime.SessionOptions()
    # A number that is given keeps ONNX Runtime from binding threads to cores that a container may lack.
    options.intra_op_num_threads = usual_threads()
    # Each session has threads of its own: idle ones that spin take the cores from the next stage's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _built(weights: str | os.PathLike[str], precision: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Give the header of weights, with the precision, and the model of each of their tasks."""
    stored = read_stages(weights)
    if precision == "int8" and not stored.has_ranges:
        raise ConfigError(
            f"{stored.path}: no ranges for int8 in it; `facekit export --precision int8 --calibrate DATASET` "
            "measures some"
        )
    exact = precision == "fp32" or (precision == "auto" and not multiplies_int8())
    ranges = {} if exact else stored.header.get("ranges", {})
    models = {task: GRAPHS[task](Graph(stored.doing(task), ranges=ranges.get(task))) for task in stored.tasks}
    return {**stored.header, "name": stored.name, "precision": "int8" if ranges else "fp32"}, models


def multiplies_int8() -> bool:
    """Tell whether the processor is known to sum products of 8-bit integers in 32 bits.

    Others sum pairs of them in 16 bits, which overflow, or gain no time.
    """
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    return not {"avx512_vnni", "avx_vnni", "asimddp"}.isdisjoint(processor.told().split())


def _read_export(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the card of an export, and the file of each of its networks."""
    card = json.loads((folder / CARD).read_text())
    if card.get("kind") != "facekit export" or card.get("format") != "onnx":
        found = f"kind {card.get('kind')!r}, format {card.get('format')!r}"
        raise WeightsError(f"{folder / CARD}: {found}; expected the card of `facekit export --format onnx`")
    files = {task: folder / entry["file"] for task, entry in card["files"].items()}
    for path in files.values():
        if not path.is_file():
            raise WeightsError(f"{path}: missing, though {CARD} names it; export anew")
    return card, {task: str(path) for task, path in files.items()}
