"""From labelled sets to resident samples: read, hold out, align what is not in FER2013's frame yet."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from facekit import geometry
from facekit.alignment import align
from facekit.backends.torch import TorchBackend
from facekit.configuration import TrainConfig
from facekit.data.balancing import balanced
from facekit.data.holdout import content_hash, held_out
from facekit.data.label_boxes import label_boxes
from facekit.data.resident import (
    ExpressionSamples,
    KeypointSamples,
    expression_canvases,
    expression_samples,
    join,
    keypoint_samples,
    read_pictures,
    reframed_canvases,
    take,
    to_device,
)
from facekit.data.samples import Dataset
from facekit.detection import Detector, crop_boxes, make_detector
from facekit.errors import DatasetError
from facekit.fitting import EpochRecord, fit
from facekit.keypoints import find_keypoints
from facekit.model import SharedNetwork
from facekit.objectives import KeypointObjective
from facekit.schema import ALIGNED_POINTS, PIXEL_MEAN, PIXEL_STD
from facekit.weights import Weights, read_weights, rows_held_out
from facekit.writing import write_atomically

S = TypeVar("S", KeypointSamples, ExpressionSamples)

FRAME_PICTURES = 1500
"""Of FER2013, on which its frame is measured."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part(Generic[S]):
    """One set's samples.

    Attributes
    ----------
    samples : KeypointSamples or ExpressionSamples
    held_out : (N,) bool
        What training must not see.
    keys : (N,) str
        Each sample as "set:row".
    returned : (N,) bool
        What training had held out before.
    copies : samples or None
        Mirrored and shifted copies that balance the expressions.
    copied : (M,) int64
        Which of the samples each copy is of.
    views : tuple of samples
        The same samples in other crops.
    """

    samples: S
    held_out: NDArray[np.bool_]
    keys: NDArray[np.str_]
    returned: NDArray[np.bool_]
    copies: S | None = None
    copied: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    views: tuple[S, ...] = ()

    def train(self, seen: NDArray[np.bool_]) -> list[S]:
        """Give the samples that a mask (N,) names, their views and their copies."""
        every = [take(self.samples, seen)]
        every += [take(view, seen) for view in self.views]
        if self.copies is not None:
            every.append(take(self.copies, seen[self.copied]))
        return every


@dataclass
class Prepared:
    """Samples by set, before they are joined and moved to the device.

    Attributes
    ----------
    keypoints, expressions : dict of set to Part
    frame : (5, 2) float or None, see alignment.align; None: nothing needed aligning
    record : dict
        What the weights' header says of the data.
    """

    keypoints: dict[str, Part[KeypointSamples]]
    expressions: dict[str, Part[ExpressionSamples]]
    frame: NDArray[np.float64] | None
    record: dict[str, Any]


def prepare(
    config: TrainConfig,
    datasets: Sequence[Dataset],
    out: Path,
    device: torch.device,
    resume: bool,
    aligned_by: Weights | None = None,
) -> Generator[EpochRecord, None, Prepared]:
    """Read all samples, train the aligner on the way, and return them as Prepared.

    Weights given as `aligned_by` do the aligner's work, into the frame of their header.
    """
    pointed = [_train_rows(dataset) for dataset in datasets if dataset.points is not None]
    labelled = [_train_rows(dataset) for dataset in datasets if dataset.labels is not None]
    others = {hash_ for dataset in datasets for hash_ in _other_split_hashes(dataset)}
    like = config.data.held_out_as
    known = read_weights(like).header["data"] if like else {}
    keypoints = {}
    for dataset in pointed:
        draw = config.data.draws.get(dataset.name, 1.0)
        samples, places = keypoint_samples(dataset, config.data.crop_factor, draw)
        keypoints[dataset.name] = _part(config, dataset.select(places), samples, known)
    backend, frame = None, None
    if aligned_by is not None:
        backend = TorchBackend(aligned_by, str(device), "fp32")
        frame = np.array(aligned_by.header["frame"])
    elif config.data.reframed or any(not dataset.fer2013_frame for dataset in labelled):
        backend = yield from _train_aligner(config, keypoints, out, device, resume)
        frame = measure_frame(backend, labelled)
    expressions = {}
    for dataset in labelled:
        aligner = None
        file = out / "aligner" / f"{dataset.name}.safetensors"
        if backend is not None and frame is not None:
            detector = make_detector(config.data.detector if dataset.whole_pictures else "none")
            aligner = PictureAligner(backend, detector, frame)
        if aligner is None or dataset.fer2013_frame:
            canvases, places = expression_canvases(dataset, None)
        else:
            canvases, places = _aligned_canvases(dataset, aligner, file, resume)
        hashes = [content_hash(canvas) for canvas in canvases]
        fresh = np.array([hash_ not in others for hash_ in hashes])
        canvases, shown = canvases[fresh], dataset.select(places[fresh])
        draw = config.data.draws.get(dataset.name, 1.0)
        weight = config.data.label_weight.get(dataset.name, 1.0)
        own = dataset.name if dataset.name in config.model.heads else None
        make = partial(
            expression_samples, heads=config.model.heads, own_head=own, default_weight=weight, draw=draw
        )
        part = _part(config, shown, make(canvases, shown), known)
        if config.data.reframed and aligner is not None and dataset.fer2013_frame:
            part = _reframed(part, aligner, config.data.reframed, file, resume)
        if config.data.balanced:
            part = _balanced(part, shown, aligner, make, config.fit.seed)
        expressions[dataset.name], faces = part, part.samples
        _log.info("%s: %d faces with expressions", dataset.name, len(faces))
    return Prepared(keypoints, expressions, frame, _record(keypoints, expressions))


def _aligned_canvases(
    dataset: Dataset, aligner: PictureAligner, file: Path, resume: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Cut stage 2's canvases, or read those that the run which is resumed has cut alike."""

    def cut() -> dict[str, NDArray[Any]]:
        canvases, places = expression_canvases(dataset, aligner)
        return {"canvases": canvases, "places": places}

    shown = [dataset.rows.tolist(), dataset.sources.tolist()]
    arrays = _kept(file, resume, [aligner.settings, shown], cut)
    return arrays["canvases"], arrays["places"]


def _reframed(
    part: Part[ExpressionSamples], aligner: PictureAligner, shares: Sequence[float], file: Path, resume: bool
) -> Part[ExpressionSamples]:
    """Let faces be drawn at shares of the way to the aligned ones too, in all as often as before."""
    canvases = part.samples.canvases[:, 0].numpy()

    def cut() -> dict[str, NDArray[Any]]:
        return {"canvases": reframed_canvases(canvases, aligner, shares)}

    arrays = _kept(file, resume, [aligner.settings, list(shares), part.keys.tolist()], cut)
    samples = replace(part.samples, draws=part.samples.draws / (1 + len(shares)))
    views = (replace(samples, canvases=torch.from_numpy(view)[:, None]) for view in arrays["canvases"])
    return replace(part, samples=samples, views=tuple(views))


def _kept(
    file: Path, resume: bool, cut_from: list[Any], cut: Callable[[], dict[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Cut canvases and keep them, or read those that the run which is resumed has cut from the same."""
    digest = sha256(json.dumps(cut_from).encode()).hexdigest()
    if resume and file.is_file():
        with safe_open(file, "np") as stored:
            if (stored.metadata() or {}).get("cut_by") == digest:
                return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (not a mapping)
    arrays = cut()
    write_atomically(file, save(arrays, {"cut_by": digest}))
    return arrays


def _train_rows(dataset: Dataset) -> Dataset:
    return dataset.select(np.array([split in (None, "train") for split in dataset.splits], np.bool_))


def _other_split_hashes(dataset: Dataset) -> Iterator[bytes]:
    """Hash FER2013 canvases of the other splits, so that their doubles are left out of training."""
    if dataset.fer2013_frame:
        other = np.array([split not in (None, "train") for split in dataset.splits], np.bool_)
        for _, gray in read_pictures(dataset.select(other)):
            yield content_hash(np.pad(gray, 8, mode="edge"))


def _part(config: TrainConfig, dataset: Dataset, samples: S, known: Mapping[str, Any]) -> Part[S]:
    """Hold out the known rows, else by person or photo where the dataset names them, else by content."""
    keys = np.array([f"{dataset.name}:{row}" for row in dataset.rows])
    if dataset.name in known:
        mask = np.isin(dataset.rows, rows_held_out(known[dataset.name]))
    else:
        groups = dataset.groups if dataset.groups is not None else [None] * len(dataset)
        owners = [
            str(group) if group is not None else content_hash(canvas)
            for group, canvas in zip(groups, samples.canvases.numpy(), strict=True)
        ]
        mask = held_out(owners, config.data.held_out.get(dataset.name, 0))
    none = np.zeros_like(mask)
    if dataset.name not in config.data.returned:
        return Part(samples, mask, keys, none)
    times = torch.where(torch.from_numpy(mask), config.data.returned[dataset.name], 1.0)
    return Part(replace(samples, draws=samples.draws * times), none, keys, mask)


def _balanced(
    part: Part[ExpressionSamples],
    shown: Dataset,
    aligner: PictureAligner | None,
    make: Callable[[NDArray[np.uint8], Dataset], ExpressionSamples],
    seed: int,
) -> Part[ExpressionSamples]:
    """Add copies of what is not held out, until all its expressions are equally frequent."""
    own = np.flatnonzero(~part.held_out)
    extended = balanced(shown.select(own), seed)
    copies = extended.select(np.arange(len(own), len(extended)))
    if not len(copies):
        return part
    canvases, places = expression_canvases(copies, aligner)
    copies = copies.select(places)
    place_of = {int(row): int(place) for row, place in zip(shown.rows[own], own, strict=True)}
    copied = np.array([place_of[int(row)] for row in copies.rows], np.int64)
    return replace(part, copies=make(canvases, copies), copied=copied)


def seen_contents(prepared: Prepared, datasets: Sequence[Dataset]) -> list[bytes]:
    """Give the content hashes of all pictures that training draws from, in ascending order."""
    drawn = (contents for _, contents in _contents(prepared, datasets, unseen=False))
    return sorted(set().union(*drawn))


def tell_of_known(prepared: Prepared, datasets: Sequence[Dataset], known: set[bytes]) -> None:
    """Log how many held-out pictures of each set are among those of which the content hashes are given."""
    for name, contents in _contents(prepared, datasets, unseen=True):
        if count := sum(each in known for each in contents):
            told = "%s: the weights to begin with know %d of the pictures held out; answers will be too sure"
            _log.warning(told, name, count)


def _contents(
    prepared: Prepared, datasets: Sequence[Dataset], *, unseen: bool
) -> Iterator[tuple[str, list[bytes]]]:
    """Hash the pictures of each set that are held out, or those that are not."""
    for kind in (prepared.keypoints, prepared.expressions):
        for dataset in datasets:
            if dataset.name in kind:
                part = kind[dataset.name]
                shown = dataset.select(np.isin(dataset.rows, _rows(part.keys[part.held_out == unseen])))
                yield dataset.name, [content_hash(gray) for _, gray in read_pictures(shown)]


def _record(*kinds: Mapping[str, Part[Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for kind in kinds:
        for name, part in kind.items():
            rows = _rows(part.keys[part.held_out])
            record[name] = {"train": len(part.keys) - len(rows), "held_out_rows": rows}
            if part.returned.any():
                record[name]["returned_rows"] = _rows(part.keys[part.returned])
            if part.copies is not None:
                record[name]["copies"] = len(part.copies)
    return record


def _rows(keys: NDArray[np.str_]) -> list[int]:
    return [int(key.rpartition(":")[2]) for key in keys]


def _train_aligner(
    config: TrainConfig,
    keypoints: Mapping[str, Part[KeypointSamples]],
    out: Path,
    device: torch.device,
    resume: bool,
) -> Generator[EpochRecord, None, TorchBackend]:
    if not keypoints:
        raise DatasetError("no dataset with keypoints among the data; stage 2's faces are aligned by them")
    model = replace(config.model, width=32, tasks=("keypoints",), norm_per_task=False)
    torch.manual_seed(config.aligner.seed)
    network = SharedNetwork(model).to(device)
    prepared = Prepared(dict(keypoints), {}, None, {})
    objective = keypoint_objective(replace(config, model=model), prepared, device)
    folder = out / "aligner"
    folder.mkdir(exist_ok=True)
    yield from fit(network, [objective], config.aligner, folder, resume=resume)
    return stage_1(network, device, config.data.crop_factor)


def stage_1(network: SharedNetwork, device: torch.device, crop_factor: float) -> TorchBackend:
    """Give a network's keypoint stage as a backend."""
    header = {"mean": PIXEL_MEAN, "std": PIXEL_STD, "crop_factor": crop_factor, "sigma_factor": 1.0}
    return TorchBackend(Weights("stage-1", network, header, ""), str(device), "fp32")


class PictureAligner:
    """Finds the largest face of gray pictures and gives image_from_aligned, NaN where there is none.

    Stage 1 runs twice, the second time on the crop that its own points imply, as label boxes do in training.
    """

    def __init__(self, backend: TorchBackend, detector: Detector, frame: NDArray[np.float64]) -> None:
        self.backend, self.detector, self.frame = backend, detector, frame

    @property
    def settings(self) -> list[Any]:
        """What decides how crops are cut, beside the weights."""
        return [self.detector.name, self.backend.header["crop_factor"], self.frame.tolist()]

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
            factor = self.backend.header["crop_factor"]
            boxes = crop_boxes(first, self.detector.face_from_box.crop(factor))
            seen, _ = find_keypoints(self.backend, grays, pictures, boxes)
            boxes = geometry.square(label_boxes(seen), factor)
            points[pictures], _ = find_keypoints(self.backend, grays, pictures, boxes)
        return points


def measure_frame(backend: TorchBackend, labelled: Sequence[Dataset]) -> NDArray[np.float64]:
    """Measure where FER2013's faces stand: the median place of schema.ALIGNED_POINTS in its first pictures.

    Returns
    -------
    (5, 2) float64, pixels of 48x48
    """
    dataset = next((dataset for dataset in labelled if dataset.fer2013_frame), None)
    if dataset is None:
        raise DatasetError("no FER2013 among the data; stage 2's frame is measured on its pictures")
    grays = [gray for _, gray in islice(read_pictures(dataset), FRAME_PICTURES)]
    aligner = PictureAligner(backend, make_detector("none"), np.zeros((5, 2)))
    points = aligner.points(grays)[:, list(ALIGNED_POINTS)]
    return np.asarray(np.round(np.nanmedian(points, 0).astype(np.float64), 2))


def keypoint_objective(config: TrainConfig, prepared: Prepared, device: torch.device) -> KeypointObjective:
    """Join the keypoint samples of all sets; the figures are Helen's, or all held-out samples' without it."""
    parts = prepared.keypoints
    train = join([take(part.samples, ~part.held_out) for part in parts.values()])
    unseen = {name: take(part.samples, part.held_out) for name, part in parts.items() if part.held_out.any()}
    held = [samples for name, samples in unseen.items() if "helen" in name] or list(unseen.values())
    if not held:
        held = [train]
    settings = config.keypoints
    watched = chosen(train, settings.watched)
    return KeypointObjective(
        to_device(train, device),
        to_device(join(held), device),
        settings.augment,
        PIXEL_MEAN,
        PIXEL_STD,
        settings.batch_size,
        settings.every if "expression" in config.model.tasks else 1,
        settings.weight,
        config.fit.early_share,
        settings.late_augment,
        watched if watched is None else to_device(watched, device),
    )


def chosen(samples: S, count: int) -> S | None:
    """Choose so many samples, all if there are fewer, always the same; None for a count of 0."""
    if not count:
        return None
    return take(samples, np.random.default_rng(0).permutation(len(samples))[:count])
