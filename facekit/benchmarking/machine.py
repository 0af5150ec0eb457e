"""What a result was measured on: processor, accelerator, versions, and how busy they are."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from typing import Any

import torch

import facekit
from facekit import processor
from facekit.backends import cores

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "scikit-image", "pillow")


def describe(device: torch.device | None = None) -> dict[str, Any]:
    """Give hardware and software as they stand in results files; without a device, any accelerator."""
    accelerator = accelerator_name(device or torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return {
        "processor": processor.name(),
        "cores": cores(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": accelerator,
        "driver": f"CUDA {torch.version.cuda}" if accelerator and torch.version.cuda else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "facekit": facekit.__version__,
    }


def load() -> float | None:
    """Give how many processes wanted a core in the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine_name() -> str:
    """Name the processor as file names take it."""
    return _slug(f"{processor.name()}-{os.cpu_count()}")


def device_name(device: torch.device) -> str:
    """Name the device that ran the networks as file names take it."""
    return _slug(accelerator_name(device) or "cpu")


def accelerator_name(device: torch.device) -> str | None:
    """Give an accelerator's own name; None for the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return None if device.type == "cpu" else device.type


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # OpenCV comes under several names
        return None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
