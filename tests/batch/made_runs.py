"""What the tests of batch runs share: pictures, weights that are quick to load, and runs to kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import made
from PIL import Image

from facekit.batch.shards import read_rows
from facekit.batch.work import Analysis

PATIENCE = 240
"""Seconds after which a run hangs; Ray takes half a minute to start on a busy core."""


def album(folder: Path, count: int = 30) -> Path:
    """Write pictures of several sizes, one of which is none."""
    folder.mkdir(parents=True)
    for place in range(count):
        Image.fromarray(made.picture(place, 40 + 5 * (place % 3))).save(folder / f"{place:03}.png")
    (folder / "007.png").write_bytes(b"no picture")
    return folder


def analysis(folder: Path, **options) -> Analysis:
    """Give settings with which a worker is ready within a second: without torch, without a detector."""
    return Analysis(**{"weights": made.weights(folder), "backend": "onnx", "detector": "none", **options})


def rows(out: Path) -> list[dict]:
    """Read all shards of a run in order."""
    return [row for shard in sorted(out.glob("part-*")) for row in read_rows(shard)]


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def start(*arguments: object) -> subprocess.Popen:
    """Start `facekit batch` as a process of its own."""
    command = [sys.executable, "-m", "facekit_cli.main", "batch", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(true: Callable[[], object], run: subprocess.Popen | None = None, every: float = 0.002) -> None:
    """Wait for something to become true while a run goes on."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert run is None or run.poll() is None, run.communicate()
        assert time.monotonic() < until, "the run hangs"
        time.sleep(every)


def finish(run: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for a run's end: its exit code and what it said."""
    try:
        out, err = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
    return run.returncode, out, err


def children(pid: int) -> dict[int, str]:
    """Give the processes below a process, with what they are."""
    below, names = {pid}, {}
    for _ in range(4):
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except (OSError, ValueError):
                    continue
                if parent in below:
                    below.add(int(folder.name))
                    names[int(folder.name)] = name
    return names


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and was not asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
