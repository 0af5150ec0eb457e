"""Trained weights as safetensors: half-precision tensors under a header that says where they come from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from facekit.errors import WeightsError
from facekit.schema import INPUT_SIZE
from facekit.writing import write_atomically

if TYPE_CHECKING:  # torch alone takes seconds, and reading a file does not need it
    import torch

    from facekit.baselines import BaselineNetwork
    from facekit.detector_network import DetectorNetwork
    from facekit.model import ModelConfig, SharedNetwork

VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class StoredWeights:
    """What a weights file holds, as arrays.

    Attributes
    ----------
    name : str
        Such as "default-v1".
    path : Path
    header : dict
        See Weights.
    tensors : dict of str to array
        As stored: float16.
    sha256 : str
        Of the file.
    other : StoredWeights or None
        Do the task that these were not trained for.
    """

    name: str
    path: Path
    header: dict[str, Any]
    tensors: dict[str, NDArray[Any]]
    sha256: str
    other: StoredWeights | None = None

    @property
    def tasks(self) -> tuple[Any, ...]:
        """What these weights do, with the other ones."""
        own = tuple(self.header["model"]["tasks"])
        return own if self.other is None else tuple(INPUT_SIZE)

    @property
    def has_ranges(self) -> bool:
        """Whether every task can be done in 8-bit integers, see onnx_graph.Graph."""
        ranges: dict[str, Any] = self.header.get("ranges", {})
        return ranges.keys() >= {*self.tasks}

    def doing(self, task: str) -> StoredWeights:
        """Give the weights that do a task."""
        return self if self.other is None or task in self.header["model"]["tasks"] else self.other


@dataclass(frozen=True)
class Weights:
    """A trained network with what its use needs.

    Attributes
    ----------
    name : str
        Such as "default-v1".
    network : SharedNetwork
        In evaluation mode, float32.
    header : dict
        ``mean`` and ``std`` (normalisation of 0..1 gray), ``crop_factor`` (side of stage 1's crop over the
        side of the square around the 15 points), ``frame`` (5 points (x, y) of schema.ALIGNED_POINTS in the
        48x48 crop), ``temperature`` by head, ``photo_bias`` (by head, one a class, for faces that do not come
        framed as FER2013's; none where it is missing), ``sigma_factor``, and the record: data, held-out rows,
        metrics, commit, ``scaling`` (matrix and bias by head, which the network holds already).
    sha256 : str
        Of the file.
    baseline : BaselineNetwork or None
        Does its own task in place of `network`.
    other : SharedNetwork or None
        Does the task that `network` was not trained for.
    """

    name: str
    network: SharedNetwork
    header: dict[str, Any]
    sha256: str
    baseline: BaselineNetwork | None = None
    other: SharedNetwork | None = None


def shipped() -> dict[str, dict[str, str]]:
    """Give the manifest of the shipped weights: name to file and sha256."""
    text = (resources.files("facekit") / "pretrained" / MANIFEST).read_text()
    manifest: dict[str, dict[str, str]] = json.loads(text)
    return manifest


def rows_held_out(record: Mapping[str, Any]) -> list[int]:
    """Give the rows of a set that its record in a header says were held out, and those returned since."""
    rows: list[int] = record["held_out_rows"] + record.get("returned_rows", [])
    return rows


def describe_shipped() -> list[dict[str, Any]]:
    """Tell of each shipped weights file its name, version, tasks, parameters, class sets, file and sha256."""
    descriptions = []
    for name, entry in shipped().items():
        _, path, sha = find_weights(name)
        with safe_open(path, "np") as file:
            header = json.loads(file.metadata()["facekit"])
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118  (not a mapping)
        model = header["model"]
        descriptions.append(
            {
                "name": name,
                "version": header.get("name", name),
                "tasks": list(model.get("tasks", [header["kind"]])),
                "parameters": sum(math.prod(shape) for shape in shapes),
                "heads": model.get("heads", {}),
                "file": entry["file"],
                "sha256": sha,
            }
        )
    return descriptions


def find_weights(weights: str | os.PathLike[str]) -> tuple[str, Path, str | None]:
    """Give name, file and expected sha256 (None for a file of the user's) of shipped weights or a file.

    Raises
    ------
    WeightsError
        Neither a shipped name nor a file.
    """
    manifest = shipped()
    for name, entry in manifest.items():
        if str(weights) in (name, stem := Path(entry["file"]).stem):  # results name the weights by the stem
            folder = Path(str(resources.files("facekit") / "pretrained"))
            return stem, folder / entry["file"], entry["sha256"]
    path = Path(weights)
    if path.is_dir():
        path = path / "weights.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(manifest))
        raise WeightsError(
            f"no weights {str(weights)!r}: expected a file or one of {known}; see `facekit models`"
        )
    return path.stem, path, None


def seen_by(weights: str | os.PathLike[str]) -> NDArray[np.uint64] | None:
    """Give the content hashes (N,) of the pictures that weights were trained on; None: there is no list.

    It lies beside their file; an export has none.
    """
    try:
        file = find_weights(weights)[1].with_suffix(".seen")
    except WeightsError:
        return None
    return np.frombuffer(file.read_bytes(), ">u8") if file.is_file() else None


def load_weights(weights: str | os.PathLike[str] = "default") -> Weights:
    """Read shipped weights by name, or a file.

    Raises
    ------
    WeightsError
        Missing, changed (sha256 differs from the manifest), not safetensors, or of another version.
    """
    from facekit.model import ModelConfig, SharedNetwork

    stored = read_weights(weights)
    config = dict(stored.header["model"])
    config["blocks"], config["tasks"] = tuple(config["blocks"]), tuple(config["tasks"])
    config["heads"] = {head: tuple(classes) for head, classes in config["heads"].items()}
    network = SharedNetwork(ModelConfig(**config))
    load_tensors(network, stored.tensors, stored.path)
    return Weights(stored.name, network.eval(), stored.header, stored.sha256)


def load_stages(weights: str | os.PathLike[str] = "default") -> Weights:
    """Read weights for an analysis; what was trained for one task has the other done by the default weights.

    Raises
    ------
    WeightsError
        As `load_weights`.
    """
    _, path, _ = find_weights(weights)
    if kind_of(path) != "baseline":
        found = load_weights(weights)
        if set(found.network.config.tasks) == set(INPUT_SIZE):
            return found
        usual = load_weights()
        return replace(found, header=completed(found, usual), other=usual.network)
    from facekit.baselines import BaselineConfig, BaselineNetwork

    stored = read_weights(weights, "baseline")
    usual = load_weights()
    model = stored.header["model"]
    own = {field.name: model[field.name] for field in fields(BaselineConfig)}
    network = BaselineNetwork(BaselineConfig(**own | {"stack": tuple(own["stack"])}))
    load_tensors(network, stored.tensors, stored.path)
    header = completed(stored, usual)
    return Weights(stored.name, usual.network, header, stored.sha256, network.eval())


def read_stages(weights: str | os.PathLike[str] = "default") -> StoredWeights:
    """Read weights for an analysis, as `load_stages`, without torch.

    Raises
    ------
    WeightsError
        As `load_weights`.
    """
    stored = read_weights(weights)
    if set(stored.tasks) == set(INPUT_SIZE):
        return stored
    usual = read_weights()
    return replace(stored, header=completed(stored, usual), other=usual)


def completed(weights: Weights | StoredWeights, usual: Weights | StoredWeights) -> dict[str, Any]:
    """Give the header of weights for one task with what belongs to the other from the default weights'.

    Raises
    ------
    WeightsError
        They see pixels in another normalisation.
    """
    header, default = weights.header, usual.header
    for key in ("mean", "std"):
        if header[key] != default[key]:
            raise WeightsError(
                f"{weights.name}: the pixels' {key} is {header[key]}, expected {default[key]} as of "
                f"{usual.name}, which does the other task; train anew"
            )
    model = header["model"]
    heads = model["heads"] if "expression" in model["tasks"] else default["model"]["heads"]
    ranges = {task: maps for task, maps in default.get("ranges", {}).items() if task not in model["tasks"]}
    merged = default | header | {"model": model | {"heads": heads}}
    return merged | {"ranges": ranges | header.get("ranges", {})}


def of_its_task(header: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a header what belongs to a task that its network was not trained for."""
    tasks = header["model"]["tasks"]
    idle = {
        "expression": ("scaling", "temperature", "photo_bias", "frame"),
        "keypoints": ("crop_factor", "sigma_factor"),
    }
    return {
        key: value
        for key, value in header.items()
        if not any(key in keys for task, keys in idle.items() if task not in tasks)
    }


def kind_of(path: Path) -> str | None:
    """Give the kind of a weights file, None for what is none."""
    try:
        with safe_open(path, "np") as file:
            kind: str | None = json.loads((file.metadata() or {}).get("facekit", "{}")).get("kind")
    except (SafetensorError, OSError):
        return None
    return kind


def load_detector(
    weights: str | os.PathLike[str] = "detector",
) -> tuple[DetectorNetwork, dict[str, Any]]:
    """Read a detector's network, in evaluation mode, and header: shipped weights by name, or a file.

    Raises
    ------
    WeightsError
        As `load_weights`.
    """
    from facekit.detector_network import DetectorConfig, DetectorNetwork

    stored = read_weights(weights, "detector")
    config = dict(stored.header["model"])
    config["widths"], config["blocks"] = tuple(config["widths"]), tuple(config["blocks"])
    network = DetectorNetwork(DetectorConfig(**config))
    load_tensors(network, stored.tensors, stored.path)
    return network.eval(), stored.header


def read_weights(weights: str | os.PathLike[str] = "default", kind: str = "shared") -> StoredWeights:
    """Read a weights file without making a network of it, and without torch.

    Raises
    ------
    WeightsError
        As `load_weights`.
    """
    name, path, found = _checked(weights)
    header, tensors = read_tensors(path, kind)
    return StoredWeights(header.get("name", name), path, header, tensors, found)


def _checked(weights: str | os.PathLike[str]) -> tuple[str, Path, str]:
    """Give name, file and sha256 of weights, the latter compared with the manifest's."""
    name, path, expected = find_weights(weights)
    found = sha256_of(path)
    if expected is not None and found != expected:
        raise WeightsError(
            f"{path}: sha256 is {found}, expected {expected}; the file was changed, reinstall facekit"
        )
    return name, path, found


def sha256_of(path: Path) -> str:
    """Give the sha256 of a file of weights.

    Raises
    ------
    WeightsError
        It cannot be read.
    """
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read: {error}; reinstall facekit or name another file"
        ) from error


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a weights file's header and tensors.

    Raises
    ------
    WeightsError
        Not a safetensors file, without facekit's header, of another version or kind.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        found = sha256(path.read_bytes()).hexdigest()
        raise WeightsError(f"{path}: not a safetensors file (sha256 {found}): {error}") from error
    header: dict[str, Any] = json.loads(metadata.get("facekit", "{}"))
    if header.get("version") != VERSION or header.get("kind") != kind:
        found = f"kind {header.get('kind')!r}, version {header.get('version')!r}"
        other = "train them anew or use another release of facekit"
        advice = f"this needs {kind} weights" if header.get("version") == VERSION else other
        raise WeightsError(f"{path}: weights of {found}; expected kind {kind!r}, version {VERSION}; {advice}")
    return header, tensors


def load_tensors(network: torch.nn.Module, tensors: dict[str, NDArray[Any]], path: Path) -> None:
    """Put tensors read from `path` into a network.

    Raises
    ------
    WeightsError
        Names or shapes differ.
    """
    import torch

    try:
        missing, unexpected = network.load_state_dict(
            {key: torch.from_numpy(tensor).float() for key, tensor in tensors.items()}, strict=False
        )
    except RuntimeError as error:
        raise WeightsError(f"{path}: tensors do not fit the header's network: {error}") from error
    # Counters of batches serve only training and are not stored.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(f"{path}: tensors do not fit the header's network: {missing=}, {unexpected=}")


def save_weights(path: Path, network: torch.nn.Module, kind: str, header: dict[str, Any]) -> str:
    """Write a network in half precision under its header, atomically, and give the file's sha256."""
    from safetensors.torch import save

    tensors = {
        key: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    record = {"version": VERSION, "kind": kind, **header}
    data = save(tensors, {"facekit": json.dumps(record, allow_nan=False)})
    write_atomically(path, data)
    return sha256(data).hexdigest()


def model_record(config: ModelConfig) -> dict[str, Any]:
    """Give a network's configuration as it stands in a header."""
    record = asdict(config)
    record["heads"] = dict(config.heads)
    return record
