"""Put a training run's weights into the package: the file, the list of what it saw, and the manifest.

python benchmarks/ship_weights.py runs/shipped default
"""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from pathlib import Path

from safetensors import safe_open

import facekit
from facekit.weights import MANIFEST, shipped
from facekit.writing import write_atomically


def main() -> None:
    """Copy, and remove the version that the name stood for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name", help="what people say to --weights")
    arguments = parser.parse_args()
    folder = Path(facekit.__file__).parent / "pretrained"
    manifest = shipped()
    for old in folder.glob(Path(manifest.get(arguments.name, {"file": "-"})["file"]).stem + ".*"):
        old.unlink()
    source = arguments.run / "weights.safetensors"
    with safe_open(source, "pt") as file:
        version = json.loads(file.metadata()["facekit"])["name"]
    data = source.read_bytes()
    write_atomically(folder / f"{version}.safetensors", data)
    seen = source.with_suffix(".seen")
    if seen.is_file():
        write_atomically(folder / f"{version}.seen", seen.read_bytes())
    manifest[arguments.name] = {"file": f"{version}.safetensors", "sha256": sha256(data).hexdigest()}
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    print(folder / f"{version}.safetensors", manifest[arguments.name]["sha256"])


if __name__ == "__main__":
    main()
