"""ONNX Runtime beside PyTorch: the same answers, what fewer bits cost, speed, and the cold start.

    python benchmarks/onnx_backend.py --fer2013 fer2013.csv [--parts parity accuracy speed start]
        [--data $FACEKIT_DATA] [--weights W] [--out DIR]

parity
    500 faces of RAF-DB go through both stages by PyTorch and by ONNX Runtime, both in fp32: largest
    differences.
accuracy
    FER2013's PublicTest (stage 2 on its own pixels) and the held-out Helen faces (stage 1 in label boxes) by
    PyTorch in fp32 and by exports in fp32, fp16 and int8.
speed
    One pass of each stage on one thread, batches of 1 and 64, all settings in turn.
start
    `facekit predict` on one picture as a process of its own, both backends in turn: from start to exit, and
    the processor time of that.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from facekit import FaceAnalyzer, geometry, load_dataset
from facekit.backends import Backend, make_backend
from facekit.benchmarking.accuracy import scores_as_they_are
from facekit.benchmarking.machine import load
from facekit.benchmarking.measuring import Clock, Figure, in_turns, timing, value
from facekit.benchmarking.results import RESULTS, write_result
from facekit.data.label_boxes import label_boxes
from facekit.export import PRECISIONS, export_networks
from facekit.images import to_gray
from facekit.keypoints import find_keypoints
from facekit.metrics import expression_metrics, keypoint_metrics
from facekit.schema import DEFAULT_HEAD

FACES = 500
RUN = {"run": f"onnx and torch, both fp32, {FACES} faces"}
PORTRAIT = Path(__file__).parents[1] / "docs" / "images" / "astronaut.jpg"


def exports(weights: str, folder: Path) -> dict[str, str]:
    """Write an export of every precision and give their folders."""
    for precision in PRECISIONS:
        export_networks(folder / precision, weights, precision=precision)
    return {precision: str(folder / precision) for precision in PRECISIONS}


def parity(weights: str, data: Path) -> list[Figure]:
    """Give the largest differences between both backends."""
    faces = load_dataset(data / "raf_db")
    places = np.linspace(0, len(faces) - 1, FACES).astype(int)
    grays = [to_gray(faces.load(place)) for place in places.tolist()]
    boxes = np.array([(0, 0, gray.shape[1], gray.shape[0]) for gray in grays], np.float32)
    found = [
        FaceAnalyzer("cpu", "none", "fp32", weights, backend=backend).describe(grays, np.arange(FACES), boxes)
        for backend in ("torch", "onnx")
    ]
    parts = {
        "probability": [arrays.scores[DEFAULT_HEAD] for arrays in found],
        "keypoint, pixels": [arrays.points_image for arrays in found],
        "sigma, pixels": [arrays.sigma for arrays in found],
    }
    return [
        value(name, float(np.abs(by_torch - by_onnx).max()), "largest", **RUN)
        for name, (by_torch, by_onnx) in parts.items()
    ]


def accuracy(weights: str, data: Path, fer2013: Path, folders: Mapping[str, str]) -> list[Figure]:
    """Give accuracy and NME of PyTorch and of every export."""
    expressions = load_dataset(fer2013).split("PublicTest")
    helen = load_dataset(data / "landmarks68" / "helen_train")
    backends: dict[str, Backend] = {"torch fp32": make_backend("torch", weights, "cpu", "fp32")}
    for precision, folder in folders.items():
        backends[f"onnx {precision}"] = make_backend("onnx", folder, "cpu", "auto")
    header = backends["torch fp32"].header
    helen = helen.select(np.isin(helen.rows, header["data"]["helen_train"]["held_out_rows"]))
    assert expressions.labels is not None
    assert helen.points is not None
    faces = [to_gray(helen.load(place)) for place in range(len(helen))]
    boxes = geometry.square(label_boxes(helen.points), header["crop_factor"])
    truth = np.array([header["model"]["heads"]["fer2013"].index(label) for label in expressions.labels])
    figures = []
    for name, backend in backends.items():
        scores = scores_as_they_are(backend, expressions)
        points, sigma = find_keypoints(backend, faces, np.arange(len(faces)), boxes)
        nme = keypoint_metrics(helen.points, points, sigma, boxes[:, 2] - boxes[:, 0]).nme
        told = expression_metrics(truth, scores)
        figures += [
            value("accuracy, FER2013 PublicTest", 100 * told.accuracy, "%", run=name, n=told.n),
            value("calibration error", 100 * told.ece, "%", run=name, n=told.n),
            value("NME, Helen held out", 100 * nme, "%", run=name, n=len(faces)),
        ]
    for precision, folder in folders.items():
        size = sum(path.stat().st_size for path in Path(folder).glob("*.onnx"))
        figures.append(value("files", size / 1e6, "MB", run=f"onnx {precision}"))
    return figures


def speed(weights: str, folders: Mapping[str, str]) -> list[Figure]:
    """Give the time of one pass of each stage, a face, on one thread."""
    backends = {
        "torch fp32": make_backend("torch", weights, "cpu", "fp32"),
        "torch auto": make_backend("torch", weights, "cpu", "auto"),
        "onnx fp32": make_backend("onnx", weights, "cpu", "fp32"),
        "onnx int8": make_backend("onnx", folders["int8"], "cpu", "auto"),
    }
    rng, figures = np.random.default_rng(0), []
    for batch in (1, 64):
        large, small = (rng.random((batch, 1, size, size), np.float32) for size in (96, 48))
        calls = {}
        for name, backend in backends.items():
            given = [torch.from_numpy(x) if name.startswith("torch") else x for x in (large, small)]
            calls[f"{name}, stage 1"] = partial(backend.keypoints, given[0])
            calls[f"{name}, stage 2"] = partial(backend.expression, given[1], ("fer2013",))
        for name, times in in_turns(calls, Clock(torch.device("cpu")), seconds=60).items():
            run, stage = name.split(", ")
            figures.append(timing(f"{stage}, batch {batch}", times, items=batch, run=run, threads=1))
    return figures


def start_up(weights: str) -> list[Figure]:
    """Give the time of `facekit predict` on one picture, from start to exit."""
    names = [(backend, detector) for detector in ("auto", "none") for backend in ("torch", "onnx")]
    processor: dict[str, list[float]] = {}

    def predict(backend: str, detector: str) -> None:
        command = [sys.executable, "-m", "facekit_cli.main", "predict", str(PORTRAIT), "--json", "-"]
        command += ["--weights", weights, "--backend", backend, "--detector", detector, "--device", "cpu"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = {name: told for name, told in os.environ.items() if name != "OMP_NUM_THREADS"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=own)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        processor.setdefault(f"{backend}, detector {detector}", []).append(used)

    calls = {
        f"{backend}, detector {detector}": partial(predict, backend, detector) for backend, detector in names
    }
    wall = in_turns(calls, Clock(torch.device("cpu")), seconds=120, most=10, warm_up=1)
    return [
        timing(kind, times[name][-len(wall[name]) :], run=name)
        for name in wall
        for kind, times in (("start to exit", wall), ("processor time", processor))
    ]


def main() -> None:
    """Measure, and write a results file a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = ("parity", "accuracy", "speed", "start")
    parser.add_argument("--parts", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--fer2013", type=Path, help="for the part accuracy")
    parser.add_argument("--data", type=Path, default=os.environ.get("FACEKIT_DATA"))
    parser.add_argument("--weights", default="default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for ONNX Runtime; new processes take what they would by themselves
    with tempfile.TemporaryDirectory() as folder:
        folders = {}
        if {"accuracy", "speed"} & {*options.parts}:
            folders = exports(options.weights, Path(folder))
        parts: dict[str, Callable[[], list[Figure]]] = {
            "parity": lambda: parity(options.weights, options.data),
            "accuracy": lambda: accuracy(options.weights, options.data, options.fer2013, folders),
            "speed": lambda: speed(options.weights, folders),
            "start": lambda: start_up(options.weights),
        }
        for part in options.parts:
            load_before, started = load(), time.perf_counter()
            body = {"weights": options.weights, "quick": False, "load_before": load_before, "skipped": []}
            body["figures"] = parts[part]()
            body["seconds"] = round(time.perf_counter() - started, 1)
            for figure in body["figures"]:
                print(figure["setting"]["run"], figure["name"], figure.get("median", figure.get("value")))
            command = f"python benchmarks/onnx_backend.py --parts {part}"
            print(write_result(f"onnx-{part}", "cpu", command, body, options.out), flush=True)


if __name__ == "__main__":
    main()
