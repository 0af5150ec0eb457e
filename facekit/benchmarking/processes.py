"""New Python processes that measure themselves, so that what this one holds does not count."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PRELUDE = """
import json, os, resource, sys, time
from pathlib import Path

def peak_mebibytes():
    # ru_maxrss also remembers the process that started this one; the status file does not.
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)

def tell(**told):
    sys.stdout.write(json.dumps(told) + "\\n")
"""


def ask(program: str, *arguments: object) -> dict[str, Any]:
    """Run a program that calls ``tell(name=value, ...)`` at its end, and give what it told.

    Raises
    ------
    subprocess.CalledProcessError
        The program failed; its messages went to stderr.
    """
    command = [sys.executable, "-c", PRELUDE + program, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
