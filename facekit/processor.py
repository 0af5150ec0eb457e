"""What the system says of the processor."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path


@cache
def told() -> str:
    """Give Linux's description, which names the processor's abilities; elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.is_file() else platform.processor()


def name() -> str:
    """Give the model's name, or the architecture's."""
    names = re.findall(r"model name\s*: (.*)", told())
    return str(names[0]) if names else platform.processor() or platform.machine()
