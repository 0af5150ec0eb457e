"""Pictures in, faces out: detect, place keypoints, align, name the expression, gather."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from facekit.alignment import align, crops_of_framed
from facekit.backends import Backend, choose_backend, make_backend
from facekit.detection import BoxFraming, Detections, WholePicture, crop_boxes, make_detector
from facekit.errors import ConfigError, ImageError
from facekit.expression import find_expressions
from facekit.identity import model_files
from facekit.images import MAX_PIXELS, as_inputs, read_image, to_gray
from facekit.keypoints import find_keypoints
from facekit.mirror import mirror_boxes, mirror_image, mirror_per_point, mirror_points
from facekit.results import Expression, Face, Faces, Keypoints
from facekit.schema import ALIGNED_SIZE, DEFAULT_HEAD


@dataclass(frozen=True)
class FaceArrays:
    """What both stages say of N faces.

    Attributes
    ----------
    points_image : (N, 15, 2) float32, image pixels, centres at integers
    sigma : (N, 15) float32, expected errors, image pixels
    image_from_aligned : (N, 2, 3) float64
    scores : dict of head to (N, C) float32, calibrated probabilities
    """

    points_image: NDArray[np.float32]
    sigma: NDArray[np.float32]
    image_from_aligned: NDArray[np.float64]
    scores: dict[str, NDArray[np.float32]]


class FaceAnalyzer:
    """Finds faces, their keypoints and expressions; hold one for repeated use, from any number of threads.

    Parameters
    ----------
    device : str
        auto, cpu, cuda, cuda:N or mps.
    detector : str
        auto, or one of detection.DETECTORS.
    precision : str
        auto (by device and processor), fp32, bf16, fp16 or int8; see backends.choose_backend.
    weights : str or path
        A shipped name or a file.
    detector_model : path, optional
        The detector's own model file, where it needs one.
    min_score : float, optional
        Detections below it are dropped; None: the detector's own choice.
    min_face : float, optional
        Faces whose box is narrower or lower, pixels, are dropped.
    max_faces : int, optional
        Keep only the largest faces.
    max_pixels : int
        Larger pictures are refused.
    allow_private : bool
        Let URLs reach private, loopback and link-local addresses.
    batch_size : int
        Pictures of a list that go through the network together.
    backend : str
        auto, torch, or onnx: ONNX Runtime on the CPU; see backends.choose_backend.

    Raises
    ------
    WeightsError, DetectorError, ConfigError
    """

    def __init__(
        self,
        device: str = "auto",
        detector: str = "auto",
        precision: str = "auto",
        weights: str | os.PathLike[str] = "default",
        *,
        detector_model: str | os.PathLike[str] | None = None,
        min_score: float | None = None,
        min_face: float | None = None,
        max_faces: int | None = None,
        max_pixels: int = MAX_PIXELS,
        allow_private: bool = False,
        batch_size: int = 32,
        backend: str = "auto",
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_faces", max_faces)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: expected at least 1")
        backend, precision = choose_backend(backend, weights, device, precision)
        self.weights = weights
        self.backend: Backend = make_backend(backend, weights, device, precision)
        self.detector = make_detector(
            detector, detector_model, min_score=min_score, device=device, backend=backend
        )
        self._asked_detector, self._min_score = (detector, detector_model), min_score
        self.min_face, self.max_faces = min_face, max_faces
        self.max_pixels, self.allow_private, self.batch_size = max_pixels, allow_private, batch_size

    @property
    def crop_from_box(self) -> BoxFraming:
        """From the detector's boxes to stage 1's crops."""
        return self.detector.face_from_box.crop(self.backend.header["crop_factor"])

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers to a picture depend on, for JSON; another device or batch size is not among it."""
        return {
            "files": model_files(self.weights, *self._asked_detector),
            "arithmetic": self.backend.arithmetic,
            "detector": self.detector.name,
            "min_score": self._min_score,
            "min_face": self.min_face,
            "max_faces": self.max_faces,
        }

    @overload
    def __call__(
        self, x: list[Any] | tuple[Any, ...] | Iterator[Any], color: Literal["rgb", "bgr"] = "rgb"
    ) -> list[Faces]: ...
    @overload
    def __call__(self, x: Any, color: Literal["rgb", "bgr"] = "rgb") -> Any: ...
    def __call__(self, x: Any, color: Literal["rgb", "bgr"] = "rgb") -> Faces | list[Faces]:
        """Analyse one picture or many.

        Parameters
        ----------
        x : path, URL, bytes, PIL image, ndarray, tensor, or a list, tuple or generator of these
            An ndarray is (H, W), (H, W, 1|3|4) or a batch (B, H, W, 3), uint8 or float 0..1; a tensor is (3,
            H, W) or (B, 3, H, W).
        color : "rgb" or "bgr"
            Order of an ndarray's channels.

        Returns
        -------
        Faces
            Largest first. Many pictures give a list in the same order and length; one that cannot be read is
            an empty Faces there, with its ``error`` set.

        Raises
        ------
        ImageError
            A single picture cannot be read.
        """
        inputs, single = as_inputs(x)
        if single:
            return self._analyze([self._read(x, color)])[0].named(_name_of(x))
        return [self._without_pixels(faces, color) for faces in self.stream(inputs, color)]

    def stream(self, inputs: Iterable[Any], color: Literal["rgb", "bgr"] = "rgb") -> Iterator[Faces]:
        """Analyse pictures one after the other, `batch_size` at a time, holding no more of them than that."""
        waiting = iter(inputs)
        while batch := list(islice(waiting, self.batch_size)):
            pictures = [self._read_or_error(source, color) for source in batch]
            readable = [picture for picture in pictures if not isinstance(picture, ImageError)]
            analysed = iter(self._analyze(readable))
            for source, picture in zip(batch, pictures, strict=True):
                name = _name_of(source)
                if isinstance(picture, ImageError):
                    yield Faces.failed(name, self.backend.name, str(picture))
                else:
                    yield next(analysed).named(name)

    def _without_pixels(self, faces: Faces, color: Literal["rgb", "bgr"]) -> Faces:
        """Let a file's picture go, to be read again when it is drawn: a list may be of thousands."""
        if faces.name is None or faces.error is not None or not Path(faces.name).is_file():
            return faces
        return faces.rereading(partial(self._read, faces.name, color))

    def _read(self, source: Any, color: Literal["rgb", "bgr"]) -> NDArray[np.uint8]:
        return read_image(source, color=color, max_pixels=self.max_pixels, allow_private=self.allow_private)

    def _read_or_error(self, source: Any, color: Literal["rgb", "bgr"]) -> NDArray[np.uint8] | ImageError:
        try:
            return self._read(source, color)
        except ImageError as error:
            return error

    def _analyze(self, images: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        detections = [self._wanted(found) for found in self.detector(images)]
        picture_of_face = np.repeat(np.arange(len(images)), [len(found.boxes) for found in detections])
        boxes = np.concatenate([found.boxes for found in detections] or [np.empty((0, 4), np.float32)])
        crops = crop_boxes(boxes, self.crop_from_box)
        grays = [to_gray(image) for image in images]
        faces = self.describe(grays, picture_of_face, crops, framed=self._framed(boxes))
        return self._gather(images, detections, faces)

    def _framed(self, boxes: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Give the boxes of faces that are pictures of FER2013's size; NaN for others, None without any."""
        sizes = boxes[:, 2:] - boxes[:, :2]
        framed = (sizes == ALIGNED_SIZE).all(1) & isinstance(self.detector, WholePicture)
        return np.where(framed[:, None], boxes, np.float32(np.nan)) if framed.any() else None

    def describe(
        self,
        grays: Sequence[NDArray[np.uint8]],
        picture_of_face: NDArray[np.int64],
        crop_boxes: NDArray[np.float32],
        *,
        framed: NDArray[np.float32] | None = None,
        heads: Collection[str] = (DEFAULT_HEAD,),
        tta: bool = False,
    ) -> FaceArrays:
        """Run both stages on faces whose crops are known.

        Parameters
        ----------
        grays : sequence of (H, W) uint8
        picture_of_face : (N,) int, which picture each face is in
        crop_boxes : (N, 4) float32, square, image edges: stage 1's crops
        framed : (N, 4) float32, optional
            Squares, image edges, that frame faces as FER2013's pictures do; see alignment.crops_of_framed.
        heads : collection of str
            Expression heads.
        tta : bool
            Give the mean over the pictures and their mirrors.
        """
        points, sigma = find_keypoints(self.backend, grays, picture_of_face, crop_boxes)
        aligned = align(points, self.backend.header["frame"])
        crops = aligned[None] if framed is None else crops_of_framed(aligned, framed)
        come_framed = np.zeros(len(points), np.bool_) if framed is None else np.isfinite(framed[:, 0])
        scores = find_expressions(self.backend, grays, picture_of_face, crops, heads, come_framed)
        faces = FaceArrays(points, sigma, aligned, scores)
        if not tta:
            return faces
        return self._mean_with_mirror(faces, grays, picture_of_face, crop_boxes, framed)

    def _mean_with_mirror(
        self,
        faces: FaceArrays,
        grays: Sequence[NDArray[np.uint8]],
        picture_of_face: NDArray[np.int64],
        crop_boxes: NDArray[np.float32],
        framed: NDArray[np.float32] | None,
    ) -> FaceArrays:
        widths = np.array([grays[picture].shape[1] for picture in picture_of_face], np.float32)
        reflected = [np.ascontiguousarray(mirror_image(gray)) for gray in grays]
        boxes = mirror_boxes(crop_boxes, widths)
        framed_there = None if framed is None else mirror_boxes(framed, widths)
        other = self.describe(reflected, picture_of_face, boxes, framed=framed_there, heads=faces.scores)
        back = mirror_points(other.points_image, widths[:, None])
        points = np.asarray((faces.points_image + back) / 2, np.float32)
        return FaceArrays(
            points,
            (faces.sigma + mirror_per_point(other.sigma)) / 2,
            align(points, self.backend.header["frame"]),
            {
                head: np.asarray((scores + other.scores[head]) / 2, np.float32)
                for head, scores in faces.scores.items()
            },
        )

    def _wanted(self, found: Detections) -> Detections:
        """Drop faces that are too small and keep the `max_faces` largest."""
        boxes, scores = found.boxes, found.scores
        if self.min_face is not None:
            large = (boxes[:, 2:] - boxes[:, :2]).min(1) >= self.min_face
            boxes, scores = boxes[large], scores[large]
        return Detections(boxes[: self.max_faces], scores[: self.max_faces])

    def _gather(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Detections], arrays: FaceArrays
    ) -> list[Faces]:
        scores, classes = arrays.scores[DEFAULT_HEAD], self.backend.header["model"]["heads"][DEFAULT_HEAD]
        gathered, start = [], 0
        for image, found in zip(images, detections, strict=True):
            faces = tuple(
                Face(
                    box=found.boxes[k],
                    score=float(found.scores[k]),
                    keypoints=Keypoints(arrays.points_image[start + k], arrays.sigma[start + k]),
                    expression=Expression.from_scores(scores[start + k], classes),
                    image=image,
                    image_from_aligned=arrays.image_from_aligned[start + k],
                )
                for k in range(len(found.boxes))
            )
            gathered.append(Faces(faces, image=image, weights=self.backend.name))
            start += len(faces)
        return gathered


def analyze(x: Any, color: Literal["rgb", "bgr"] = "rgb") -> Any:
    """Find the faces in a picture or in many, with keypoints and expressions; see FaceAnalyzer.

    The analyzer is made at the first call and kept.
    """
    global _default
    if _default is None:
        _default = FaceAnalyzer()
    return _default(x, color)


_default: FaceAnalyzer | None = None


def _name_of(source: Any) -> str | None:
    return str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else None
