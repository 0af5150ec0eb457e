"""What a picture costs in a batch run: by stage, by worker, in memory, and in the process that writes.

    python benchmarks/scale.py [--pictures N] [--workers N] [--note TEXT]

The pictures are NASA's portrait (scikit-image's astronaut) as 640x480 JPEG files, one face each. Times are of
the processor, not of the clock, so that other work on the machine hardly counts: a stage's is the median over
batches of 32 in a process of one thread; a picture's is that of all workers of a run, once they have
started. `reckoning.py` makes a cluster's hours and money of them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from facekit.benchmarking.machine import load
from facekit.benchmarking.measuring import Figure, timing, value
from facekit.benchmarking.pictures import write_album
from facekit.benchmarking.processes import ask
from facekit.benchmarking.results import write_result

SETTINGS = {"torch": {"backend": "torch"}, "onnx int8": {"backend": "onnx", "precision": "int8"}}
BATCH = 32
ROUNDS = 12

STAGES = """
from facekit.batch.work import Analysis, Worker
from facekit.detection import crop_boxes
from facekit.images import read_image, to_gray
import numpy as np
setting, rounds, *album = sys.argv[1:]
analyzer = Worker(Analysis(device="cpu", **json.loads(setting))).analyzer
taken = {name: [] for name in ("decode", "detect", "network", "rest")}
for _ in range(int(rounds) + 1):
    at = [time.process_time()]
    images = [read_image(path) for path in album]
    at.append(time.process_time())
    found = analyzer.detector(images)
    at.append(time.process_time())
    pictures = np.repeat(np.arange(len(images)), [len(one.boxes) for one in found])
    boxes = crop_boxes(np.concatenate([one.boxes for one in found]), analyzer.crop_from_box)
    arrays = analyzer.describe([to_gray(image) for image in images], pictures, boxes)
    at.append(time.process_time())
    for faces in analyzer._gather(images, found, arrays):
        faces.to_json()
    at.append(time.process_time())
    for name, start, end in zip(taken, at, at[1:]):
        taken[name].append(end - start)
tell(**{name: times[1:] for name, times in taken.items()})
"""

RUN = """
import multiprocessing
from facekit.batch.running import BatchConfig, run_batch
from facekit.batch.work import Analysis
folder, out, setting, workers = sys.argv[1:]
config = BatchConfig(Analysis(device="cpu", **json.loads(setting)), workers=int(workers))
steps, peaks = [], {}

def processor_seconds(pid):
    stat = Path(f"/proc/{pid}/stat")
    cells = stat.read_text().rpartition(")")[2].split() if stat.is_file() else []
    return (int(cells[11]) + int(cells[12])) / os.sysconf("SC_CLK_TCK") if cells else 0

for far in run_batch([folder], out, config):
    alive = multiprocessing.active_children()
    below = sum(processor_seconds(worker.pid) for worker in alive)
    steps.append((time.perf_counter(), time.process_time(), below, far.pictures))
    for worker in alive:
        status = Path(f"/proc/{worker.pid}/status")
        lines = status.read_text().splitlines() if status.is_file() else []
        for line in lines:
            if line.startswith("VmHWM"):  # which a process that is ending has no more
                peaks[worker.pid] = int(line.split()[1]) / 1024
# From when every worker has had its second chunk, to the last outcome; the step after that ends the run.
(first, before, below, some), (last, after, above, every) = steps[2 * int(workers) + 1], steps[-2]
tell(
    driver=after - before,
    processors=above - below,
    seconds=last - first,
    steady=every - some,
    peak=max(peaks.values()),
    bytes=sum(path.stat().st_size for path in Path(out).glob("part-*")),
)
"""


def measure_stages(backend: str, album: list[Path]) -> list[Figure]:
    """Give the processor time of each stage."""
    told = ask(STAGES, json.dumps(SETTINGS[backend]), ROUNDS, *album[:BATCH])
    return [timing(name, times, "ms", BATCH, backend=backend, batch=BATCH) for name, times in told.items()]


def run_whole(folder: Path, backend: str, workers: int) -> dict[str, Any]:
    """Run all pictures of a folder and give what that took."""
    with tempfile.TemporaryDirectory() as place:
        return ask(RUN, folder, Path(place, "out"), json.dumps(SETTINGS[backend]), workers)


def measure_runs(backend: str, folder: Path, count: int, most: int) -> list[Figure]:
    """Give a picture's processor time in whole runs, and the memory of their workers."""
    figures = []
    for workers in range(1, most + 1):
        told = run_whole(folder, backend, workers)
        each = told["processors"] * 1e3 / told["steady"]
        told_of = {"backend": backend, "workers": workers}
        figures += [
            value("picture", each, "ms", **told_of),
            value("writing process", told["driver"] * 1e3 / told["steady"], "ms", **told_of),
            value("rate", told["steady"] / told["seconds"], "pictures/s", **told_of),
            value("memory a worker", told["peak"], "MiB", **told_of),
            value("output", told["bytes"] / count, "bytes", **told_of),
        ]
    return figures


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    load_before, started, figures = load(), time.perf_counter(), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        album = write_album(folder, options.pictures)
        size = sum(path.stat().st_size for path in album) / len(album)
        figures.append(value("input", size, "bytes", picture="640x480"))
        for backend in SETTINGS:
            figures += measure_stages(backend, album)
            figures += measure_runs(backend, folder, len(album), options.workers)
            print(f"{backend}: {len(figures)} figures", flush=True)
    command = f"python benchmarks/scale.py --pictures {options.pictures} --workers {options.workers}"
    body = {
        "quick": False,
        "weights": "default",
        "seconds": round(time.perf_counter() - started, 1),
        "load_before": load_before,
        "skipped": [],
        "notes": options.note,
        "figures": figures,
    }
    print(write_result("scale", "cpu", command, body))


if __name__ == "__main__":
    main()
