"""Put a training run's weights into the package: the file, the list of what it saw, and the manifest.

python benchmarks/ship_weights.py runs/shipped default --calibrate $FACEKIT_DATA/landmarks68/afw

The faces of --calibrate, of those that were trained on, set the ranges with which the weights also run in
8-bit integers.
"""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save

import facekit
from facekit import FaceAnalyzer, load_dataset
from facekit.quantization import calibration_crops, measure_ranges
from facekit.weights import MANIFEST, read_weights, shipped
from facekit.writing import write_atomically


def with_ranges(source: Path, faces: Path) -> bytes:
    """Give a weights file with the ranges that faces set in its header."""
    stored = read_weights(source)
    crops = calibration_crops(load_dataset(faces), FaceAnalyzer("cpu", weights=str(source), backend="onnx"))
    header = {**stored.header, "ranges": measure_ranges(stored, crops)}
    return save(stored.tensors, {"facekit": json.dumps(header, allow_nan=False)})


def main() -> None:
    """Copy, and remove the version that the name stood for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name", help="what people say to --weights")
    parser.add_argument("--calibrate", type=Path, metavar="DATASET")
    arguments = parser.parse_args()
    folder = Path(facekit.__file__).parent / "pretrained"
    manifest = shipped()
    before = Path(manifest.get(arguments.name, {"file": "-"})["file"]).stem
    source = arguments.run / "weights.safetensors"
    with safe_open(source, "pt") as file:
        version = json.loads(file.metadata()["facekit"])["name"]
    data = with_ranges(source, arguments.calibrate) if arguments.calibrate else source.read_bytes()
    write_atomically(folder / f"{version}.safetensors", data)
    seen = source.with_suffix(".seen")
    if seen.is_file():
        write_atomically(folder / f"{version}.seen", seen.read_bytes())
    manifest[arguments.name] = {"file": f"{version}.safetensors", "sha256": sha256(data).hexdigest()}
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    for old in folder.glob(f"{before}.*"):
        if old.stem != version:
            old.unlink()
    print(folder / f"{version}.safetensors", manifest[arguments.name]["sha256"])


if __name__ == "__main__":
    main()
