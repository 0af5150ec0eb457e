"""The shipped detector finds easy and hard faces, and nothing where there is none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from test_detection import ASTRONAUT_FACE, check_on_helen, helen_faces

from facekit import geometry
from facekit.data.catalog import load_dataset
from facekit.data.label_boxes import label_boxes
from facekit.detection import Detections, Detector, FacekitDetector, crop_boxes, make_detector
from facekit.mirror import mirror_boxes
from facekit.schema import BOX_FACTOR
from facekit.weights import load_detector


@pytest.fixture(scope="module")
def own() -> Detector:
    return make_detector("facekit", device="cpu")


def _best(found: Detections, truth: np.ndarray) -> float:
    return float(geometry.overlaps(truth, found.boxes).max(initial=0.0))


def test_the_astronaut_is_found_alone(own: Detector) -> None:
    (found,) = own([skimage.data.astronaut()])
    assert len(found) == 1
    assert _best(found, ASTRONAUT_FACE) > 0.6
    assert found.scores[0] > 0.9


@pytest.mark.parametrize("side", [320, 640, 1200])
def test_faces_that_fill_the_picture_are_found_alone(own: Detector, side: int) -> None:
    face = geometry.square(ASTRONAUT_FACE, 1.3)[0]
    close = geometry.warp_picture(
        skimage.data.astronaut().mean(2).astype(np.uint8), geometry.crop(face, side), side
    )
    (found,) = own([np.repeat(close[:, :, None], 3, 2)])
    assert len(found) == 1
    truth = geometry.apply_to_boxes(geometry.invert(geometry.crop(face, side)), ASTRONAUT_FACE)
    assert _best(found, truth) > 0.6


def test_a_mirrored_picture_gives_mirrored_faces(own: Detector) -> None:
    image = skimage.data.astronaut()
    plain, mirrored = own([image, np.ascontiguousarray(image[:, ::-1])])
    assert geometry.overlaps(mirror_boxes(plain.boxes, image.shape[1]), mirrored.boxes)[0, 0] > 0.85


@pytest.mark.data
def test_the_own_detector_on_helen(own: Detector, data_folder: Path) -> None:
    check_on_helen(own, helen_faces(data_folder, 40), recall=0.97)


def _astronaut_as(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Make a hard picture of the astronaut's face, with its box."""
    image, box = skimage.data.astronaut(), ASTRONAUT_FACE
    if kind == "small":
        scale = 36 / (box[0, 3] - box[0, 1])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        picture = np.full((240, 320, 3), 110, np.uint8)
        picture[80 : 80 + small.shape[0], 150 : 150 + small.shape[1]] = small
        return picture, box * scale + [150, 80, 150, 80]
    if kind in ("turned left", "turned right"):
        angle = 25 if kind == "turned left" else -25
        centre = (float(box[0, ::2].mean()), float(box[0, 1::2].mean()))
        return cv2.warpAffine(image, cv2.getRotationMatrix2D(centre, angle, 1), (512, 512)), box
    if kind == "dark":
        return (image * 0.12).astype(np.uint8), box
    if kind == "covered":
        covered = image.copy()
        covered[140:512, 150:300] = (40, 90, 60)
        return covered, box
    if kind == "cut by the border":
        return np.ascontiguousarray(image[:, 205:]), box - [205, 0, 205, 0]
    if kind == "fills the picture":
        return np.ascontiguousarray(image[60:195, 165:280]), box - [165, 60, 165, 60]
    return np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8), box


@pytest.mark.parametrize(
    "kind",
    [
        "small",
        "turned left",
        "turned right",
        "dark",
        "covered",
        "cut by the border",
        "fills the picture",
        "gray",
    ],
)
def test_hard_faces_are_found(own: Detector, kind: str) -> None:
    picture, truth = _astronaut_as(kind)
    assert _best(own([picture])[0], truth) > 0.45


@pytest.fixture(scope="module")
def unseen_faces(data_folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Helen's faces that the detector's training never saw, with stage 1's crops (1, 4)."""
    names = {name for name in load_detector()[1]["data"]["held_out"] if name.startswith("helen_train/")}
    dataset = load_dataset(data_folder / "landmarks68" / "helen_train")
    chosen = dataset.select(
        np.array([f"helen_train/{Path(source).stem}" in names for source in dataset.sources])
    )
    crops = geometry.square(label_boxes(chosen.points), BOX_FACTOR)
    return [(chosen.load(place), crops[place : place + 1]) for place in range(0, 72, 2)]


def _tiles(faces: list[tuple[np.ndarray, np.ndarray]], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Put faces side by side, six in a row, each in a tile 1.3 times its crop; with their crops (N, 4)."""
    tiles = []
    for image, crop in faces:
        around = geometry.square(crop, 1.3)[0]
        # A warp reads only the pixels next to each place, hence the blur.
        smooth = cv2.GaussianBlur(image, (0, 0), 0.4 * max(1.0, (around[2] - around[0]) / side))
        matrix = geometry.crop(around, side)
        tiles.append(
            cv2.warpAffine(smooth, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        )
    rows = [np.concatenate(tiles[start : start + 6], 1) for start in range(0, len(tiles), 6)]
    reach = side / 1.3 / 2
    middle = np.array([[place % 6 + 0.5, place // 6 + 0.5] for place in range(len(tiles))]) * side
    return np.concatenate(rows), np.concatenate([middle - reach, middle + reach], 1)


def _hard(kind: str, image: np.ndarray, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make a hard picture of a face, with its crop."""
    x0, y0, x1, y1 = crop[0]
    side, middle = x1 - x0, (float(x0 + x1) / 2, float(y0 + y1) / 2)
    if kind == "tiny":
        scale = 26 / side
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        picture = np.full((240, 320, 3), 110, np.uint8)
        picture[90 : 90 + small.shape[0], 140 : 140 + small.shape[1]] = small
        return picture, crop * scale + [140, 90, 140, 90]
    if kind.startswith("rotated"):
        matrix = cv2.getRotationMatrix2D(middle, 30 if kind.endswith("left") else -30, 1)
        return cv2.warpAffine(image, matrix, image.shape[1::-1]), crop
    if kind == "dark":
        return (image * 0.15).astype(np.uint8), crop
    if kind == "occluded":
        covered = image.copy()
        covered[round(middle[1] + 0.05 * side) :, round(x0) : round(x1)] = (60, 90, 140)
        return covered, crop
    cut = round(x0 + 0.3 * side)
    return np.ascontiguousarray(image[:, max(0, cut) :]), crop - [cut, 0, cut, 0]


@pytest.fixture(scope="module")
def eager() -> Detector:
    return make_detector("facekit", min_score=0.5, device="cpu")


@pytest.mark.data
@pytest.mark.parametrize(
    ("kind", "recall"),
    [
        ("tiny", 0.7),
        ("rotated left", 0.95),
        ("rotated right", 0.95),
        ("dark", 0.95),
        ("occluded", 0.85),
        ("cut by the border", 0.95),
    ],
)
def test_hard_unseen_faces_are_found(
    eager: Detector, unseen_faces: list[tuple[np.ndarray, np.ndarray]], kind: str, recall: float
) -> None:
    made = [_hard(kind, image, crop) for image, crop in unseen_faces]
    found = eager([picture for picture, _ in made])
    overlaps = [
        geometry.overlaps(truth, crop_boxes(one.boxes, eager.face_from_box.scaled(BOX_FACTOR))).max(
            initial=0.0
        )
        for one, (_, truth) in zip(found, made, strict=True)
    ]
    assert np.mean(np.array(overlaps) > 0.5) >= recall


@pytest.mark.data
@pytest.mark.parametrize("side", [64, 40])
def test_a_crowd_is_found(
    eager: Detector, unseen_faces: list[tuple[np.ndarray, np.ndarray]], side: int
) -> None:
    picture, truth = _tiles(unseen_faces, side)
    (found,) = eager([picture])
    best = geometry.overlaps(truth, crop_boxes(found.boxes, eager.face_from_box.scaled(BOX_FACTOR))).max(
        1, initial=0.0
    )
    assert np.mean(best > 0.5) > 0.85
    assert len(found) <= len(truth) + 2


def test_pictures_without_faces_give_nothing(own: Detector) -> None:
    pictures = [skimage.data.moon(), skimage.data.brick(), skimage.data.page(), skimage.data.rocket()]
    assert [len(found) for found in own(pictures)] == [0, 0, 0, 0]


def test_large_pictures_go_through_the_network_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = FacekitDetector(device="cpu", batch_size=6)
    large = cv2.resize(skimage.data.astronaut(), (1280, 1280))
    small = np.ascontiguousarray(large[:320, 480:800])
    run, areas = detector._run, []

    def watched(images: list[np.ndarray], min_logit: float) -> object:
        areas.append((len(images), images[0].shape[0] * images[0].shape[1]))
        return run(images, min_logit)

    monkeypatch.setattr(detector, "_run", watched)
    together = detector([large, *[small] * 7, large, large])
    assert max(count for count, _ in areas) == 6
    assert (2, 960 * 960) in areas
    assert all(count * area <= 6 * 640 * 480 for count, area in areas)
    for place, picture in ((0, large), (3, small), (9, large)):
        (alone,) = detector([picture])
        np.testing.assert_allclose(together[place].boxes, alone.boxes, atol=1e-2)
