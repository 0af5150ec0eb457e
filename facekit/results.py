"""What an analysis gives back: faces with keypoints and expressions, as objects, JSON, table and picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from facekit import drawing, geometry
from facekit.errors import ImageError
from facekit.images import to_gray
from facekit.schema import ALIGNED_SIZE, EXPRESSIONS, KEYPOINTS

if TYPE_CHECKING:
    from pandas import DataFrame

Picture = NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]
"""A picture (H, W, 3) uint8 RGB, or a function that reads it again when it is asked for."""


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The 15 points of a face.

    Attributes
    ----------
    xy : (15, 2) float32
        Image pixels, centres at integers, in the order of schema.KEYPOINTS.
    sigma : (15,) float32
        Expected errors, image pixels.
    """

    xy: NDArray[np.float32]
    sigma: NDArray[np.float32]

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Give the point (2,) of that name, x and y in image pixels."""
        if name not in KEYPOINTS:
            raise KeyError(f"unknown keypoint {name!r}: expected one of {', '.join(KEYPOINTS)}")
        point: NDArray[np.float32] = self.xy[KEYPOINTS.index(name)]
        return point

    def __repr__(self) -> str:
        return f"Keypoints({len(self.xy)} points, nose_tip at {_rounded(self['nose_tip'], 1)})"


@dataclass(frozen=True)
class Expression:
    """The expression of a face.

    Attributes
    ----------
    label : str
        The most probable expression.
    confidence : float
        Its probability, calibrated.
    scores : dict of str to float
        The probability of every expression, in the order of schema.EXPRESSIONS; they sum to 1.
    """

    label: str
    confidence: float
    scores: Mapping[str, float]

    @classmethod
    def from_scores(cls, scores: NDArray[np.float32], labels: Sequence[str] = EXPRESSIONS) -> Expression:
        """Name the probabilities (C,) of the expressions `labels`."""
        named = dict(zip(labels, scores.tolist(), strict=True))
        label = labels[int(scores.argmax())]
        return cls(label, named[label], named)

    def __repr__(self) -> str:
        return f"Expression({self.label} {self.confidence:.0%})"


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a picture.

    Attributes
    ----------
    box : (4,) float32
        Image edges x0, y0, x1, y1.
    score : float
        Of the detection, 0..1.
    keypoints : Keypoints
    expression : Expression
    image : Picture
        The whole picture, shared with the other faces and not copied.
    image_from_aligned : (2, 3) float64
        Maps the 48x48 picture that stage 2 saw to the image.
    """

    box: NDArray[np.float32]
    score: float
    keypoints: Keypoints
    expression: Expression
    image: Picture
    image_from_aligned: NDArray[np.float64]

    @property
    def caption(self) -> str:
        """What is written beside the face when it is drawn, such as "happy 93%"."""
        return f"{self.expression.label} {self.expression.confidence:.0%}"

    def crop(self) -> NDArray[np.uint8]:
        """Give the part (h, w, 3) uint8 RGB of the picture that lies in the box."""
        image = _pixels(self.image)
        rows, columns = geometry.window(self.box, image.shape[1], image.shape[0])
        return image[rows, columns].copy()

    def aligned(self) -> NDArray[np.uint8]:
        """Give the gray picture (48, 48) of the face as stage 2 saw it."""
        return geometry.warp_picture(to_gray(_pixels(self.image)), self.image_from_aligned, ALIGNED_SIZE)

    def to_dict(self) -> dict[str, Any]:
        """Give the face as it stands in `facekit predict --json`."""
        label = self.expression.label
        scores = {name: round(value, 6) for name, value in self.expression.scores.items()}
        return {
            "box": _rounded(self.box, 2),
            "score": round(float(self.score), 4),
            "keypoints": dict(zip(KEYPOINTS, _rounded(self.keypoints.xy, 2), strict=True)),
            "sigma": dict(zip(KEYPOINTS, _rounded(self.keypoints.sigma, 3), strict=True)),
            "expression": {"label": label, "confidence": scores[label], "scores": scores},
        }

    def __repr__(self) -> str:
        return f"Face({self.caption}, box {_rounded(self.box, 1)})"


@dataclass(frozen=True, eq=False)
class Faces(Sequence[Face]):
    """The faces of one picture, largest first; empty where there is none or the picture could not be read.

    Attributes
    ----------
    faces : tuple of Face
    image : Picture or None
        The picture itself; None where it could not be read.
    weights : str
        Name of the weights.
    name : str or None
        The path or URL as given; None for a picture that came from memory.
    error : str or None
        Why the picture could not be read, one line.
    width, height : int or None
        Of the picture, pixels; None where it could not be read.
    """

    faces: tuple[Face, ...]
    image: Picture | None
    weights: str
    name: str | None = None
    error: str | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.image, np.ndarray):
            object.__setattr__(self, "width", self.image.shape[1])
            object.__setattr__(self, "height", self.image.shape[0])

    @classmethod
    def failed(cls, name: str | None, weights: str, error: str) -> Faces:
        """Give the empty result of a picture that could not be read."""
        return cls((), None, weights, name, " ".join(error.split()))

    def named(self, name: str | None) -> Faces:
        """Give the same result under the name of the picture's source."""
        return replace(self, name=name)

    def rereading(self, read: Callable[[], NDArray[np.uint8]]) -> Faces:
        """Give the same result without the pixels; `read` gets them when crop, aligned or draw need them."""
        faces = tuple(replace(face, image=read) for face in self)
        return replace(self, faces=faces, image=read)

    def __len__(self) -> int:
        return len(self.faces)

    def __iter__(self) -> Iterator[Face]:
        return iter(self.faces)

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> Faces: ...
    def __getitem__(self, index: int | slice) -> Face | Faces:
        """Give one face, or the Faces of a slice."""
        return replace(self, faces=self.faces[index]) if isinstance(index, slice) else self.faces[index]

    def to_dict(self) -> dict[str, Any]:
        """Give the picture's object of `facekit predict --json`."""
        return {
            "image": self.name,
            "width": self.width,
            "height": self.height,
            "weights": self.weights,
            "error": self.error,
            "faces": [face.to_dict() for face in self],
        }

    def to_json(self) -> str:
        """Give `to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_rows(self) -> list[list[Any]]:
        """Give one row a face under the names of COLUMNS."""
        return [self._row(place, face.to_dict()) for place, face in enumerate(self)]

    def to_empty_row(self) -> list[Any]:
        """Give the row of a picture without faces."""
        start = self._start()
        return [*start, *[None] * (len(self._columns()) - len(start))]

    def _columns(self) -> tuple[str, ...]:
        return COLUMNS

    def _start(self) -> list[Any]:
        """Give the cells that a picture's rows have in common."""
        return [self.name, self.width, self.height, self.weights, self.error]

    def _row(self, place: int, face: dict[str, Any]) -> list[Any]:
        expression, sigma = face["expression"], face["sigma"]
        points = [value for name, xy in face["keypoints"].items() for value in (*xy, sigma[name])]
        scores = [expression["scores"].get(label) for label in EXPRESSIONS]
        row = [*self._start(), place, *face["box"], face["score"]]
        return [*row, expression["label"], expression["confidence"], *scores, *points]

    def to_frame(self) -> DataFrame:
        """Give a table of one row a face."""
        from pandas import DataFrame

        return DataFrame(self.to_rows(), columns=list(self._columns()))

    def draw(self) -> NDArray[np.uint8]:
        """Draw the faces' boxes, points and expressions on a copy of the picture (H, W, 3) uint8 RGB.

        Raises
        ------
        ImageError
            The picture could not be read.
        """
        if self.image is None:
            raise ImageError(f"{self.name}: no picture to draw on: {self.error}")
        return drawing.draw(
            _pixels(self.image),
            np.array([face.box for face in self], np.float32).reshape(-1, 4),
            np.array([face.keypoints.xy for face in self], np.float32).reshape(-1, len(KEYPOINTS), 2),
            [face.caption for face in self],
        )

    def __repr__(self) -> str:
        state = f"error {self.error!r}" if self.error else repr(list(self.faces))
        return f"Faces({self.name}, {self.width}x{self.height}, {state})"


COLUMNS = (
    "image",
    "width",
    "height",
    "weights",
    "error",
    "face",
    "x0",
    "y0",
    "x1",
    "y1",
    "score",
    "expression",
    "confidence",
    *EXPRESSIONS,
    *(f"{name}_{part}" for name in KEYPOINTS for part in ("x", "y", "sigma")),
)
"""The columns of `Faces.to_rows`, `Faces.to_frame` and `facekit predict --csv`; ``face`` counts from 0."""


def _pixels(picture: Picture) -> NDArray[np.uint8]:
    return picture() if callable(picture) else picture


def _rounded(values: NDArray[np.float32], decimals: int) -> list[Any]:
    result: list[Any] = np.round(values.astype(np.float64), decimals).tolist()
    return result
