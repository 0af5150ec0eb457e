"""Where the scripts beside this one write their results: ``results/``, in the form of `facekit bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facekit.benchmarking import results
from facekit.benchmarking.machine import describe, machine_name

__all__ = ["describe", "machine_name", "write_result"]


def write_result(suite: str, device: str, command: str, body: dict[str, Any]) -> Path:
    """Write ``results/<version>/<suite>--<machine>--<device>.json`` and give its path."""
    return results.write_result(suite, device, command, body, Path(__file__).parent / "results")
