"""Detectors: boxes and scores of the faces in a batch of pictures; each is one module, and one line below."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from facekit.detection.haar import HaarDetector
from facekit.detection.interface import BoxFraming, Detections, Detector, crop_boxes
from facekit.detection.own import FacekitDetector
from facekit.detection.whole_picture import WholePicture
from facekit.detection.yunet import YuNetDetector, find_model
from facekit.errors import DetectorError

__all__ = [
    "DETECTORS",
    "BoxFraming",
    "Detections",
    "Detector",
    "FacekitDetector",
    "HaarDetector",
    "WholePicture",
    "YuNetDetector",
    "crop_boxes",
    "make_detector",
    "model_of",
]


@dataclass(frozen=True)
class Setup:
    """What `make_detector` was asked for, beside the name; see there."""

    model: Any
    min_score: float | None
    device: str
    backend: str


class Kind(NamedTuple):
    """A detector that can be named.

    Attributes
    ----------
    make : callable
    usual_model : callable, optional
        Finds the weights or file that it runs unless others are asked for; None: it takes none.
    """

    make: Callable[[Setup], Detector]
    usual_model: Callable[[], str | os.PathLike[str]] | None = None


DETECTORS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "facekit": Kind(
            lambda setup: FacekitDetector(
                setup.model, setup.min_score, device=setup.device, backend=setup.backend
            ),
            lambda: "detector",
        ),
        "haar": Kind(lambda setup: HaarDetector(setup.min_score)),
        "yunet": Kind(lambda setup: YuNetDetector(setup.model, setup.min_score), find_model),
        "none": Kind(lambda _: WholePicture()),
    }
)
"""Every detector by name; a new one is one line here."""

DEFAULT_DETECTOR: Final = "facekit"


def make_detector(
    name: str = "auto",
    model: str | os.PathLike[str] | None = None,
    *,
    min_score: float | None = None,
    device: str = "auto",
    backend: str = "torch",
) -> Detector:
    """Set up a detector by name.

    Parameters
    ----------
    name : str
        One of DETECTORS, or auto.
    model : path-like, optional
        The detector's model file, where it takes one.
    min_score : float, optional
        Faces with a lower score are left out; the detector's own limit if None.
    device : str
        auto, cpu, cuda, cuda:N or mps, where the detector can use it.
    backend : str
        torch or onnx: what runs facekit's own detector.

    Raises
    ------
    DetectorError
        Unknown, or cannot be set up.
    """
    kind = _kind(name)
    if min_score is not None and not 0 <= min_score <= 1:
        raise DetectorError(f"min_score is {min_score}: expected 0 to 1")
    return kind.make(Setup(model_of(name, model), min_score, device, backend))


def model_of(name: str, model: str | os.PathLike[str] | None = None) -> str | os.PathLike[str] | None:
    """Give the weights or file that a detector runs where `model` is asked for; None: it takes none.

    Raises
    ------
    DetectorError
        It is unknown, or needs a file, and there is none.
    """
    usual = _kind(name).usual_model
    return None if usual is None else model or usual()


def _kind(name: str) -> Kind:
    kind = DETECTORS.get(DEFAULT_DETECTOR if name == "auto" else name)
    if kind is None:
        raise DetectorError(f"unknown detector {name!r}: expected auto, {', '.join(DETECTORS)}")
    return kind
