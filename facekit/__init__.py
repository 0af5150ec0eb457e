"""Faces, 15 keypoints and calibrated expressions from pictures, and a cross-check of both against labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_EXPORTS = {
    "AugmentConfig": "facekit.augmentation",
    "BASELINES": "facekit.baselines",
    "BaselineConfig": "facekit.baselines",
    "BaselineNetwork": "facekit.baselines",
    "ConfigError": "facekit.errors",
    "CrossCheck": "facekit.crosschecking",
    "Dataset": "facekit.data.samples",
    "DatasetError": "facekit.errors",
    "DetectorError": "facekit.errors",
    "EXPRESSIONS": "facekit.schema",
    "Evaluation": "facekit.evaluation",
    "Expression": "facekit.results",
    "FORMATS": "facekit.data.catalog",
    "Face": "facekit.results",
    "FaceAnalyzer": "facekit.analyzer",
    "FacekitError": "facekit.errors",
    "Faces": "facekit.results",
    "ImageError": "facekit.errors",
    "KEYPOINTS": "facekit.schema",
    "Keypoints": "facekit.results",
    "ProcessError": "facekit.errors",
    "WeightsError": "facekit.errors",
    "analyze": "facekit.analyzer",
    "analyze_video": "facekit.video",
    "augment_expression": "facekit.augmentation",
    "augment_keypoints": "facekit.augmentation",
    "crosscheck": "facekit.crosschecking",
    "evaluate": "facekit.evaluation",
    "load_dataset": "facekit.data.catalog",
    "train": "facekit.training",
}
"""Public name to the module that holds it; it is imported at first use, because torch alone takes seconds."""

__all__ = [*_EXPORTS]

if TYPE_CHECKING:
    from facekit.analyzer import FaceAnalyzer as FaceAnalyzer
    from facekit.analyzer import analyze as analyze
    from facekit.augmentation import AugmentConfig as AugmentConfig
    from facekit.augmentation import augment_expression as augment_expression
    from facekit.augmentation import augment_keypoints as augment_keypoints
    from facekit.baselines import BASELINES as BASELINES
    from facekit.baselines import BaselineConfig as BaselineConfig
    from facekit.baselines import BaselineNetwork as BaselineNetwork
    from facekit.crosschecking import CrossCheck as CrossCheck
    from facekit.crosschecking import crosscheck as crosscheck
    from facekit.data.catalog import FORMATS as FORMATS
    from facekit.data.catalog import load_dataset as load_dataset
    from facekit.data.samples import Dataset as Dataset
    from facekit.errors import ConfigError as ConfigError
    from facekit.errors import DatasetError as DatasetError
    from facekit.errors import DetectorError as DetectorError
    from facekit.errors import FacekitError as FacekitError
    from facekit.errors import ImageError as ImageError
    from facekit.errors import ProcessError as ProcessError
    from facekit.errors import WeightsError as WeightsError
    from facekit.evaluation import Evaluation as Evaluation
    from facekit.evaluation import evaluate as evaluate
    from facekit.results import Expression as Expression
    from facekit.results import Face as Face
    from facekit.results import Faces as Faces
    from facekit.results import Keypoints as Keypoints
    from facekit.schema import EXPRESSIONS as EXPRESSIONS
    from facekit.schema import KEYPOINTS as KEYPOINTS
    from facekit.training import train as train
    from facekit.video import analyze_video as analyze_video
else:

    def __getattr__(name):
        """Import an export when it is first used."""
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        """Name the exports beside what is loaded already."""
        return sorted({*globals(), *_EXPORTS})
