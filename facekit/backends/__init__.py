"""What runs the arithmetic: warping crops out of pictures and the two forward passes."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.errors import ConfigError

BACKENDS: Final = ("torch", "onnx")

CARD: Final = "card.json"
"""The file of an export that says what the others are."""

Crops = Any
"""A batch of crops in the backend's own array type, on its device."""


class Backend(Protocol):
    """One set of weights on one device."""

    @property
    def name(self) -> str:
        """Name of the weights."""
        ...

    @property
    def arithmetic(self) -> str:
        """What runs it and in which precision, such as "onnx int8"."""
        ...

    @property
    def header(self) -> Mapping[str, Any]:
        """The weights' header, see weights.Weights."""
        ...

    def warp(
        self,
        grays: Sequence[NDArray[np.uint8]],
        picture_of_face: NDArray[np.int64],
        image_from_crop: NDArray[np.float64],
        size: int,
    ) -> Crops:
        """Cut crops out of gray pictures (H, W) by matrices (N, 2, 3)."""
        ...

    def keypoints(self, crops: Crops) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give points (N, 15, 2) and expected errors (N, 15), crop pixels, of 96x96 crops."""
        ...

    def expression(self, crops: Crops, heads: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Give the logits (N, C) of 48x48 crops by each of some heads."""
        ...


def check_backend(name: str) -> None:
    """Raise ConfigError unless a backend has that name."""
    if name not in BACKENDS:
        raise ConfigError(f"unknown backend {name!r}: expected auto, {' or '.join(BACKENDS)}")


def choose_backend(
    name: str, weights: str | os.PathLike[str], device: str, precision: str
) -> tuple[str, str]:
    """Give torch or onnx, and its precision.

    "auto" takes ONNX Runtime on the CPU where it is installed and can do that: it is ready in a fraction of
    the time and faster, not least in integers. Asked for by name it stays in fp32 unless told otherwise, so
    that it gives what PyTorch does.

    Raises
    ------
    ConfigError, WeightsError
    """
    exported = (Path(weights) / CARD).is_file()
    if name != "auto":
        check_backend(name)
        exact = name == "onnx" and precision == "auto" and not exported
        return name, "fp32" if exact else precision
    if exported:
        return "onnx", precision
    from facekit.weights import find_weights, kind_of

    on_cpu = device == "cpu" or (device == "auto" and not _has_accelerator())
    able = precision in ("auto", "fp32", "int8") and kind_of(find_weights(weights)[1]) != "baseline"
    return "onnx" if on_cpu and able and find_spec("onnxruntime") is not None else "torch", precision


def _has_accelerator() -> bool:
    """Tell whether PyTorch may find an accelerator here, without asking it, which takes seconds."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return apple or shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


def make_backend(name: str, weights: str | os.PathLike[str], device: str, precision: str) -> Backend:
    """Set up weights on a device by a backend's name; only that backend's libraries are imported.

    Raises
    ------
    ConfigError, WeightsError
        The backend, device or precision is unknown or not there; the weights cannot be read.
    """
    check_backend(name)
    if name == "onnx":
        from facekit.backends.onnx import OnnxBackend

        return OnnxBackend(weights, device, precision)
    from facekit.backends.torch import TorchBackend
    from facekit.weights import load_stages

    return TorchBackend(load_stages(weights), device, precision)


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_threads() -> int:
    """Give OMP_NUM_THREADS, or as many as there are cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else cores()


def cut_crops(
    grays: Sequence[NDArray[np.uint8]],
    picture_of_face: NDArray[np.int64],
    image_from_crop: NDArray[np.float64],
    size: int,
) -> NDArray[np.float32]:
    """Cut crops (N, 1, size, size) float32, 0..1, as `Backend.warp` says, on the CPU."""
    crops = np.empty((len(picture_of_face), 1, size, size), np.float32)
    for face, picture in enumerate(picture_of_face):
        crops[face, 0] = geometry.warp(grays[picture], image_from_crop[face], size)
    crops /= 255
    return crops
