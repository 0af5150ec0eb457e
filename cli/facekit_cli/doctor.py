"""`facekit doctor`: what this installation has, and what is wrong with it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from hashlib import sha256
from importlib import import_module, metadata
from importlib.util import find_spec

import typer

from facekit import __version__
from facekit_cli import console

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "pandas": "pandas",
    "opencv-python": "cv2",
    "scikit-image": "skimage",
    "pillow": "PIL",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
}
"""Distribution to the module that is imported from it."""


def doctor() -> None:
    """Show versions, devices, backends and weights, and what is wrong with them."""
    console.say(f"facekit {__version__}, Python {platform.python_version()}, {platform.platform()}")
    faults = [*_packages()]
    if not faults:
        faults += [*_devices(), *_weights()]
    for fault in faults:
        console.complain(fault)
    raise typer.Exit(1 if faults else 0)


def _packages() -> Iterator[str]:
    """Show what is installed, and give what does not import."""
    for distribution, module in PACKAGES.items():
        try:
            import_module(module)
            console.say(f"  {distribution:<14} {_version(distribution)}")
        except ImportError as error:
            yield console.missing_library(error) if ".so" in str(error) else f"{module}: {error}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # OpenCV comes under several names
        return "of another distribution"


def _devices() -> Iterator[str]:
    import torch

    from facekit.backends import choose_backend
    from facekit.backends.onnx import multiplies_int8
    from facekit.backends.torch import choose_device, choose_precision
    from facekit.detection import DETECTORS

    chosen = choose_device()
    names = {"cpu": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"}
    if torch.cuda.is_available():
        names |= {f"cuda:{n}": torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())}
    if torch.backends.mps.is_available():
        names["mps"] = "Apple"
    for device, name in names.items():
        precision = str(choose_precision("auto", torch.device(device))).removeprefix("torch.")
        mark = "  <- auto" if torch.device(device).type == chosen.type else ""
        console.say(f"device {device}: {name}, {precision}{mark}")
    runtime = "not installed; it comes with the extra `onnx`"
    if find_spec("onnxruntime"):
        numbers = "int8" if multiplies_int8() else "fp32"
        runtime = f"ONNX Runtime {_version('onnxruntime')}, cpu, {numbers}"
    usual, _ = choose_backend("auto", "default", "auto", "auto")
    for name, told in (("torch", "all devices"), ("onnx", runtime)):
        console.say(f"backend {name}: {told}{'  <- auto' if name == usual else ''}")
    console.say(f"detectors {', '.join(DETECTORS)}")
    yield from ()


def _weights() -> Iterator[str]:
    """Show the file and sha256 of all shipped weights, and give those that are not what they should be."""
    from facekit.weights import find_weights, shipped

    for name in shipped():
        _, path, expected = find_weights(name)
        found = sha256(path.read_bytes()).hexdigest() if path.is_file() else "that of no file"
        if found == expected:
            console.say(f"weights {name}: {path.name}, sha256 {found}")
        else:
            yield f"{path}: sha256 is {found}, expected {expected}; the file was changed, reinstall facekit"
