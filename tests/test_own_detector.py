"""The shipped detector finds easy and hard faces, and nothing where there is none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from test_detection import ASTRONAUT_FACE, check_on_helen, helen_faces

from facekit import geometry
from facekit.detection import Detections, Detector, crop_boxes, make_detector
from facekit.mirror import mirror_boxes


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


@pytest.mark.data
def test_a_crowd_is_found(data_folder: Path) -> None:
    own = make_detector("facekit", min_score=0.5, device="cpu")
    faces = helen_faces(data_folder, 36)
    tiles, truth = [], []
    for image, crop in faces:
        x0, y0, x1, y1 = geometry.square(crop, 1.3)[0]
        matrix = geometry.crop(np.array([x0, y0, x1, y1]), 64)
        tiles.append(cv2.warpAffine(image, matrix, (64, 64), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP))
    rows = [np.concatenate(tiles[start : start + 6], 1) for start in range(0, 36, 6)]
    (found,) = own([np.concatenate(rows)])
    for place in range(36):
        corner = np.array([place % 6, place // 6]) * 64.0
        middle, reach = corner + 32, 64 / 1.3 / 2
        truth.append([*(middle - reach), *(middle + reach)])
    crops = crop_boxes(found.boxes, own.crop_from_box)
    best = geometry.overlaps(np.array(truth), crops).max(1, initial=0.0)
    assert np.mean(best > 0.5) > 0.9


def test_pictures_without_faces_give_nothing(own: Detector) -> None:
    pictures = [skimage.data.moon(), skimage.data.brick(), skimage.data.page(), skimage.data.rocket()]
    assert [len(found) for found in own(pictures)] == [0, 0, 0, 0]
