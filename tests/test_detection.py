"""Detectors find the faces of real pictures, and their boxes become stage 1's crops."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from facekit import geometry
from facekit.detection import DETECTORS, Detections, Detector, WholePicture, crop_boxes, make_detector
from facekit.errors import DetectorError
from facekit.mirror import mirror_boxes
from facekit.schema import KEYPOINTS_FROM_IBUG68

ASTRONAUT_FACE = np.array([[170.0, 60.0, 275.0, 190.0]])
"""Hairline to chin, ear to ear, by eye."""
CROP_FACTOR = 1.6


def _yunet(data_folder: Path) -> Detector:
    return make_detector("yunet", data_folder / "detection" / "yunet_n_640_640.onnx")


def _helen(data_folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give pictures with the square around their 15 points times the crop factor."""
    from PIL import Image

    faces = []
    for path in sorted((data_folder / "landmarks68" / "helen_train").glob("*.pts"))[:: 870 // count]:
        numbers = path.read_text().partition("{")[2].partition("}")[0].split()
        points = np.array(numbers, np.float32).reshape(68, 2) - 1
        points = np.stack([points[list(group)].mean(0) for group in KEYPOINTS_FROM_IBUG68])
        image = np.asarray(Image.open(path.with_suffix(".jpg")).convert("RGB"))
        faces.append((image, geometry.square(geometry.box_around(points[None]), CROP_FACTOR)))
    return faces


def _check_on_helen(detector: Detector, faces: list[tuple[np.ndarray, np.ndarray]], recall: float) -> None:
    found = detector([image for image, _ in faces])
    best = [
        geometry.overlaps(crop_boxes(one.boxes, detector.crop_from_box), label).max(initial=0.0)
        for one, (_, label) in zip(found, faces, strict=True)
    ]
    assert np.mean(np.array(best) > 0.5) >= recall
    # The framing's constants bring the detector's boxes to the labels' crops.
    assert np.median(best) > 0.8


def test_haar_finds_the_astronaut() -> None:
    (found,) = make_detector("haar")([skimage.data.astronaut()])
    assert geometry.overlaps(found.boxes, ASTRONAUT_FACE)[0, 0] > 0.5
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert np.all((found.scores >= 0.5) & (found.scores <= 1))


def test_haar_sees_profiles_to_both_sides_alike() -> None:
    image = skimage.data.astronaut()
    reflected = np.ascontiguousarray(image[:, ::-1])
    plain, mirrored = make_detector("haar", min_score=0.1)([image, reflected])
    expected = mirror_boxes(plain.boxes[:1], image.shape[1])
    assert geometry.overlaps(expected, mirrored.boxes[:1])[0, 0] > 0.7


@pytest.mark.data
def test_haar_on_helen(data_folder: Path) -> None:
    _check_on_helen(make_detector("haar"), _helen(data_folder, 16), recall=0.75)


@pytest.mark.data
def test_yunet_on_helen(data_folder: Path) -> None:
    _check_on_helen(_yunet(data_folder), _helen(data_folder, 40), recall=0.97)


@pytest.mark.data
def test_boxes_of_large_pictures_are_in_their_own_pixels(data_folder: Path) -> None:
    image = skimage.data.astronaut()
    large = np.repeat(np.repeat(image, 4, 0), 4, 1)
    small, big = _yunet(data_folder)([image, large])
    assert geometry.overlaps(small.boxes * 4, big.boxes)[0, 0] > 0.7


@pytest.mark.data
def test_faces_come_largest_first(data_folder: Path) -> None:
    image = skimage.data.astronaut()
    canvas = np.full((512, 900, 3), 128, np.uint8)
    canvas[:, 388:] = image
    canvas[:256, :256] = image[::2, ::2]
    canvas[256:, :256] = image[::2, ::2]
    (found,) = _yunet(data_folder)([canvas])
    assert len(found) == 3
    assert np.argmax(found.boxes[:, 0]) == 0
    area = geometry.areas(found.boxes)
    assert np.all(np.diff(area) <= 0)


def test_the_whole_picture_is_framed_as_fer2013_is() -> None:
    detector = WholePicture()
    (found,) = detector([np.zeros((48, 48), np.uint8)])
    assert found.boxes.tolist() == [[0, 0, 48, 48]]
    assert found.scores.tolist() == [1]
    # In FER2013 the eyes stand at (32.5, 17.9) and (15.2, 18.3), the mouth near (24, 36).
    x0, y0, x1, y1 = crop_boxes(found.boxes, detector.crop_from_box)[0]
    assert x1 - x0 == pytest.approx(y1 - y0)
    assert (x0 + x1) / 2 == pytest.approx(24, abs=0.5)
    assert (y0 + y1) / 2 == pytest.approx(27, abs=0.5)


@pytest.mark.parametrize("name", ["haar", "facekit", pytest.param("yunet", marks=pytest.mark.data)])
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.full((1, 3000, 3), 200, np.uint8),
        np.zeros((3000, 2, 3), np.uint8),
        np.full((8, 3000, 3), 200, np.uint8),
        np.full((5, 7), 90, np.uint8),
        np.full((4000, 5000, 3), 128, np.uint8),
        np.tile(np.arange(200, dtype=np.uint8), (100, 1)),
    ],
    ids=["one pixel", "one row", "narrow", "flat", "tiny and gray", "huge", "ramp"],
)
def test_a_picture_without_a_face_gives_nothing(
    name: str, image: np.ndarray, request: pytest.FixtureRequest
) -> None:
    detector = _yunet(request.getfixturevalue("data_folder")) if name == "yunet" else make_detector(name)
    (found,) = detector([image])
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)


def test_no_pictures_give_no_detections() -> None:
    assert make_detector("haar")([]) == []


def test_threads_share_a_detector() -> None:
    detector = make_detector("haar")
    images = [np.roll(skimage.data.astronaut(), 8 * shift, 1) for shift in range(6)]
    alone = detector(images)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda image: detector([image])[0], images))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_an_unknown_detector_is_named_with_the_known_ones() -> None:
    with pytest.raises(DetectorError, match="unknown detector 'mtcnn'") as caught:
        make_detector("mtcnn")
    assert all(name in str(caught.value) for name in DETECTORS)


def test_a_score_out_of_range_is_an_error() -> None:
    with pytest.raises(DetectorError, match=r"min_score is 1\.5"):
        make_detector("haar", min_score=1.5)


def test_yunet_without_its_file_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path))
    with pytest.raises(DetectorError, match="--detector-model"):
        make_detector("yunet")
    with pytest.raises(DetectorError, match="no such file"):
        make_detector("yunet", tmp_path / "absent.onnx")
    broken = tmp_path / "face_detection_yunet_broken.onnx"
    broken.write_text("no model")
    with pytest.raises(DetectorError, match="cannot read it as a YuNet model"):
        make_detector("yunet")


@pytest.mark.data
def test_yunet_is_found_in_the_cache_folder(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path))
    model = (data_folder / "detection" / "yunet_n_640_640.onnx").read_bytes()
    (tmp_path / "face_detection_yunet_2023mar.onnx").write_bytes(model)
    (found,) = make_detector("yunet")([skimage.data.astronaut()])
    assert len(found) == 1


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
    _check_on_helen(own, _helen(data_folder, 40), recall=0.97)


def _astronaut_as(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Make a hard picture of the astronaut's face, with its box."""
    image, box = skimage.data.astronaut(), ASTRONAUT_FACE
    if kind == "tiny":
        scale = 18 / (box[0, 3] - box[0, 1])
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
        "tiny",
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
def test_a_crowd_is_found(own: Detector, data_folder: Path) -> None:
    faces = _helen(data_folder, 36)
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
    pictures = [skimage.data.coins(), skimage.data.brick(), skimage.data.page(), skimage.data.rocket()]
    assert [len(found) for found in own(pictures)] == [0, 0, 0, 0]
