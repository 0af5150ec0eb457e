"""How long one picture takes on one CPU core, and its parts: load, detect, keypoints, align, expression.

    python benchmarks/latency.py [--repeats N]

NASA's portrait (scikit-image's astronaut, 512x512, one face) goes through the pipeline part by part and as a
whole. Every part and setting is timed once a round, in turn, so that a busy machine is busy for all of them
alike; after the warm-up the medians and quartiles over the rounds are kept.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import write_result
from PIL import Image
from skimage.data import astronaut

from facekit import FaceAnalyzer
from facekit.alignment import align
from facekit.detection import crop_boxes
from facekit.expression import find_expressions
from facekit.images import read_image, to_gray
from facekit.keypoints import find_keypoints

WARM_UP = 5


def parts(analyzer: FaceAnalyzer, picture: np.ndarray, encoded: bytes) -> dict[str, Callable[[], Any]]:
    """Give each part as a call that repeats it on the same input."""
    grays, first = [to_gray(picture)], np.zeros(1, np.int64)
    found = analyzer.detector([picture])[0]
    crops = crop_boxes(found.boxes[:1], analyzer.detector.crop_from_box)
    points, _ = find_keypoints(analyzer.backend, grays, first, crops)
    matrices = align(points, analyzer.backend.header["frame"])
    return {
        "load": lambda: read_image(encoded),
        "detect": lambda: analyzer.detector([picture]),
        "keypoints": lambda: find_keypoints(analyzer.backend, grays, first, crops),
        "align": lambda: align(points, analyzer.backend.header["frame"]),
        "expression": lambda: find_expressions(analyzer.backend, grays, first, matrices, "fer2013"),
        "whole": lambda: analyzer(picture),
    }


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    picture = astronaut()
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    calls = {
        f"{precision} {name}": call
        for precision in ("auto", "fp32")
        for name, call in parts(
            FaceAnalyzer(device="cpu", precision=precision), picture, buffer.getvalue()
        ).items()
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP + arguments.repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    figures = {}
    for name, values in times.items():
        low, median, high = np.percentile(values[WARM_UP:], [25, 50, 75]).round(3).tolist()
        figures[name] = {"median_ms": median, "quartiles_ms": [low, high]}
        print(f"{name:18} {median:8.2f} ms  ({low:.2f} to {high:.2f})")
    body = {"picture": "astronaut 512x512", "repeats": arguments.repeats, "threads": 1, "parts": figures}
    print(write_result("latency", "cpu", "python benchmarks/latency.py", body))


if __name__ == "__main__":
    main()
