"""A model run over a dataset's samples, batch by batch: its predictions as columns beside the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from facekit import geometry, metrics
from facekit.analyzer import FaceAnalyzer
from facekit.data.holdout import content_hash
from facekit.data.label_boxes import label_boxes
from facekit.data.reading import Read, read_ahead
from facekit.data.samples import Dataset
from facekit.detection import BoxFraming, WholePicture, crop_boxes
from facekit.errors import ConfigError, DatasetError, ImageError
from facekit.images import to_gray
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS, KEYPOINTS

Boxes = Literal["labels", "detector"]
Image = NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with the number of samples done and of all."""
Look = Callable[[int, Read], None]

BATCH = 64
BATCH_PIXELS = 16_000_000


@dataclass(frozen=True)
class Predictions:
    """What the model says of N samples, as columns; NaN where no face was found.

    Attributes
    ----------
    sizes : (N, 2) int32, width and height of the picture, pixels; 0 where it could not be read
    boxes : (N, 4) float32, the face's box in the detector's framing, image edges
    box_scores : (N,) float32, of the detection; 1 for boxes that come from labels
    points : (N, 15, 2) float32, image pixels, centres at integers
    sigma : (N, 15) float32, expected errors, image pixels
    scores : (N, 7) float32, calibrated probabilities of schema.EXPRESSIONS
    second : (N, 7) float32, the same by a second expression head; NaN without one
    hashes : (N,) uint64, of the gray picture's content
    errors : (N,) object of str or None, why the picture could not be read
    """

    sizes: NDArray[np.int32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    scores: NDArray[np.float32]
    second: NDArray[np.float32]
    hashes: NDArray[np.uint64]
    errors: NDArray[Any]

    def __len__(self) -> int:
        """Give the number N of samples."""
        return len(self.sizes)

    @classmethod
    def empty(cls, count: int) -> Predictions:
        """Give the predictions of samples in which nothing was found yet."""

        def missing(*shape: int) -> NDArray[np.float32]:
            return np.full((count, *shape), np.nan, np.float32)

        return cls(
            sizes=np.zeros((count, 2), np.int32),
            boxes=missing(4),
            box_scores=missing(),
            points=missing(len(KEYPOINTS), 2),
            sigma=missing(len(KEYPOINTS)),
            scores=missing(len(EXPRESSIONS)),
            second=missing(len(EXPRESSIONS)),
            hashes=np.zeros(count, np.uint64),
            errors=np.full(count, None, object),
        )

    def put(self, places: NDArray[np.int64], part: Predictions) -> None:
        """Write the predictions of some samples into their places."""
        for column in fields(self):
            getattr(self, column.name)[places] = getattr(part, column.name)

    def select(self, which: NDArray[Any]) -> Predictions:
        """Give the predictions of the samples that a mask or an array of places names."""
        return Predictions(**{column.name: getattr(self, column.name)[which] for column in fields(self)})


@dataclass(frozen=True)
class Predictor:
    """How samples of a dataset are predicted.

    Attributes
    ----------
    analyzer : FaceAnalyzer
    boxes : "labels" or "detector"
        Where the face's box comes from; "labels" means the labelled box, or the labelled points, or else the
        whole picture.
    head : str
        Expression head; ConfigError if the weights have none of that name.
    tta : bool
        Mean over the picture and its mirror.
    second : str or None
        Another expression head to ask.
    """

    analyzer: FaceAnalyzer
    boxes: Boxes
    head: str = DEFAULT_HEAD
    tta: bool = False
    second: str | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError if the weights have no such head, or boxes are to come from elsewhere."""
        if self.boxes not in get_args(Boxes):
            raise ConfigError(f"boxes is {self.boxes!r}: expected {' or '.join(get_args(Boxes))}")
        name, heads = self.analyzer.backend.name, self._heads
        if self.head not in heads:
            raise ConfigError(f"weights {name}: no head {self.head!r}; it has {', '.join(heads)}")

    @property
    def tasks(self) -> frozenset[str]:
        """What the weights were trained for; the other task of a baseline is done by the default weights."""
        return frozenset(self.analyzer.backend.header["model"]["tasks"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions, of schema.EXPRESSIONS, that the head can name."""
        known = self._heads[self.head]
        return tuple(label for label in EXPRESSIONS if label in known)

    @property
    def _heads(self) -> Mapping[str, Sequence[str]]:
        heads: Mapping[str, Sequence[str]] = self.analyzer.backend.header["model"]["heads"]
        return heads

    def fill(
        self,
        predictions: Predictions,
        dataset: Dataset,
        wanted: NDArray[np.bool_] | None = None,
        *,
        strict: bool = False,
        progress: Progress | None = None,
        keep: Callable[[NDArray[np.int64], Predictions], None] | None = None,
        look: Look | None = None,
    ) -> None:
        """Predict the samples of a dataset, or the wanted ones (N,), into their places.

        Parameters
        ----------
        strict : bool
            Raise DatasetError at the first picture that cannot be read.
        keep : callable, optional
            Called with the places and predictions of each batch.
        look : callable, optional
            Called with the place of each sample and its picture, or why it could not be read.
        """
        places = np.arange(len(dataset)) if wanted is None else np.flatnonzero(wanted)
        done = len(dataset) - len(places)
        for batch, part in self.stream(dataset, places, look):
            unread = np.flatnonzero([error is not None for error in part.errors])
            if strict and len(unread):
                place = batch[unread[0]]
                where = f"{dataset.path}: row {dataset.rows[place]} ({dataset.sources[place]})"
                raise DatasetError(f"{where}: {part.errors[unread[0]]}; mend it, or run without --strict")
            predictions.put(batch, part)
            if keep:
                keep(batch, part)
            done += len(batch)
            if progress:
                progress(done, len(dataset))

    def stream(
        self, dataset: Dataset, places: NDArray[np.int64], look: Look | None = None
    ) -> Iterator[tuple[NDArray[np.int64], Predictions]]:
        """Predict samples batch by batch, reading pictures ahead; memory does not grow with the dataset.

        Parameters
        ----------
        dataset : Dataset
        places : (N,) int
            Which samples.
        look : callable, optional
            See `fill`.

        Yields
        ------
        places : (B,) int
        Predictions of them
        """
        for batch in _batches(read_ahead(dataset, places)):
            if look:
                for place, picture in batch:
                    look(place, picture)
            read = [(place, picture) for place, picture in batch if not isinstance(picture, ImageError)]
            part = Predictions.empty(len(batch))
            for row, (_, picture) in enumerate(batch):
                if isinstance(picture, ImageError):
                    part.errors[row] = str(picture)
            if read:
                rows = np.flatnonzero([error is None for error in part.errors])
                part.put(rows, self._predict(dataset, np.array([p for p, _ in read]), [i for _, i in read]))
            yield np.array([place for place, _ in batch]), part

    def _predict(self, dataset: Dataset, places: NDArray[np.int64], images: Sequence[Image]) -> Predictions:
        found = Predictions.empty(len(images))
        grays = [image if image.ndim == 2 else to_gray(image) for image in images]
        found.sizes[:] = [(gray.shape[1], gray.shape[0]) for gray in grays]
        found.hashes[:] = [int.from_bytes(content_hash(gray), "big") for gray in grays]
        found.boxes[:], found.box_scores[:], crops = self._faces(dataset, places, images)
        faces = np.flatnonzero(metrics.detected(crops))
        if not len(faces):
            return found
        framed = _wholes(grays)[faces] if dataset.fer2013_frame and self.boxes == "labels" else None
        heads = [self.head, self.second] if self.second else [self.head]
        arrays = self.analyzer.describe(grays, faces, crops[faces], framed=framed, heads=heads, tta=self.tta)
        found.points[faces], found.sigma[faces] = arrays.points_image, arrays.sigma
        found.scores[faces] = self._named(arrays.scores, self.head)
        if self.second:
            found.second[faces] = self._named(arrays.scores, self.second)
        return found

    def _faces(
        self, dataset: Dataset, places: NDArray[np.int64], images: Sequence[Image]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Give boxes (B, 4), their scores (B,) and stage 1's crops (B, 4); NaN where no face was found."""
        framing = self.analyzer.crop_from_box
        labelled = self._labelled_crops(dataset, places)
        marked = metrics.detected(labelled)
        if self.boxes == "labels":
            factor = self.analyzer.backend.header["crop_factor"]
            unmarked = crop_boxes(_wholes(images), WholePicture.face_from_box.crop(factor))
            crops = np.where(marked[:, None], labelled, unmarked)
            # As the detector would draw them, so that they lead to the same crops when they are read back.
            return crop_boxes(crops, _inverse(framing)), np.ones(len(images), np.float32), crops
        found = Predictions.empty(len(images))
        boxes, scores, crops = found.boxes, found.box_scores, np.full_like(found.boxes, np.nan)
        for row, detections in enumerate(self.analyzer.detector(images)):
            candidates = crop_boxes(detections.boxes, framing)
            best = _best_face(candidates, labelled[row])
            if best is not None:
                boxes[row], scores[row] = detections.boxes[best], detections.scores[best]
                crops[row] = candidates[best]
        return boxes, scores, crops

    def _labelled_crops(self, dataset: Dataset, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Give stage 1's crops (B, 4) that labelled boxes, or else points, imply; NaN without these."""
        crops = np.full((len(places), 4), np.nan, np.float32)
        if dataset.points is not None:
            crops = self.label_crops(dataset.points[places])
        if dataset.boxes is not None:
            of_boxes = crop_boxes(dataset.boxes[places], self.analyzer.crop_from_box)
            crops = np.where(np.isnan(of_boxes), crops, of_boxes)
        return crops

    def label_crops(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give stage 1's crops (N, 4) around labelled points (N, 15, 2); NaN where these are too few."""
        crops = geometry.square(label_boxes(points), self.analyzer.backend.header["crop_factor"])
        crops[~(crops[:, 2] - crops[:, 0] >= 2)] = np.nan
        return np.asarray(crops, np.float32)

    def _named(self, scores: Mapping[str, NDArray[np.float32]], head: str) -> NDArray[np.float32]:
        """Give the probabilities (N, 7) of schema.EXPRESSIONS among those (N, C) of a head's classes."""
        named = np.zeros((len(scores[head]), len(EXPRESSIONS)), np.float32)
        classes = list(self._heads[head])
        for c, label in enumerate(EXPRESSIONS):
            if label in classes:
                named[:, c] = scores[head][:, classes.index(label)]
        return np.asarray(named / named.sum(1, keepdims=True))


def _wholes(images: Sequence[Image]) -> NDArray[np.float32]:
    return np.array([(0, 0, image.shape[1], image.shape[0]) for image in images], np.float32)


def _inverse(framing: BoxFraming) -> BoxFraming:
    x, y = framing.shift
    return BoxFraming((-x / framing.scale, -y / framing.scale), 1 / framing.scale)


def _best_face(crops: NDArray[np.float32], target: NDArray[Any]) -> int | None:
    """Choose of crops (N, 4), largest first, the one that overlaps the target (4,) most; NaN: the largest."""
    if not len(crops):
        return None
    if np.isnan(target).any():
        return 0
    overlap = geometry.overlaps(crops, target[None].astype(np.float32))[:, 0]
    return int(overlap.argmax()) if overlap.max() > 0 else None


def _batches(pictures: Iterator[tuple[int, Read]]) -> Iterator[list[tuple[int, Read]]]:
    """Gather pictures until they are many or large."""
    batch: list[tuple[int, Read]] = []
    pixels = 0
    for place, picture in pictures:
        batch.append((place, picture))
        pixels += 0 if isinstance(picture, ImageError) else picture.size
        if len(batch) == BATCH or pixels >= BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
