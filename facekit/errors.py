"""The exceptions facekit raises.

FacekitError
├── ImageError      (ValueError)  a picture cannot be read, is too large, or has a wrong dtype, shape or range
├── DatasetError    (ValueError)  labelled data cannot be read or do not fit together
├── WeightsError    (ValueError)  network weights are missing, corrupt or of another version
├── DetectorError   (ValueError)  a face detector is unknown or cannot be set up
├── ConfigError     (ValueError)  a setting is unknown or out of range
└── ProcessError    (OSError)     another process of a training has ended

A picture without a face is an empty result, not an error.
"""

from __future__ import annotations


class FacekitError(Exception):
    """Base class of every error that facekit raises on purpose."""


class ImageError(FacekitError, ValueError):
    """A picture cannot be read, is too large, or has a wrong dtype, shape or range."""


class DatasetError(FacekitError, ValueError):
    """Labelled data cannot be read or do not fit together."""


class WeightsError(FacekitError, ValueError):
    """Network weights are missing, corrupt or of another version."""


class DetectorError(FacekitError, ValueError):
    """A face detector is unknown or cannot be set up."""


class ConfigError(FacekitError, ValueError):
    """A setting is unknown or out of range."""


class ProcessError(FacekitError, OSError):
    """Another process of a training has ended."""
