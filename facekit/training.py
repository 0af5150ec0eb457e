"""From labelled folders to weights: the recipe of the shared network, its folds and its calibration."""

from __future__ import annotations

import io
import logging
import math
import os
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from facekit.backends.torch import choose_device
from facekit.configuration import TrainConfig, names_run, read_config
from facekit.continuing import go_on_with, header_after, of_tasks, seen_before
from facekit.data.catalog import load_dataset
from facekit.data.holdout import content_hash
from facekit.data.resident import ExpressionSamples, join, take, to_device
from facekit.data.samples import Dataset
from facekit.distributed import Processes, join_processes
from facekit.errors import ConfigError, DatasetError
from facekit.fitting import EpochRecord, Mixed, fit
from facekit.model import TASKS, SharedNetwork, Task, multiplies_bfloat16
from facekit.objectives import ExpressionObjective, Objective
from facekit.preparation import (
    Prepared,
    chosen,
    keypoint_objective,
    measure_frame,
    prepare,
    seen_contents,
    stage_1,
    tell_of_known,
)
from facekit.schema import BOX_FACTOR, DEFAULT_HEAD, PIXEL_MEAN, PIXEL_STD
from facekit.weights import (
    Weights,
    load_stages,
    load_weights,
    model_record,
    of_its_task,
    read_weights,
    save_weights,
)
from facekit.writing import write_atomically

WIDEST = 1.2
"""Largest logarithm of a temperature that is fitted, either way."""

SPREAD = 0.025
"""Standard deviation of the normal prior of what `fit_scaling` adds to the identity."""

MANY = 3000
"""Faces that tell how frequent expressions are in photos."""

_log = logging.getLogger(__name__)


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

    A short keypoint training comes first; its network measures FER2013's frame and brings the other sets'
    faces to it. Weights to start with do so themselves, and for data without points, which train expressions
    alone, the shipped weights do; data without expressions train keypoints alone. With weights to start with
    the trunk then stays as it is, and with it what they do for the other task, unless the configuration's
    tasks leave that out. Weights that are named by a configuration are trained first, on the same data, in
    a folder of its name beside `out`, unless they lie there. With `folds`, a network is trained for each fold
    without its rows, and their predictions are written. Under torchrun the processes share the work; the
    first one prepares the data, writes and yields.

    Parameters
    ----------
    config : TrainConfig
    data : sequence of paths
        Datasets in any of the formats of data.catalog; points, expressions or both.
    out : path
        Folder for checkpoints and history.csv, and at the end weights.safetensors with weights.seen, the
        hashes of the pictures that training drew from (or folds.npz).
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
    DatasetError, ConfigError, ProcessError
    """
    folder, (processes, on) = Path(out), join_processes(choose_device(device))
    folder.mkdir(parents=True, exist_ok=True)
    datasets = [dataset for path in data if (dataset := load_dataset(path)).name not in config.data.leave_out]
    _with_own_names(datasets)
    wanted, config = config.model.tasks, _with_labels(config, datasets)
    datasets = [
        dataset for dataset in datasets if any(_teaches(dataset, task) for task in config.model.tasks)
    ]
    if folds == 1 or (folds and "expression" not in config.model.tasks):
        raise ConfigError(f"folds is {folds}: expected 0, or at least 2 to predict expressions by")
    if folds and config.start:
        raise ConfigError(f"start = {config.start!r}: these weights have seen the folds' rows")
    if config.averaged and not config.start:
        raise ConfigError("averaged: expected start, whose share is what others leave")
    if bool(config.data.returned) != bool(config.calibrated_by):
        raise ConfigError("returned and calibrated_by: expected both, for returned rows calibrate nothing")
    if config.joined and not config.start:
        raise ConfigError("joined: expected start, which the ensemble's first member begins with")
    ready = yield from _runs_before(config, data, folder, resume, device, processes)
    given = of_tasks(load_weights(ready.start), wanted) if ready.start else None
    calibration = _calibration_of(ready.calibrated_by, config) if ready.calibrated_by else {}
    config = _with_crop_factor(config, given)
    fresh = not ready.start and "keypoints" in config.model.tasks
    aligned_by = None if fresh else load_stages(ready.start or "default")
    prepared = yield from processes.led(prepare(config, datasets, folder, on, resume, aligned_by))
    if folds:
        yield from _train_folds(config, prepared, folder, on, resume, folds, processes)
        return
    before = {each for name in ready.weights for each in seen_before(name)}
    if processes.leads and before:
        tell_of_known(prepared, datasets, before)
    network = _network(config, on) if given is None else go_on_with(given, ready).to(on)
    soft = processes.from_leader(lambda: soft_targets(config, folder))
    teachers = [processes.shared(teacher) for teacher in _teachers(ready, on)]
    objectives = build_objectives(config, prepared, on, soft, teachers)
    yield from fit(network, objectives, config.fit, folder, resume=resume, processes=processes)
    if not processes.leads:
        return
    if prepared.frame is None and prepared.keypoints and prepared.expressions:
        labelled = [dataset for dataset in datasets if dataset.labels is not None]
        prepared.frame = measure_frame(stage_1(network, on, config.data.crop_factor), labelled)
    header = of_its_task(finish(config, prepared, network, objectives, calibration))
    if given is not None:
        header = header_after(header, given, network)
    seen = before | set(seen_contents(prepared, datasets))
    save_weights(folder / "weights.safetensors", network, "shared", header)
    write_atomically(folder / "weights.seen", b"".join(sorted(seen)))


def _runs_before(
    config: TrainConfig,
    data: Sequence[str | os.PathLike[str]],
    folder: Path,
    resume: bool,
    device: str,
    processes: Processes,
) -> Generator[EpochRecord, None, TrainConfig]:
    """Train the weights that configurations name, beside this run's folder, and name these folders instead.

    Raises
    ------
    ConfigError
        This run's folder is to be such a one.
    """
    trained = {name: folder.parent / Path(name).stem for name in config.weights if names_run(name)}
    for name, place in trained.items():
        if place == folder:
            raise ConfigError(f"{folder}: that is where {name} is trained; choose another --out")
        if processes.from_leader((place / "weights.safetensors").is_file):
            _log.info("%s: trained already, taken for %s", place, name)
            continue
        _log.info("%s: trained first, as %s says", place, name)
        yield from train(read_config(name), data, place, resume=resume, device=device)
        processes.from_leader(place.exists)  # the others wait here until the first one has written
    return config.with_weights(lambda name: str(trained.get(name, name)))


def _with_own_names(datasets: Sequence[Dataset]) -> None:
    """Refuse two datasets of one name, by which rows are held out and canvases kept."""
    paths: dict[str, Path] = {}
    for dataset in datasets:
        if (other := paths.setdefault(dataset.name, dataset.path)) is not dataset.path:
            raise DatasetError(f"{other} and {dataset.path} are both named {dataset.name!r}; rename a folder")


def _with_labels(config: TrainConfig, datasets: Sequence[Dataset]) -> TrainConfig:
    """Leave out the task that the data do not teach, or the run is not to; log what else they lack.

    Raises
    ------
    DatasetError
        They teach none of the configuration's.
    """
    wanted = tuple(task for task in config.model.tasks if task in (config.teach or TASKS))
    tasks = tuple(task for task in wanted if any(_teaches(dataset, task) for dataset in datasets))
    if not tasks:
        raise DatasetError(
            f"no labels for {' or '.join(wanted)} among the data; name a dataset that has some"
        )
    if tasks != wanted:
        rest = f"{config.start} does" if config.start else "in an analysis the shipped weights do"
        _log.warning("the data teach %s alone; %s the rest", *tasks, rest)
    photos = config.expression.photos if "expression" in tasks else ""
    if photos and photos not in {dataset.name for dataset in datasets if _teaches(dataset, "expression")}:
        _log.warning("photos = %r: no such labels among the data; photos get FER2013's frequencies", photos)
    return replace(config, model=replace(config.model, tasks=tasks))


def _teaches(dataset: Dataset, task: Task) -> bool:
    return (dataset.points if task == "keypoints" else dataset.labels) is not None


def _with_crop_factor(config: TrainConfig, given: Weights | None) -> TrainConfig:
    """Give stage 1's crops the size that the weights to begin with know, unless the configuration does."""
    known = BOX_FACTOR if given is None else given.header.get("crop_factor", BOX_FACTOR)
    return replace(config, data=replace(config.data, crop_factor=config.data.crop_factor or known))


def _network(config: TrainConfig, device: torch.device) -> SharedNetwork:
    torch.manual_seed(config.fit.seed)
    return SharedNetwork(config.model).to(device)


def _teachers(config: TrainConfig, device: torch.device) -> list[Mixed]:
    """Give the networks that teach the student.

    Raises
    ------
    ConfigError
        They would say nothing, or tell other classes apart.
    """
    part, classes = config.expression, config.model.heads.get(DEFAULT_HEAD)
    if part.teachers and not part.distill:
        raise ConfigError("[expression] names teachers, but distill, their share, is 0")
    networks = [load_weights(teacher).network for teacher in part.teachers]
    for name, network in zip(part.teachers, networks, strict=True):
        if "expression" not in network.config.tasks or network.config.heads.get(DEFAULT_HEAD) != classes:
            raise ConfigError(f"{name}: a teacher needs the head {DEFAULT_HEAD!r} with the student's classes")
    native = config.fit.precision == "auto" and multiplies_bfloat16(device)
    return [
        Mixed(network.to(device).to(memory_format=torch.channels_last), native).eval() for network in networks
    ]


def soft_targets(config: TrainConfig, out: Path) -> dict[str, NDArray[np.float32]]:
    """Give the out-of-fold answers (7,), by sample, if the configuration distils by them."""
    part = config.expression
    if not part.distill or part.teachers or "expression" not in config.model.tasks:
        return {}
    for place in (out / "folds.npz", out.parent / "folds" / "folds.npz"):
        if place.is_file():
            stored = np.load(place, allow_pickle=False)
            return dict(zip(stored["keys"].tolist(), stored["probabilities"], strict=True))
    raise ConfigError(
        f"{out}: distillation needs folds.npz here or in {out.parent / 'folds'}; train --folds first"
    )


def build_objectives(
    config: TrainConfig,
    prepared: Prepared,
    device: torch.device,
    soft: Mapping[str, NDArray[np.float32]],
    teachers: Sequence[nn.Module] = (),
    left_out: Mapping[str, NDArray[np.bool_]] | None = None,
) -> list[Objective]:
    """Build what a network is trained for, on the device.

    Parameters
    ----------
    soft : mapping of sample key to (7,) float32
        Out-of-fold probabilities, blended into the default head's targets.
    teachers : sequence of nn.Module
        See ExpressionObjective.
    left_out : mapping of set to (N,) bool
        A fold's rows, which this network must not see.
    """
    objectives: list[Objective] = []
    part = config.expression
    if "expression" in config.model.tasks:
        trains, plain, held = [], [], {}
        for name, faces in prepared.expressions.items():
            seen = ~faces.held_out if left_out is None else ~(faces.held_out | left_out[name])
            own, *copies = faces.train(seen)
            trains += [_softened(own, faces.keys[seen], soft, part.distill), *copies]
            plain.append(own)
            if faces.held_out.any():
                held[name] = to_device(take(faces.samples, faces.held_out), device)
        watched = chosen(join(plain), part.watched)
        objectives.append(
            ExpressionObjective(
                to_device(join(trains), device),
                held,
                config.model.heads,
                part.augment,
                PIXEL_MEAN,
                PIXEL_STD,
                part.batch_size,
                part.smoothing,
                part.auxiliary,
                config.fit.early_share,
                part.early_size,
                part.late_augment,
                watched if watched is None else to_device(watched, device),
                part.mixup,
                teachers,
                part.distill,
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
    config: TrainConfig,
    prepared: Prepared,
    out: Path,
    device: torch.device,
    resume: bool,
    folds: int,
    processes: Processes,
) -> Iterator[EpochRecord]:
    """Train a network for each fold without its rows; write all rows' out-of-fold predictions."""
    fold_of = {name: _folds_of(part.samples, folds) for name, part in prepared.expressions.items()}
    keys: list[str] = []
    probabilities: list[NDArray[np.float32]] = []
    if not resume and processes.leads:
        for earlier in out.glob("fold-*/checkpoint.safetensors"):
            earlier.unlink()
    for fold in range(folds):
        folder = out / f"fold-{fold}"
        folder.mkdir(exist_ok=True)
        network = _network(replace(config, fit=replace(config.fit, seed=config.fit.seed + fold)), device)
        left_out = {name: places == fold for name, places in fold_of.items()}
        objectives = build_objectives(config, prepared, device, {}, left_out=left_out)
        yield from fit(network, objectives, config.fit, folder, resume=resume, processes=processes)
        running = processes.shared(network)
        expression = objectives[0]
        assert isinstance(expression, ExpressionObjective)
        for name, part in prepared.expressions.items():
            rows = left_out[name] & ~part.held_out
            keys += part.keys[rows].tolist()
            probabilities.append(predict(expression, running, to_device(take(part.samples, rows), device)))
    if not processes.leads:
        return
    stored = {"keys": np.array(keys), "probabilities": np.concatenate(probabilities)}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **stored)
    write_atomically(out / "folds.npz", file.getvalue())


def _folds_of(samples: ExpressionSamples, folds: int) -> NDArray[np.int64]:
    """Put samples into folds by content, so that exact duplicates share one; not in `held_out`'s order."""
    digests = [content_hash(np.flip(canvas)) for canvas in samples.canvases.numpy()]
    return np.array([int.from_bytes(digest, "big") % folds for digest in digests])


def predict(
    objective: ExpressionObjective, network: nn.Module, samples: ExpressionSamples
) -> NDArray[np.float32]:
    """Give the default head's probabilities (N, C)."""
    return objective.logits(network, samples).softmax(1).cpu().numpy()


def finish(
    config: TrainConfig,
    prepared: Prepared,
    network: nn.Module,
    objectives: Sequence[Objective],
    calibrated: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Calibrate on held-out samples, or as `_calibration_of` other weights says, and give the header."""
    figures: dict[str, float] = {}
    calibration: dict[str, Any] = {"temperature": dict.fromkeys(config.model.heads, 1.0), "photo_bias": {}}
    for objective in objectives:
        figures |= objective.validate(network)
        if isinstance(objective, ExpressionObjective):
            if calibrated:
                _map_logits(network, calibrated["scaling"])
            elif objective.held_out:
                calibration = _calibrate(config, prepared, network, objective)
    calibration = {"sigma_factor": figures.pop("sigma_factor", 1.0)} | calibration | dict(calibrated)
    settings = {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if is_dataclass(getattr(config, f.name)) and f.name != "model"
    }
    return {
        "name": config.name,
        "model": model_record(config.model),
        "mean": PIXEL_MEAN,
        "std": PIXEL_STD,
        "crop_factor": config.data.crop_factor,
        "frame": None if prepared.frame is None else prepared.frame.tolist(),
        **calibration,
        "held_out_figures": calibrated.get("held_out_figures", {})
        | {name: round(figure, 5) if math.isfinite(figure) else None for name, figure in figures.items()},
        "data": prepared.record,
        "training": {
            "start": config.start,
            "averaged": dict(config.averaged),
            "joined": config.joined,
            "calibrated_by": config.calibrated_by,
        }
        | {name: asdict(value) for name, value in settings.items()},
        "commit": _commit(),
    }


def _calibrate(
    config: TrainConfig, prepared: Prepared, network: nn.Module, objective: ExpressionObjective
) -> dict[str, Any]:
    """Calibrate on held-out samples and give what the header says of it; `scaling` is in the network."""
    told: dict[str, Any] = {}
    if isinstance(network, SharedNetwork):  # a baseline has no head for it
        matrix, bias = fit_scaling(objective, network)
        told["scaling"] = {DEFAULT_HEAD: {"matrix": matrix.tolist(), "bias": bias.tolist()}}
        _map_logits(network, told["scaling"])
    told["temperature"] = {head: fit_temperature(objective, network, head) for head in config.model.heads}
    told["photo_bias"] = {}
    if photos := prepared.expressions.get(config.expression.photos):
        some = chosen(take(photos.samples, ~photos.held_out), MANY)
        assert some is not None
        answers = objective.answers(network, to_device(some, objective.train.draws.device))
        told["photo_bias"][DEFAULT_HEAD] = fit_photo_bias(*answers, told["temperature"][DEFAULT_HEAD])
    return told


def _map_logits(network: nn.Module, scaling: Mapping[str, Mapping[str, Any]]) -> None:
    assert isinstance(network, SharedNetwork)
    device = next(network.parameters()).device
    for head, parts in scaling.items():
        matrix, bias = (torch.tensor(parts[name], device=device) for name in ("matrix", "bias"))
        network.map_logits(head, matrix, bias)


def _calibration_of(weights: str, config: TrainConfig) -> dict[str, Any]:
    """Give what a header says of how its weights are calibrated, and what they know of held-out samples.

    Raises
    ------
    ConfigError
        Nothing, or of other heads.
    """
    header = read_weights(weights).header
    heads = {head: list(classes) for head, classes in config.model.heads.items()}
    if "scaling" not in header or header["model"]["heads"] != heads:
        raise ConfigError(f"calibrated_by: {weights}: the header tells of no calibration of [model]'s heads")
    parts = ("scaling", "temperature", "photo_bias", "sigma_factor", "held_out_figures")
    return {part: header[part] for part in parts if part in header}


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


def _speaking_for(objective: ExpressionObjective, head: str) -> list[ExpressionSamples]:
    """Give the held-out samples that a head is calibrated on: those of the set of its name, or all."""
    held_out = objective.held_out
    return [held_out[head]] if head in held_out else list(held_out.values())


def fit_scaling(objective: ExpressionObjective, network: nn.Module) -> tuple[Tensor, Tensor]:
    """Fit the matrix and bias that make held-out samples likeliest by the default head's logits [1]_.

    Training rows, which a network knows better than others, teach it too much of what tells one expression
    from another, and sets in which expressions are as frequent as someone made them frequencies that faces
    do not have. A temperature of `fit_temperature`'s range is fitted too; normal priors keep the matrix near
    the identity [2]_ and few samples from saying much.

    Returns
    -------
    matrix : (C, C)
    bias : (C,)

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (matrix scaling).
    .. [2] M. Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multi-class probabilities
       with Dirichlet calibration", NeurIPS 2019.
    """
    told = [objective.answers(network, samples) for samples in _speaking_for(objective, DEFAULT_HEAD)]
    logits, labels = (torch.cat(parts) for parts in zip(*told, strict=True))
    identity = torch.eye(logits.shape[1], device=logits.device)
    if not len(labels):
        return identity, identity.new_zeros(len(identity))
    free = identity.new_zeros(()).requires_grad_()
    matrix = torch.zeros_like(identity, requires_grad=True)
    bias = identity.new_zeros(len(identity)).requires_grad_()

    def temperature() -> Tensor:
        return (WIDEST * free.tanh()).exp()

    def loss() -> Tensor:
        told = logits @ (identity + matrix).T / temperature() + bias
        prior = ((matrix / SPREAD).square().sum() + bias.square().sum()) / 2
        return (F.cross_entropy(told, labels, reduction="sum") + prior) / len(labels)

    _minimise(loss, [free, matrix, bias])
    return (identity + matrix).detach(), (bias * temperature()).detach()


def fit_photo_bias(logits: Tensor, labels: Tensor, temperature: float) -> list[float]:
    """Fit the bias (C,) of scaled logits (N, C) that makes labels (N,) likeliest, with a normal prior.

    Of rows that the network was trained on, too: it knows these better, but is no surer than of others how
    frequent expressions are.
    """
    bias = torch.zeros(logits.shape[1], device=logits.device, requires_grad=True)

    def loss() -> Tensor:
        unlikely = F.cross_entropy(logits / temperature + bias, labels, reduction="sum")
        return (unlikely + bias.square().sum() / 2) / max(1, len(labels))

    _minimise(loss, [bias])
    return [round(float(each), 3) for each in bias.detach()]


def _minimise(loss: Callable[[], Tensor], unknowns: Sequence[Tensor]) -> None:
    """Change tensors in place until a smooth loss () of theirs is least."""
    optimizer = torch.optim.LBFGS(unknowns, max_iter=200, line_search_fn="strong_wolfe")

    def differentiated() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(differentiated)  # type: ignore[no-untyped-call]


def fit_temperature(objective: ExpressionObjective, network: nn.Module, head: str) -> float:
    """Fit the temperature that makes held-out samples likeliest [1]_.

    A head of one set's convention is fitted on that set, the FER+ head, whose held-out votes are soft, on
    FER2013. Without such a set all weigh alike. A head for which nothing is held out keeps 1.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    classes = list(objective.heads)
    place = classes.index(head)
    start = sum(len(objective.heads[name]) for name in classes[:place])
    logits, targets, weights = [], [], []
    for samples in _speaking_for(objective, head):
        weight = samples.weights[:, place]
        logits.append(objective.logits(network, samples, head))
        targets.append(samples.targets[:, start : start + len(objective.heads[head])])
        weights.append(weight / weight.sum().clamp(min=1))
    z, y, w = torch.cat(logits), torch.cat(targets), torch.cat(weights)
    if not w.any():
        return 1.0
    grid = torch.linspace(-WIDEST, WIDEST, 241).exp()
    losses = [float(-(w * (y * (z / t).log_softmax(1)).sum(1)).sum()) for t in grid.tolist()]
    return round(float(grid[int(np.argmin(losses))]), 3)
