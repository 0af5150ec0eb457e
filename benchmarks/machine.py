"""What a result was measured on: processor, cores and versions, and where its file belongs."""

from __future__ import annotations

import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import facekit
from facekit.writing import write_atomically

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Give hardware and software as they stand in every results file."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.is_file() else []
    packages = ("torch", "torchvision", "numpy", "opencv-python", "scikit-image", "pillow")
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "facekit": facekit.__version__,
    }


def short_name() -> str:
    """Give a name of the processor for file names."""
    description = describe()
    return re.sub(r"[^a-z0-9]+", "-", f"{description['processor']}-{description['cores']}".lower()).strip("-")


def write_result(suite: str, device: str, command: str, body: dict[str, Any]) -> Path:
    """Write ``results/<version>/<suite>--<machine>--<device>.json`` and give its path."""
    path = RESULTS / facekit.__version__ / f"{suite}--{short_name()}--{device}.json"
    record = {
        "suite": suite,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe(),
        **body,
    }
    write_atomically(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return path
