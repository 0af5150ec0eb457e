"""From labelled folders to weights: the recipe of the shared network, its aligner, folds and calibration."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit import geometry
from facekit.alignment import align
from facekit.augmentation import AugmentConfig
from facekit.backends.torch import TorchBackend, choose_device
from facekit.data.catalog import load_dataset
from facekit.data.holdout import content_hash, held_out
from facekit.data.label_boxes import label_boxes
from facekit.data.resident import (
    ExpressionSamples,
    KeypointSamples,
    expression_canvases,
    expression_samples,
    join,
    keypoint_samples,
    take,
    to_device,
)
from facekit.data.samples import Dataset, Skipped
from facekit.detection import Detector, crop_boxes, make_detector
from facekit.errors import ConfigError, DatasetError
from facekit.fitting import EpochRecord, FitConfig, fit
from facekit.keypoints import find_keypoints
from facekit.model import DEFAULT_HEAD, ModelConfig, SharedNetwork
from facekit.objectives import ExpressionObjective, KeypointObjective, Objective
from facekit.schema import ALIGNED_POINTS, EXPRESSIONS, FERPLUS
from facekit.weights import Weights, model_record, save_weights

MEAN, STD = 129.4 / 255, 65.1 / 255
"""Mean and standard deviation of FER2013's pixels."""

HEADS: Mapping[str, tuple[str, ...]] = {
    DEFAULT_HEAD: EXPRESSIONS,
    "ferplus": FERPLUS,
    "raf_db": EXPRESSIONS,
    "affectnet": (*EXPRESSIONS, "contempt"),
    "expw": EXPRESSIONS,
}

_log = logging.getLogger(__name__)
_C = TypeVar("_C")


@dataclass(frozen=True)
class DataConfig:
    """Which samples are used, and how often.

    Attributes
    ----------
    crop_factor : float
        Side of stage 1's crop over the side of the square around the 15 points.
    draws : mapping of set to float
        How often each sample of a set is drawn an epoch (expressions) or relative to others (keypoints); 1 if absent.
    label_weight : mapping of set to float
        Weight of a set's labels for the default head; 1 if absent.
    held_out : mapping of set to int
        Samples that training never sees, by person, photo or content.
    leave_out : tuple of str
        Sets that are not used at all.
    """

    crop_factor: float = 1.6
    draws: Mapping[str, float] = field(default_factory=dict)
    label_weight: Mapping[str, float] = field(default_factory=dict)
    held_out: Mapping[str, int] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeypointConfig:
    """See KeypointObjective."""

    batch_size: int = 64
    every: int = 2
    weight: float = 0.1
    augment: AugmentConfig = AugmentConfig(rotation=30.0, low_resolution=0.3)


@dataclass(frozen=True)
class ExpressionConfig:
    """See ExpressionObjective; `distill` is the share of soft targets from out-of-fold teachers."""

    batch_size: int = 128
    smoothing: float = 0.1
    auxiliary: float = 0.2
    early_size: int = 48
    early_share: float = 0.0
    distill: float = 0.0
    augment: AugmentConfig = AugmentConfig()


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run, as a TOML file states it, table by table.

    Attributes
    ----------
    name : str
        Of the weights.
    model, fit, data, keypoints, expression
        See their classes.
    aligner : FitConfig
        The short keypoint training whose network frames the pictures of stage 2.
    """

    name: str = "default-v1"
    model: ModelConfig = ModelConfig(heads=HEADS)
    fit: FitConfig = FitConfig()
    aligner: FitConfig = FitConfig(epochs=10, optimizer="adamw", learning_rate=2e-3, weight_decay=1e-2)
    data: DataConfig = DataConfig()
    keypoints: KeypointConfig = KeypointConfig()
    expression: ExpressionConfig = ExpressionConfig()


def read_config(path: str | os.PathLike[str]) -> TrainConfig:
    """Read a TOML file; see `read_settings`."""
    return read_settings(path, TrainConfig())


def read_settings(path: str | os.PathLike[str], default: _C) -> _C:
    """Read a TOML file whose tables and keys are a dataclass's fields; those left out keep `default`'s values.

    Raises
    ------
    ConfigError
        Not TOML, or a table or key that the dataclass does not have.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    return _from_table(default, table, str(path))


def _from_table(default: _C, table: Mapping[str, Any], where: str) -> _C:
    """Replace a dataclass's fields by a table's values; tables become nested dataclasses."""
    kinds = get_type_hints(type(default))
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kinds:
            raise ConfigError(f"{where}: unknown key {key!r}; expected one of {', '.join(kinds)}")
        old = getattr(default, key)
        if is_dataclass(old):
            changes[key] = _from_table(old, value, f"{where} [{key}]")
        elif isinstance(old, tuple):
            changes[key] = tuple(value)
        else:
            changes[key] = type(old)(value) if isinstance(old, float) else value
    return replace(default, **changes)  # type: ignore[type-var]


@dataclass
class Prepared:
    """Samples by set, before they are joined and moved to the device.

    Attributes
    ----------
    keypoints, expressions : dict of set to (samples, mask of held-out rows, keys)
        Keys (N,) name each sample as "set:row".
    frame : (5, 2) float or None, see alignment.align; None: nothing needed aligning
    record : dict
        What the weights' header says of the data.
    skipped : list of Skipped
    """

    keypoints: dict[str, tuple[KeypointSamples, NDArray[np.bool_], list[str]]]
    expressions: dict[str, tuple[ExpressionSamples, NDArray[np.bool_], list[str]]]
    frame: NDArray[np.float64] | None
    record: dict[str, Any]
    skipped: list[Skipped]


def train(
    config: TrainConfig,
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    folds: int = 0,
    device: str = "auto",
) -> Iterator[EpochRecord]:
    """Train the shared network on labelled folders and write weights.

    A short keypoint training comes first; its network measures FER2013's frame and brings the other sets' faces to
    it. With `folds`, a network is trained for each fold without its rows, and their predictions are written.

    Parameters
    ----------
    config : TrainConfig
    data : sequence of paths
        Datasets in any of the formats of data.catalog; points, expressions or both.
    out : path
        Folder for checkpoints, history.csv, and at the end weights.safetensors (or folds.npz).
    resume : bool
        Go on where an interrupted run stopped.
    folds : int
        Number of folds; 0: one network on all rows that are not held out.
    device : str
        auto, cpu, cuda, cuda:N or mps.

    Yields
    ------
    EpochRecord

    Raises
    ------
    DatasetError, ConfigError
    """
    folder, on = Path(out), choose_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    datasets = [dataset for path in data if (dataset := load_dataset(path)).name not in config.data.leave_out]
    prepared = yield from prepare(config, datasets, folder, on, resume)
    if folds:
        yield from _train_folds(config, prepared, folder, on, resume, folds)
        return
    network = _network(config, on)
    objectives = build_objectives(config, prepared, on, soft_targets(config, folder, prepared))
    yield from fit(network, objectives, config.fit, folder, resume=resume)
    if prepared.frame is None and prepared.keypoints and prepared.expressions:
        labelled = [dataset for dataset in datasets if dataset.labels is not None]
        prepared.frame = measure_frame(_stage1(network, on), labelled, config.data.crop_factor)
    header = finish(config, prepared, network, objectives)
    save_weights(folder / "weights.safetensors", network, "shared", header)


def prepare(
    config: TrainConfig, datasets: Sequence[Dataset], out: Path, device: torch.device, resume: bool
) -> Iterator[EpochRecord]:
    """Read all samples, train the aligner on the way, and give them as Prepared (the generator's return value)."""
    skipped: list[Skipped] = []
    pointed = [_train_rows(dataset) for dataset in datasets if dataset.points is not None]
    labelled = [_train_rows(dataset) for dataset in datasets if dataset.labels is not None]
    others = {hash_ for dataset in datasets for hash_ in _other_split_hashes(dataset)}
    keypoints = {}
    for dataset in pointed:
        draw = config.data.draws.get(dataset.name, 1.0)
        samples = keypoint_samples(dataset, config.data.crop_factor, draw, skipped)
        keys = [f"{dataset.name}:{row}" for row in dataset.rows]
        mask = held_out(_keys(dataset, samples.canvases), config.data.held_out.get(dataset.name, 0))
        keypoints[dataset.name] = (samples, mask, keys)
    backend, frame = None, None
    if any(not dataset.fer2013_frame for dataset in labelled):
        backend = yield from _train_aligner(config, keypoints, out, device, resume)
        frame = measure_frame(backend, labelled, config.data.crop_factor)
    expressions = {}
    for dataset in labelled:
        aligner = None
        if backend is not None and frame is not None:
            detector = make_detector("auto" if dataset.whole_pictures else "none")
            aligner = PictureAligner(backend, detector, frame, config.data.crop_factor)
        canvases, places = expression_canvases(dataset, aligner, skipped)
        hashes = [content_hash(canvas) for canvas in canvases]
        fresh = np.array([hash_ not in others for hash_ in hashes])
        canvases, shown = canvases[fresh], dataset.select(places[fresh])
        draw = config.data.draws.get(dataset.name, 1.0)
        weight = config.data.label_weight.get(dataset.name, 1.0)
        own = dataset.name if dataset.name in config.model.heads else None
        samples = expression_samples(canvases, shown, config.model.heads, own, weight, draw)
        mask = held_out(_keys(shown, samples.canvases), config.data.held_out.get(dataset.name, 0))
        expressions[dataset.name] = (samples, mask, [f"{dataset.name}:{row}" for row in shown.rows])
        _log.info("%s: %d faces with expressions, %d held out", dataset.name, len(samples), mask.sum())
    return Prepared(keypoints, expressions, frame, _record(keypoints, expressions), skipped)  # type: ignore[return-value]


def _train_rows(dataset: Dataset) -> Dataset:
    return dataset.select(np.array([split in (None, "train") for split in dataset.splits], np.bool_))


def _other_split_hashes(dataset: Dataset) -> Iterator[bytes]:
    """Hash the canvases of FER2013 rows outside the training split, so that their doubles are left out of training."""
    if dataset.fer2013_frame:
        for place in np.flatnonzero([split not in (None, "train") for split in dataset.splits]):
            yield content_hash(np.pad(dataset.load(int(place)), 8, mode="edge"))


def _keys(dataset: Dataset, canvases: Tensor) -> list[str | bytes]:
    groups = dataset.groups if dataset.groups is not None else [None] * len(dataset)
    return [
        str(group) if group is not None else content_hash(canvas)
        for group, canvas in zip(groups, canvases.numpy(), strict=True)
    ]


def _record(*parts: Mapping[str, tuple[Any, NDArray[np.bool_], list[str]]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for part in parts:
        for name, (samples, mask, keys) in part.items():
            rows = [int(keys[place].rpartition(":")[2]) for place in np.flatnonzero(mask)]
            record[name] = {"train": len(samples) - len(rows), "held_out_rows": rows}
    return record


def _network(config: TrainConfig, device: torch.device) -> SharedNetwork:
    torch.manual_seed(config.fit.seed)
    return SharedNetwork(config.model).to(device)


def _train_aligner(
    config: TrainConfig,
    keypoints: Mapping[str, tuple[KeypointSamples, NDArray[np.bool_], list[str]]],
    out: Path,
    device: torch.device,
    resume: bool,
) -> Iterator[EpochRecord]:
    if not keypoints:
        raise DatasetError("no dataset with keypoints among the data; stage 2's faces are aligned by them")
    model = replace(config.model, width=32, tasks=("keypoints",), norm_per_task=False)
    torch.manual_seed(config.aligner.seed)
    network = SharedNetwork(model).to(device)
    prepared = Prepared(dict(keypoints), {}, None, {}, [])
    every_step = replace(config, keypoints=replace(config.keypoints, every=1))
    objective = keypoint_objective(every_step, prepared, device)
    folder = out / "aligner"
    folder.mkdir(exist_ok=True)
    yield from fit(network, [objective], config.aligner, folder, resume=resume)
    return _stage1(network, device)  # type: ignore[return-value]


def _stage1(network: SharedNetwork, device: torch.device) -> TorchBackend:
    header = {"mean": MEAN, "std": STD, "sigma_factor": 1.0}
    return TorchBackend(Weights("stage-1", network, header, ""), str(device), "fp32")


class PictureAligner:
    """Finds the largest face of gray pictures and gives image_from_aligned, NaN where there is none.

    Stage 1 runs twice, the second time on the crop that its own points imply, as label boxes do in training.
    """

    def __init__(
        self, backend: TorchBackend, detector: Detector, frame: NDArray[np.float64], crop_factor: float
    ) -> None:
        self.backend, self.detector, self.frame, self.crop_factor = backend, detector, frame, crop_factor

    def __call__(self, grays: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Give (B, 2, 3) float64."""
        found = self.points(grays)
        present = np.isfinite(found).all((1, 2))
        matrices = np.full((len(grays), 2, 3), np.nan)
        if present.any():
            matrices[present] = align(found[present], self.frame)
        return matrices

    def points(self, grays: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Give the largest face's points (B, 15, 2), image pixels, NaN where there is none."""
        detections = self.detector([np.repeat(gray[:, :, None], 3, 2) for gray in grays])
        pictures = np.array([place for place, found in enumerate(detections) if len(found.boxes)], np.int64)
        points = np.full((len(grays), 15, 2), np.nan, np.float32)
        if len(pictures):
            first = np.stack([detections[place].boxes[0] for place in pictures])
            boxes = crop_boxes(first, self.detector.crop_from_box)
            seen, _ = find_keypoints(self.backend, grays, pictures, boxes)
            boxes = geometry.square(label_boxes(seen), self.crop_factor)
            points[pictures], _ = find_keypoints(self.backend, grays, pictures, boxes)
        return points


def measure_frame(
    backend: TorchBackend, labelled: Sequence[Dataset], crop_factor: float, count: int = 4000
) -> NDArray[np.float64]:
    """Measure where FER2013's faces stand: the median place of schema.ALIGNED_POINTS in its first pictures.

    Returns
    -------
    (5, 2) float64, pixels of 48x48
    """
    dataset = next((dataset for dataset in labelled if dataset.fer2013_frame), None)
    if dataset is None:
        raise DatasetError("no FER2013 among the data; stage 2's frame is measured on its pictures")
    grays = [dataset.load(place) for place in range(min(count, len(dataset)))]
    aligner = PictureAligner(backend, make_detector("none"), np.zeros((5, 2)), crop_factor)
    points = aligner.points(grays)[:, list(ALIGNED_POINTS)]
    return np.asarray(np.round(np.nanmedian(points, 0).astype(np.float64), 2))


def soft_targets(config: TrainConfig, out: Path, prepared: Prepared) -> dict[str, NDArray[np.float32]]:
    """Read the out-of-fold predictions of ``folds.npz`` beside or above `out`, by sample, if the configuration distils."""
    if not config.expression.distill or not prepared.expressions:
        return {}
    for place in (out / "folds.npz", out.parent / "folds" / "folds.npz"):
        if place.is_file():
            stored = np.load(place, allow_pickle=False)
            return dict(zip(stored["keys"].tolist(), stored["probabilities"], strict=True))
    raise ConfigError(
        f"{out}: distillation needs folds.npz here or in {out.parent / 'folds'}; train --folds first"
    )


def keypoint_objective(config: TrainConfig, prepared: Prepared, device: torch.device) -> KeypointObjective:
    """Join the keypoint samples of all sets; the figures are Helen's, or all held-out samples' without it."""
    train = join([take(samples, ~mask) for samples, mask, _ in prepared.keypoints.values()])
    parts = {
        name: take(samples, mask) for name, (samples, mask, _) in prepared.keypoints.items() if mask.any()
    }
    held = [part for name, part in parts.items() if "helen" in name] or list(parts.values())
    if not held:
        held = [train]
    part = config.keypoints
    return KeypointObjective(
        to_device(train, device),
        to_device(join(held), device),
        part.augment,
        MEAN,
        STD,
        part.batch_size,
        part.every,
        part.weight,
    )


def build_objectives(
    config: TrainConfig,
    prepared: Prepared,
    device: torch.device,
    soft: Mapping[str, NDArray[np.float32]],
    left_out: Mapping[str, NDArray[np.bool_]] | None = None,
) -> list[Objective]:
    """Build what a network is trained for, on the device.

    Parameters
    ----------
    soft : mapping of sample key to (7,) float32
        Teachers' probabilities, blended into the default head's targets.
    left_out : mapping of set to (N,) bool
        A fold's rows, which this network must not see.
    """
    objectives: list[Objective] = []
    part = config.expression
    if "expression" in config.model.tasks:
        trains, held = [], {}
        for name, (samples, mask, keys) in prepared.expressions.items():
            unseen = mask if left_out is None else mask | left_out[name]
            trains.append(_softened(take(samples, ~unseen), np.array(keys)[~unseen], soft, part.distill))
            if mask.any():
                held[name] = to_device(take(samples, mask), device)
        objectives.append(
            ExpressionObjective(
                to_device(join(trains), device),
                held,
                config.model.heads,
                part.augment,
                MEAN,
                STD,
                part.batch_size,
                part.smoothing,
                part.auxiliary,
                part.early_size,
                part.early_share,
            )
        )
    if "keypoints" in config.model.tasks:
        objectives.append(keypoint_objective(config, prepared, device))
    return objectives


def _softened(
    samples: ExpressionSamples, keys: NDArray[Any], soft: Mapping[str, NDArray[np.float32]], share: float
) -> ExpressionSamples:
    if not soft:
        return samples
    targets = samples.targets.clone()
    for place, key in enumerate(keys):
        if key in soft:
            targets[place, :7] = (1 - share) * targets[place, :7] + share * torch.from_numpy(soft[key])
    return replace(samples, targets=targets)


def _train_folds(
    config: TrainConfig, prepared: Prepared, out: Path, device: torch.device, resume: bool, folds: int
) -> Iterator[EpochRecord]:
    """Train a network for each fold without its rows; write everyone's out-of-fold predictions to folds.npz."""
    fold_of = {
        name: np.array([int.from_bytes(content_hash_of_key(key), "big") % folds for key in _fold_keys(entry)])
        for name, entry in prepared.expressions.items()
    }
    keys: list[str] = []
    probabilities: list[NDArray[np.float32]] = []
    for fold in range(folds):
        folder = out / f"fold-{fold}"
        folder.mkdir(exist_ok=True)
        network = _network(replace(config, fit=replace(config.fit, seed=config.fit.seed + fold)), device)
        left_out = {name: places == fold for name, places in fold_of.items()}
        objectives = build_objectives(config, prepared, device, {}, left_out)
        yield from fit(network, objectives, config.fit, folder, resume=resume)
        expression = objectives[0]
        assert isinstance(expression, ExpressionObjective)
        for name, (samples, mask, names) in prepared.expressions.items():
            rows = left_out[name] & ~mask
            keys += list(np.array(names)[rows])
            probabilities.append(predict(expression, network, to_device(take(samples, rows), device)))
    stored = {"keys": np.array(keys), "probabilities": np.concatenate(probabilities)}
    temporary = out / ".folds.npz"
    np.savez(temporary, allow_pickle=False, **stored)
    temporary.replace(out / "folds.npz")


def _fold_keys(entry: tuple[ExpressionSamples, NDArray[np.bool_], list[str]]) -> Iterator[bytes]:
    """Name samples by content, so that exact duplicates share a fold."""
    for canvas in entry[0].canvases.numpy():
        yield content_hash(canvas)


def content_hash_of_key(key: bytes) -> bytes:
    """Hash a key once more, so that folds are independent of the held-out choice, which orders by hash."""
    return content_hash(np.frombuffer(key, np.uint8))


def predict(
    objective: ExpressionObjective, network: SharedNetwork, samples: ExpressionSamples
) -> NDArray[np.float32]:
    """Give the default head's probabilities (N, 7)."""
    return objective.logits(network, samples).softmax(1).cpu().numpy()


def finish(
    config: TrainConfig, prepared: Prepared, network: SharedNetwork, objectives: Sequence[Objective]
) -> dict[str, Any]:
    """Calibrate on held-out samples and give the weights' header."""
    figures: dict[str, float] = {}
    temperature = dict.fromkeys(config.model.heads, 1.0)
    for objective in objectives:
        figures |= objective.validate(network)
        if isinstance(objective, ExpressionObjective) and objective.held_out:
            temperature = {head: fit_temperature(objective, network, head) for head in config.model.heads}
    settings = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in ("name", "model")}
    return {
        "name": config.name,
        "model": model_record(config.model),
        "mean": MEAN,
        "std": STD,
        "crop_factor": config.data.crop_factor,
        "frame": None if prepared.frame is None else prepared.frame.tolist(),
        "temperature": temperature,
        "sigma_factor": figures.pop("sigma_factor", 1.0),
        "held_out_figures": {name: round(figure, 5) for name, figure in figures.items()},
        "data": prepared.record,
        "training": {name: _plain(asdict(value)) for name, value in settings.items()},
        "commit": _commit(),
    }


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _plain(v) if isinstance(v, Mapping) else v for k, v in table.items()}


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        _log.info("not a git checkout; the weights' header names no commit")
        return None
    return done.stdout.strip()


def fit_temperature(objective: ExpressionObjective, network: SharedNetwork, head: str) -> float:
    """Fit the temperature that makes held-out samples of all sets likeliest, each set weighing alike [1]_.

    A head of one set's convention is fitted on that set; the FER+ head, whose held-out votes are soft, on FER2013.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    classes = list(objective.heads)
    place = classes.index(head)
    start = sum(len(objective.heads[name]) for name in classes[:place])
    logits, targets, weights = [], [], []
    for samples in objective.held_out.values():
        weight = samples.weights[:, place]
        logits.append(objective.logits(network, samples, head))
        targets.append(samples.targets[:, start : start + len(objective.heads[head])])
        weights.append(weight / weight.sum().clamp(min=1))
    z, y, w = torch.cat(logits), torch.cat(targets), torch.cat(weights)
    grid = torch.linspace(-1.2, 1.2, 241).exp()
    losses = [float(-(w * (y * (z / t).log_softmax(1)).sum(1)).sum()) for t in grid.tolist()]
    return round(float(grid[int(np.argmin(losses))]), 3)
