"""facekit beside other libraries: the same pictures, on the same core, in turns in one run.

Each library lives in an environment of its own, which uv makes in the cache folder at the first run; one
that cannot be installed here is left out, with the reason.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final

import numpy as np

from facekit.benchmarking import peer_worker
from facekit.benchmarking.measuring import Case, Figure, Setting, UnavailableError, timing, value
from facekit.benchmarking.pictures import portrait
from facekit.data.cache import cache_folder
from facekit.data.catalog import load_dataset
from facekit.images import to_gray

INSTALLS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = MappingProxyType(
    {
        # fer asks for a whole TensorFlow and for packages that it does not need for pictures.
        "fer": (
            ("setuptools<81", "opencv-python-headless<5", "tensorflow-cpu", "pillow", "requests"),
            ("--no-deps", "fer"),
        ),
        "mediapipe": (("mediapipe==0.10.14",),),
        "dlib": (("dlib-bin", "face-recognition-models", "numpy", "setuptools<81"),),
    }
)
"""What each library's environment is made of, by calls of `uv pip install`."""

PYTHON: Final = "3.11"
"""The newest one that all of these libraries have builds for."""

SIZES = ((512, 512), (640, 480))
WARM_UP = 3

_log = logging.getLogger(__name__)


def cases(setting: Setting) -> list[Case]:
    """Give the installations, the times in turns, and the accuracy of libraries that name expressions.

    A quick run takes only libraries that are installed already.
    """
    timed = Case("latency", 25 if setting.quick else 180, partial(_latency, setting))
    if setting.quick:
        return [timed]
    installs = [Case(f"environment of {name}", 90, partial(_installed, name)) for name in INSTALLS]
    return [*installs, timed, Case("accuracy", 240, partial(_accuracy, setting))]


def environment(name: str, *, make: bool) -> Path:
    """Give the Python of a library's environment.

    Parameters
    ----------
    make : bool
        Make it if it is not there.

    Raises
    ------
    UnavailableError
        It is not there and cannot be made.
    """
    if name == "facekit":
        return Path(sys.executable)
    digest = sha256(json.dumps([PYTHON, INSTALLS[name]]).encode()).hexdigest()[:8]
    folder = cache_folder() / "peers" / f"{name}-{digest}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "complete"
    if complete.is_file():
        return python
    if not make:
        raise UnavailableError("its environment is made by a full run of this suite")
    uv = shutil.which("uv")
    if uv is None:
        raise UnavailableError("needs uv to make its environment: pip install uv")
    _run(name, [uv, "venv", "--quiet", "--clear", "--python", PYTHON, str(folder)])
    for packages in INSTALLS[name]:
        _run(name, [uv, "pip", "install", "--quiet", "--python", str(python), *packages])
    complete.touch()
    return python


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        _log.warning("%s: %s", name, done.stderr.strip())
        raise UnavailableError(f"`uv {' '.join(command[1:3])}` fails here with exit status {done.returncode}")


def _installed(name: str) -> list[Figure]:
    """Make an environment and tell the versions in it."""
    listed = subprocess.run(
        ["uv", "pip", "list", "--format", "json", "--python", str(environment(name, make=True))],
        capture_output=True,
        text=True,
        check=True,
    )
    versions = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
    return [{**value("packages", len(versions), "packages", library=name), "versions": versions}]


class Worker:
    """A library that waits for questions in its own process; see peer_worker.

    Parameters
    ----------
    process : Popen
    messages : file
        Takes its stderr.
    """

    def __init__(self, process: subprocess.Popen[str], messages: IO[str]) -> None:
        self._process, self._messages = process, messages

    def ask(self, **question: Any) -> dict[str, Any]:
        """Ask and wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Read one answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._messages.seek(0)
            _log.warning("%s", self._messages.read().strip())
            raise UnavailableError(f"its process ended with status {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def started(name: str, weights: str, *, make: bool) -> Iterator[Worker]:
    """Start a library's worker, on one core."""
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    one = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "3", "PYTHONWARNINGS": "ignore"}
    command = [str(environment(name, make=make)), peer_worker.__file__, name, str(core)]
    variables = os.environ | one | quiet | {"FACEKIT_PEER_WEIGHTS": weights}
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", errors="replace") as messages,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=messages, text=True, env=variables
        ) as process,
    ):
        worker = Worker(process, messages)
        try:
            worker.answer()
            yield worker
        finally:
            process.kill()


def _latency(setting: Setting) -> list[Figure]:
    """Time the libraries in turns, each round every one of them once."""
    figures: list[Figure] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers: dict[str, Worker] = {}
        for name in ("facekit", *INSTALLS):
            try:
                workers[name] = stack.enter_context(started(name, setting.weights, make=not setting.quick))
            except UnavailableError as reason:
                figures.append(absent("whole picture", name, str(reason)))
        for width, height in SIZES[:1] if setting.quick else SIZES:
            path = folder / f"{width}x{height}.npy"
            np.save(path, portrait(width, height))
            times: dict[str, list[float]] = {name: [] for name in workers}
            for _ in range(WARM_UP + (5 if setting.quick else 55)):
                for name, worker in workers.items():
                    times[name].append(worker.ask(ask="time", picture=str(path))["seconds"])
            for name, worker in workers.items():
                figure = timing(
                    "whole picture",
                    times[name][WARM_UP:],
                    library=name,
                    threads=1,
                    picture=f"{width}x{height}",
                )
                figures.append({**figure, "found": worker.ask(ask="found", picture=str(path))})
    return figures


def absent(name: str, library: str, reason: str) -> Figure:
    """Give the figure that is not there, with its reason."""
    return {**value(name, None, "-", library=library), "reason": reason}


def _accuracy(setting: Setting) -> list[Figure]:
    """Hold the libraries that name expressions against FER2013's PublicTest, in its own frame."""
    dataset = load_dataset(setting.csv_of_fer2013()).split("validation")
    assert dataset.labels is not None
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crops.npy"
        np.save(path, np.stack([to_gray(dataset.load(place)) for place in range(len(dataset))]))
        for name in ("facekit", "fer"):
            try:
                with started(name, setting.weights, make=True) as worker:
                    labels = worker.ask(ask="labels", crops=str(path))["labels"]
            except UnavailableError as reason:
                figures.append(absent("FER2013 PublicTest", name, str(reason)))
                continue
            right = float(np.mean(np.array(labels) == dataset.labels.astype(str)))
            figures.append(value("FER2013 PublicTest", right, "share", library=name, n=len(dataset)))
    return figures
