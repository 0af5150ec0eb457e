"""Detectors: boxes and scores of the faces in a batch of pictures, and how boxes become stage 1's crops."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from facekit import geometry
from facekit.backends import check_backend
from facekit.data.cache import cache_folder
from facekit.detection_metrics import sigmoid
from facekit.errors import DetectorError
from facekit.images import to_gray
from facekit.mirror import mirror_boxes, mirror_image
from facekit.padding import padded_size
from facekit.schema import VOTING_OVERLAP

NMS_OVERLAP = 0.3
"""Boxes that overlap by more (intersection over union) are the same face."""

VISIBLE = 1 / 3
"""Least share of a face's box that lies in the picture: YuNet sees faces in the padding of narrow ones."""

LONGEST_SIDE = 960
"""Pixels; larger pictures are shrunk to it before a network sees them, unless told otherwise."""

HAAR_LONGEST_SIDE = 640
"""Pixels; Haar's cascades take half a second for this already."""

USUAL_PIXELS = 640 * 480
"""Of a picture; of larger ones fewer go through the network together."""

LARGEST_TRAINED_FACE = 350
"""Longest side, pixels of a view; eyes and mouths of larger faces look like faces."""

INSIDE = 0.75
"""Share of such a part's box that lies in the face's."""

LARGE_FACES = 512
"""Larger pictures, pixels, are also seen at half their size, and so on: training showed few larger faces, and
few that fill the picture."""

LAST_LOOK = 256
"""Where no face is sure, pictures above this, pixels, are seen at half their size too, and so on."""

SURE = 0.85
"""Default least score; a face of this score keeps a picture from being looked at again."""

LARGE_FACE = 48
"""Least side, pixels, of the boxes that count in such a view; the others are seen better in larger ones."""

YUNET_LEAST = 8
"""Pixels; in smaller pictures YuNet sees faces in its padding, and its answers differ from run to run."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Detections:
    """The faces of one picture, largest first; equal areas by y0, then x0.

    Attributes
    ----------
    boxes : (N, 4) float32, image edges x0, y0, x1, y1; they pass the picture's border where a face does
    scores : (N,) float32, 0..1
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        """Count the faces."""
        return len(self.boxes)


@dataclass(frozen=True)
class BoxFraming:
    """How a detector's box is brought to stage 1's crop, in units of the box's longer side.

    The box is made square about its centre, moved by `shift` (right and down), and scaled by `scale`.
    """

    shift: tuple[float, float]
    scale: float


class Detector(Protocol):
    """Finds the faces of pictures; threads may share it.

    Attributes
    ----------
    name : str
    crop_from_box : BoxFraming
        From this detector's boxes to stage 1's crops.
    """

    name: str
    crop_from_box: BoxFraming

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """Find the faces of each picture.

        Parameters
        ----------
        images : sequence of (H, W, 3) uint8, RGB, or (H, W), gray; of any sizes

        Returns
        -------
        list of Detections, one a picture, empty where there is no face
        """
        ...


def crop_boxes(boxes: NDArray[np.float32], framing: BoxFraming) -> NDArray[np.float32]:
    """Give stage 1's square crops (N, 4), image edges, of a detector's boxes (N, 4)."""
    return np.asarray(geometry.square(boxes, framing.scale, framing.shift), np.float32)


class FacekitDetector:
    """facekit's own network, in whole batches, on CPU or an accelerator.

    Pictures above LARGE_FACES are looked at again at half their size, and so on; smaller ones where no face
    in them is sure.

    Its boxes reach from forehead to chin and from ear to ear, as YuNet's do, which labelled its training
    pictures. Its scores are calibrated: of the detections with score p, a share p is right.

    Parameters
    ----------
    weights : str or path-like
        Of the detector: a shipped name or a file.
    min_score : float, optional
        Default 0.85: on held-out pictures more faces than Haar's cascades find, and no more false ones.
    longest_side : int
        Larger pictures are shrunk to it, pixels.
    least_side : int
        Pictures whose longest side is smaller are enlarged to it, for the small faces in them.
    device : str
        auto, cpu, cuda, cuda:N or mps.
    batch_size : int
        Pictures of up to 640x480 that go through the network together, where their sizes agree; of larger
        ones fewer, so that they need no more memory.
    backend : str
        torch or onnx.

    Raises
    ------
    WeightsError, ConfigError
    """

    name = "facekit"
    crop_from_box = BoxFraming((0.0, 0.053), 1.0)

    def __init__(
        self,
        weights: str | os.PathLike[str] = "detector",
        min_score: float | None = None,
        longest_side: int = LONGEST_SIDE,
        least_side: int = 320,
        device: str = "auto",
        batch_size: int = 32,
        backend: str = "torch",
    ) -> None:
        header, self._run = _detector_network(weights, device, backend)
        self.min_score = SURE if min_score is None else min_score
        self.longest_side, self.least_side, self.batch_size = longest_side, least_side, batch_size
        self._slope, self._offset = header["slope"], header["offset"]

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """See Detector."""
        views = [self._views(place, image) for place, image in enumerate(images)]
        found: list[list[Found]] = [[] for _ in images]
        self._look([view for own in views for view in own], found)
        sure = self._logit(SURE)
        unsure = [own[-1] for own, parts in zip(views, found, strict=True) if not _any_above(sure, parts)]
        self._look([half for view in unsure for half in _halves(view, LAST_LOOK)], found)
        return [
            self._joined(image, own[0], parts) for image, own, parts in zip(images, views, found, strict=True)
        ]

    def _views(self, place: int, image: Image) -> list[_View]:
        """Give a picture at its size for the network, and halved for large faces until it is small."""
        whole = _View(place, *_shrink(image, self.longest_side, self.least_side), 0)
        return [whole, *_halves(whole, LARGE_FACES)]

    def _logit(self, score: float) -> float:
        odds = math.log(max(score, 1e-6) / max(1 - score, 1e-6))
        return float((odds - self._offset) / self._slope)

    def _look(self, views: Sequence[_View], found: Sequence[list[Found]]) -> None:
        """Add what views show to what is found in each picture."""
        min_logit = self._logit(min(self.min_score, SURE))
        sizes: dict[tuple[int, int], list[_View]] = {}
        for view in views:
            sizes.setdefault(padded_size(*view.picture.shape[:2]), []).append(view)
        for (height, width), alike in sizes.items():
            together = max(1, min(self.batch_size, self.batch_size * USUAL_PIXELS // (height * width)))
            for start in range(0, len(alike), together):
                batch = alike[start : start + together]
                cells = self._run([view.picture for view in batch], min_logit)
                for view, (boxes, logits) in zip(batch, cells, strict=True):
                    large = (boxes[:, 2:] - boxes[:, :2]).min(1) >= view.least
                    found[view.place].append((boxes[large] * view.factors, logits[large]))

    def _joined(self, image: Image, whole: _View, found: Sequence[Found]) -> Detections:
        boxes, logits = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if len(found) > 1:
            kept = _best(boxes, logits)
            boxes, logits = boxes[kept], logits[kept]
        faces = ~_are_parts(boxes, logits, LARGEST_TRAINED_FACE * whole.factors.max())
        boxes, logits = boxes[faces], logits[faces]
        return _in_order(boxes, sigmoid(self._slope * logits + self._offset), self.min_score, image)


@dataclass(frozen=True)
class _View:
    """A picture as the network sees it.

    Attributes
    ----------
    place : int
        Of the picture in its batch.
    picture : (H, W, 3) uint8
    factors : (4,) float64
        What bring boxes back to the picture.
    least : float
        Least side of the boxes that count, pixels of the view.
    """

    place: int
    picture: Image
    factors: NDArray[np.float64]
    least: float


Found = tuple[NDArray[Any], NDArray[Any]]
"""Boxes (N, 4), pixels of the picture, and logits (N,)."""


def _halves(view: _View, until: int) -> Iterator[_View]:
    """Give a view at half its size, and so on, until its longest side is at most `until`."""
    while (longest := max(view.picture.shape[:2])) > until:
        half, further = _shrink(view.picture, longest // 2)
        view = _View(view.place, half, view.factors * further, LARGE_FACE)
        yield view


def _any_above(logit: float, found: Sequence[Found]) -> bool:
    return any((logits > logit).any() for _, logits in found)


BestCells = Callable[[Sequence[Image], float], list[tuple[NDArray[np.float32], NDArray[np.float32]]]]
"""Gives, of pictures of one padded size and a least logit, each picture's boxes (N, 4) and logits (N,)."""


def _detector_network(
    weights: str | os.PathLike[str], device: str, backend: str
) -> tuple[Mapping[str, Any], BestCells]:
    """Give the header of a detector's weights, and its network with non-maximum suppression."""
    check_backend(backend)
    if backend == "onnx":
        from facekit.backends.onnx import OnnxDetector

        cells = OnnxDetector(weights)

        def run_onnx(images: Sequence[Image], min_logit: float) -> list[tuple[Any, Any]]:
            return [_voted(*said, cells.header["overlap"]) for said in cells(images, min_logit)]

        return cells.header, run_onnx
    import torch

    from facekit.backends.torch import choose_device
    from facekit.detector_network import best_cells, for_inference, stack_padded
    from facekit.weights import load_detector

    network, header = load_detector(weights)
    chosen = choose_device(device)
    folded = for_inference(network).to(chosen).to(memory_format=torch.channels_last)

    def run_torch(images: Sequence[Image], min_logit: float) -> list[tuple[Any, Any]]:
        with torch.inference_mode():
            return best_cells(folded(stack_padded(images, chosen)), min_logit, header["overlap"])

    return header, run_torch


class HaarDetector:
    """OpenCV's cascades of Haar features: frontal faces, and profiles to both sides [1]_.

    Parameters
    ----------
    min_score : float, optional
        Default 0.5.

    Raises
    ------
    DetectorError
        This OpenCV has no cascades (5.0 dropped them).

    References
    ----------
    .. [1] P. Viola, M. Jones, "Rapid object detection using a boosted cascade of simple features", CVPR 2001.
    """

    name = "haar"
    # Medians over the 1,087 faces of the Helen training set and AFW that it finds: (0.002, 0.066), 1.078.
    crop_from_box = BoxFraming((0.0, 0.066), 1.08)

    def __init__(self, min_score: float | None = None) -> None:
        self.min_score = 0.5 if min_score is None else min_score
        self._cascades = _PerThread(_load_cascades)
        self._cascades.get()

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """See Detector."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Image) -> Detections:
        small, boxes_scale = _shrink(to_gray(image), HAAR_LONGEST_SIDE)
        boxes: list[NDArray[Any]] = [np.zeros((0, 4))]
        scores: list[NDArray[Any]] = [np.zeros(0)]
        frontal, profile = self._cascades.get()
        for cascade, step, slope, offset, shift, mirrored in (
            # Slope and offset: logistic fit of "overlaps a face that YuNet finds" to the last stage's sum.
            (frontal, 1.1, 0.741, -1.389, 0.0, False),
            # Profile boxes sit towards the back of the head, by 15% of their side.
            (profile, 1.2, 1.230, 0.871, -0.15, False),
            (profile, 1.2, 1.230, 0.871, -0.15, True),
        ):
            seen = np.ascontiguousarray(mirror_image(small)) if mirrored else small
            found, _, sums = cascade.detectMultiScale3(seen, step, 3, 0, (20, 20), outputRejectLevels=True)
            if not len(found):
                continue
            edges = np.asarray(found, np.float64)
            edges[:, 2:] += edges[:, :2]
            edges = geometry.square(edges, 1.0, (shift, 0.0))
            boxes.append(mirror_boxes(edges, small.shape[1]) if mirrored else edges)
            scores.append(sigmoid(slope * np.ravel(sums) + offset))
        faces, all_scores = np.concatenate(boxes), np.concatenate(scores)
        best = _best(faces, all_scores)
        return _in_order(faces[best] * boxes_scale, all_scores[best], self.min_score, image)


def _load_cascades() -> tuple[Any, Any]:
    import cv2
    import cv2.data

    folder = Path(cv2.data.haarcascades)
    paths = [folder / f"haarcascade_{kind}.xml" for kind in ("frontalface_default", "profileface")]
    # OpenCV 5 has neither, unless a package of contributed modules brings the class alone.
    if not hasattr(cv2, "CascadeClassifier") or not all(path.is_file() for path in paths):
        raise DetectorError(f"OpenCV {cv2.__version__} has no Haar cascades: install opencv-python below 5")
    cascades = [cv2.CascadeClassifier(str(path)) for path in paths]
    for path, cascade in zip(paths, cascades, strict=True):
        if cascade.empty():
            raise DetectorError(f"{path}: not a cascade; reinstall opencv-python")
    return cascades[0], cascades[1]


class YuNetDetector:
    """YuNet through OpenCV, from a model file that the user gives [1]_.

    Parameters
    ----------
    model_file : path-like
        ``face_detection_yunet_*.onnx`` of OpenCV's model zoo.
    min_score : float, optional
        Default 0.6.
    longest_side : int
        Larger pictures are shrunk to it, pixels.

    Raises
    ------
    DetectorError
        The file is missing or is no such model.

    References
    ----------
    .. [1] W. Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023.
    """

    name = "yunet"
    # Medians over the 1,207 faces of the Helen training set and AFW: (0.006, 0.053), 0.997.
    crop_from_box = BoxFraming((0.0, 0.053), 1.0)

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        min_score: float | None = None,
        longest_side: int = LONGEST_SIDE,
    ) -> None:
        self.min_score = 0.6 if min_score is None else min_score
        self.longest_side = longest_side
        self._network = _PerThread(lambda: _load_yunet(Path(model_file), self.min_score))
        self._network.get()

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """See Detector."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Image) -> Detections:
        import cv2

        small, boxes_scale = _shrink(image, self.longest_side)
        if min(small.shape[:2]) < YUNET_LEAST:
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        code = cv2.COLOR_GRAY2BGR if small.ndim == 2 else cv2.COLOR_RGB2BGR
        network = self._network.get()
        network.setInputSize((small.shape[1], small.shape[0]))
        _, found = network.detect(cv2.cvtColor(small, code))
        rows = np.zeros((0, 15)) if found is None else np.asarray(found, np.float64)
        rows = rows[np.isfinite(rows).all(1)]  # the padding of narrow pictures gives infinities too
        boxes = rows[:, :4]
        boxes[:, 2:] += boxes[:, :2]
        return _in_order(boxes * boxes_scale, rows[:, 14], self.min_score, image)


def _load_yunet(path: Path, min_score: float) -> Any:
    import cv2

    if not path.is_file():
        raise DetectorError(f"{path}: no such file; expected YuNet's ONNX model (detector_model)")
    try:
        return cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_score, NMS_OVERLAP, 5000)
    except cv2.error as error:
        raise DetectorError(f"{path}: OpenCV cannot read it as a YuNet model: {error}") from error


class WholePicture:
    """Takes each picture as one face, for face crops framed as FER2013's are."""

    name = "none"
    # The mean face of Helen, fitted to the mean eyes, nose and mouth corners of FER2013's 48x48 pictures.
    crop_from_box = BoxFraming((0.005, 0.063), 1.054)

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """See Detector."""
        wholes = [np.array([[0.0, 0.0, image.shape[1], image.shape[0]]], np.float32) for image in images]
        return [Detections(whole, np.ones(1, np.float32)) for whole in wholes]


class _PerThread:
    """Makes one object a thread, since OpenCV's detectors have state that a call changes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._local = make, threading.local()

    def get(self) -> Any:
        if not hasattr(self._local, "made"):
            self._local.made = self._make()
        return self._local.made


def _shrink(image: Image, longest_side: int, least: int = 0) -> tuple[Image, NDArray[np.float64]]:
    """Give the picture, no longer than `longest_side` pixels, and the factors (4,) that bring boxes back.

    A picture whose longest side is below `least` is enlarged to it.
    """
    import cv2

    height, width = image.shape[:2]
    longest = max(height, width)
    side = min(max(longest, least), longest_side)
    if side == longest:
        return np.ascontiguousarray(image), np.ones(4)
    size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
    way = cv2.INTER_AREA if side < longest else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
    return resized, np.tile([width / size[0], height / size[1]], 2)


def _best(boxes: NDArray[Any], scores: NDArray[Any], overlap: float = NMS_OVERLAP) -> NDArray[np.int64]:
    """Give the places of the best box of each face: non-maximum suppression."""
    rest, kept = np.argsort(-scores, kind="stable"), []
    while len(rest):
        kept.append(rest[0])
        best, rest = rest[:1], rest[1:]
        rest = rest[geometry.overlaps(boxes[best], boxes[rest])[0] <= overlap]
    return np.array(kept, np.int64)


def _voted(
    boxes: NDArray[np.float32], logits: NDArray[np.float32], overlap: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give faces as `detector_network.best_cells` does."""
    kept = _best(boxes, logits, overlap)
    agree = geometry.overlaps(boxes[kept], boxes) > VOTING_OVERLAP
    votes = agree * sigmoid(logits)
    return np.asarray(votes @ boxes / votes.sum(1, keepdims=True), np.float32), logits[kept]


def _are_parts(boxes: NDArray[Any], scores: NDArray[Any], largest: float) -> NDArray[np.bool_]:
    """Tell which boxes (N,) are parts of a face longer than `largest`: they lie in a surer box."""
    long = (boxes[:, 2:] - boxes[:, :2]).max(1) > largest
    inside = geometry.intersections(boxes[long], boxes) > INSIDE * geometry.areas(boxes)
    return np.asarray((inside & (scores[long, None] > scores)).any(0))


def _in_order(boxes: NDArray[Any], scores: NDArray[Any], min_score: float, image: Image) -> Detections:
    """Keep what is well in the picture and scores enough, in the stable order of Detections."""
    height, width = image.shape[:2]
    seen = geometry.areas(boxes.clip(0, [width, height, width, height]))
    possible = (scores >= min_score) & (seen >= VISIBLE * geometry.areas(boxes))
    boxes, scores = boxes[possible].astype(np.float32), scores[possible].astype(np.float32)
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -geometry.areas(boxes)))
    return Detections(boxes[order], scores[order])


def _find_yunet() -> Path:
    folder = cache_folder()
    found = sorted(folder.glob("face_detection_yunet*.onnx"))
    if not found:
        raise DetectorError(
            f"no YuNet model: give its file (--detector-model, detector_model=) or put "
            f"face_detection_yunet*.onnx, from OpenCV's model zoo, into {folder}"
        )
    return found[-1]


@dataclass(frozen=True)
class Setup:
    """What `make_detector` was asked for, beside the name; see there."""

    model: Any
    min_score: float | None
    device: str
    backend: str


class Kind(NamedTuple):
    """A detector that can be named.

    Attributes
    ----------
    make : callable
    usual_model : callable, optional
        Finds the weights or file that it runs unless others are asked for; None: it takes none.
    """

    make: Callable[[Setup], Detector]
    usual_model: Callable[[], str | os.PathLike[str]] | None = None


DETECTORS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "facekit": Kind(
            lambda setup: FacekitDetector(
                setup.model, setup.min_score, device=setup.device, backend=setup.backend
            ),
            lambda: "detector",
        ),
        "haar": Kind(lambda setup: HaarDetector(setup.min_score)),
        "yunet": Kind(lambda setup: YuNetDetector(setup.model, setup.min_score), _find_yunet),
        "none": Kind(lambda _: WholePicture()),
    }
)
"""Every detector by name; a new one is one line here."""

DEFAULT_DETECTOR: Final = "facekit"


def make_detector(
    name: str = "auto",
    model: str | os.PathLike[str] | None = None,
    *,
    min_score: float | None = None,
    device: str = "auto",
    backend: str = "torch",
) -> Detector:
    """Set up a detector by name.

    Parameters
    ----------
    name : str
        One of DETECTORS, or auto.
    model : path-like, optional
        The detector's model file, where it takes one.
    min_score : float, optional
        Faces with a lower score are left out; the detector's own limit if None.
    device : str
        auto, cpu, cuda, cuda:N or mps, where the detector can use it.
    backend : str
        torch or onnx: what runs facekit's own detector.

    Raises
    ------
    DetectorError
        Unknown, or cannot be set up.
    """
    kind = _kind(name)
    if min_score is not None and not 0 <= min_score <= 1:
        raise DetectorError(f"min_score is {min_score}: expected 0 to 1")
    return kind.make(Setup(model_of(name, model), min_score, device, backend))


def model_of(name: str, model: str | os.PathLike[str] | None = None) -> str | os.PathLike[str] | None:
    """Give the weights or file that a detector runs where `model` is asked for; None: it takes none.

    Raises
    ------
    DetectorError
        It is unknown, or needs a file, and there is none.
    """
    usual = _kind(name).usual_model
    return None if usual is None else model or usual()


def _kind(name: str) -> Kind:
    kind = DETECTORS.get(DEFAULT_DETECTOR if name == "auto" else name)
    if kind is None:
        raise DetectorError(f"unknown detector {name!r}: expected auto, {', '.join(DETECTORS)}")
    return kind
