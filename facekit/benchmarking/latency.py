"""One picture on one processor core, or an accelerator: its parts, the detectors, the first of a process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit import FaceAnalyzer
from facekit.alignment import align
from facekit.backends import choose_backend
from facekit.benchmarking.measuring import Case, Clock, Figure, Setting, in_turns, threads, timing
from facekit.benchmarking.pictures import as_jpeg, portrait
from facekit.detection import DETECTORS, crop_boxes, make_detector
from facekit.errors import DetectorError, WeightsError
from facekit.expression import find_expressions
from facekit.images import read_image, to_gray
from facekit.keypoints import find_keypoints
from facekit.schema import DEFAULT_HEAD

SIZES = ((512, 512), (640, 480), (320, 320))

PRECISIONS = {"torch": ("auto", "fp32"), "onnx": ("int8", "fp32")}

COLD = """
import json, sys, time
started = time.perf_counter()
from facekit import FaceAnalyzer
imported = time.perf_counter()
faces = FaceAnalyzer(backend=sys.argv[2])(sys.argv[1])
print(json.dumps({"import facekit": imported - started, "first picture": time.perf_counter() - started}))
"""


def cases(setting: Setting) -> list[Case]:
    """Give the parts of a picture's time, the detectors, and the first picture of a new process."""
    return [
        Case("parts", 8 if setting.quick else 45, partial(_parts, setting)),
        Case("detectors", 5 if setting.quick else 40, partial(_detectors, setting)),
        Case("cold start", 12 if setting.quick else 30, partial(_cold_start, setting)),
    ]


def parts(analyzer: FaceAnalyzer, picture: NDArray[np.uint8]) -> dict[str, Callable[[], Any]]:
    """Give each part as a call that repeats it on the same input."""
    encoded = as_jpeg(picture)
    grays, first = [to_gray(picture)], np.zeros(1, np.int64)
    found = analyzer.detector([picture])[0]
    crops = crop_boxes(found.boxes[:1], analyzer.crop_from_box)
    points, _ = find_keypoints(analyzer.backend, grays, first, crops)
    frame = analyzer.backend.header["frame"]
    matrices = align(points, frame)[None]
    return {
        "load": lambda: read_image(encoded),
        "detect": lambda: analyzer.detector([picture]),
        "keypoints": lambda: find_keypoints(analyzer.backend, grays, first, crops),
        "align": lambda: align(points, frame),
        "expression": lambda: find_expressions(
            analyzer.backend, grays, first, matrices, [DEFAULT_HEAD], np.zeros(1, np.bool_)
        ),
        "whole": lambda: analyzer(picture),
    }


def _parts(setting: Setting) -> list[Figure]:
    with threads(1):
        calls = {
            (backend, precision, name): call
            for backend in _backends(setting)
            for precision in PRECISIONS[backend]
            for name, call in parts(
                FaceAnalyzer(
                    str(setting.device), precision=precision, weights=setting.weights, backend=backend
                ),
                portrait(),
            ).items()
        }
        named = {" ".join(key): call for key, call in calls.items()}
        times = in_turns(named, Clock(setting.device), seconds=4 if setting.quick else 40, warm_up=5)
    return [
        timing(
            name,
            times[f"{backend} {precision} {name}"],
            backend=backend,
            precision=precision,
            threads=1,
            picture="512x512",
        )
        for backend, precision, name in calls
    ]


def _backends(setting: Setting) -> list[str]:
    """Give PyTorch, and on a processor ONNX Runtime where it is installed."""
    usual, _ = choose_backend("auto", setting.weights, str(setting.device), "auto")
    return list(dict.fromkeys(("torch", usual)))


def _detectors(setting: Setting) -> list[Figure]:
    calls: dict[str, Callable[[], Any]] = {}
    with threads(1):
        for name in DETECTORS:
            try:
                detector = make_detector(name, device=str(setting.device), backend=_backends(setting)[-1])
            except (DetectorError, WeightsError):
                continue  # without its model file there is nothing to time
            for size in SIZES if name != "none" else ():
                calls[f"{name} {size[0]}x{size[1]}"] = partial(detector, [portrait(*size)])
        times = in_turns(calls, Clock(setting.device), seconds=2 if setting.quick else 30)
    figures = []
    for name, taken in times.items():
        detector_name, picture = name.split()
        figures.append(timing("detector", taken, detector=detector_name, threads=1, picture=picture))
    return figures


def _cold_start(setting: Setting) -> list[Figure]:
    """Time new processes up to their first result, files in the system's cache."""
    readings: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "portrait.jpg"
        path.write_bytes(as_jpeg(portrait()))
        for _ in range(2 if setting.quick else 6):
            for backend in _backends(setting):
                command = [sys.executable, "-c", COLD, str(path), backend]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                readings.setdefault(backend, []).append(json.loads(done.stdout))
    return [
        timing(name, [reading[name] for reading in taken[1:]], picture="512x512", backend=backend)
        for backend, taken in readings.items()
        for name in taken[0]
    ]
