"""The memory that a cross-check of a large folder of small pictures holds at most.

    python benchmarks/crosscheck_memory.py --fer2013 fer2013.csv [--pictures 200000] [--device D]

The folder has a level of classes; its files are links to FER2013's PublicTest pictures, over and over, so
that nearly all are duplicates. The cross-check runs on it in a process of its own, report included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2

from facekit import load_dataset
from facekit.backends.torch import choose_device
from facekit.benchmarking.processes import ask
from facekit.benchmarking.results import write_result

PROGRAM = """
from facekit import crosscheck, report
result = crosscheck(sys.argv[1], out=sys.argv[2], device=sys.argv[3])
report.write_report(result, Path(sys.argv[2]))
tell(peak=peak_mebibytes(), rows=len(result.dataset))
"""


def write_folder(fer2013: Path, count: int, folder: Path) -> None:
    """Write `count` pictures in folders of their labels."""
    faces = load_dataset(fer2013).split("PublicTest")
    assert faces.labels is not None
    for number in range(count):
        place = number % len(faces)
        name = folder / str(faces.labels[place]) / f"{number:06}.png"
        name.parent.mkdir(exist_ok=True)
        if number < len(faces):
            cv2.imwrite(str(name), faces.load(place))
        else:
            os.link(name.with_stem(f"{place:06}"), name)


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fer2013", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=200_000)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        pictures, out = Path(folder) / "pictures", Path(folder) / "out"
        pictures.mkdir()
        write_folder(arguments.fer2013, arguments.pictures, pictures)
        start = time.perf_counter()
        told = ask(PROGRAM, pictures, out, device)
        seconds = time.perf_counter() - start
        written = sum(file.stat().st_size for file in out.iterdir() if file.is_file()) / 1e6
    body = {
        "pictures": told["rows"],
        "peak_mebibytes": told["peak"],
        "seconds": seconds,
        "written_megabytes": written,
    }
    command = f"python benchmarks/crosscheck_memory.py --fer2013 fer2013.csv --pictures {arguments.pictures}"
    print(write_result("crosscheck-memory", device.type, command, body))


if __name__ == "__main__":
    main()
