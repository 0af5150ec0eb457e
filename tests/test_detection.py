"""Detectors find the faces of real pictures, and their boxes become stage 1's crops."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from facekit import geometry
from facekit.detection import DETECTORS, Detector, WholePicture, crop_boxes, make_detector
from facekit.errors import DetectorError
from facekit.mirror import mirror_boxes
from facekit.schema import BOX_FACTOR, KEYPOINTS_FROM_IBUG68

ASTRONAUT_FACE = np.array([[170.0, 60.0, 275.0, 190.0]])
"""Hairline to chin, ear to ear, by eye."""


def _yunet(data_folder: Path) -> Detector:
    return make_detector("yunet", data_folder / "detection" / "yunet_n_640_640.onnx")


def helen_faces(data_folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give pictures with the square around their 15 points times the crop factor."""
    from PIL import Image

    faces = []
    for path in sorted((data_folder / "landmarks68" / "helen_train").glob("*.pts"))[:: 870 // count]:
        numbers = path.read_text().partition("{")[2].partition("}")[0].split()
        points = np.array(numbers, np.float32).reshape(68, 2) - 1
        points = np.stack([points[list(group)].mean(0) for group in KEYPOINTS_FROM_IBUG68])
        image = np.asarray(Image.open(path.with_suffix(".jpg")).convert("RGB"))
        faces.append((image, geometry.square(geometry.box_around(points[None]), BOX_FACTOR)))
    return faces


def check_on_helen(detector: Detector, faces: list[tuple[np.ndarray, np.ndarray]], recall: float) -> None:
    found = detector([image for image, _ in faces])
    best = [
        geometry.overlaps(crop_boxes(one.boxes, detector.face_from_box.scaled(BOX_FACTOR)), label).max(
            initial=0.0
        )
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
    check_on_helen(make_detector("haar"), helen_faces(data_folder, 16), recall=0.75)


@pytest.mark.data
def test_yunet_on_helen(data_folder: Path) -> None:
    check_on_helen(_yunet(data_folder), helen_faces(data_folder, 40), recall=0.97)


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
    x0, y0, x1, y1 = crop_boxes(found.boxes, detector.face_from_box)[0]
    assert x1 - x0 == pytest.approx(y1 - y0)
    assert (x0 + x1) / 2 == pytest.approx(24, abs=0.5)
    assert (y0 + y1) / 2 == pytest.approx(27, abs=0.5)


@pytest.mark.parametrize("name", ["haar", pytest.param("yunet", marks=pytest.mark.data)])
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
    images = [np.roll(skimage.data.astronaut()[:256, 100:356], 8 * shift, 1) for shift in range(6)]
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


def test_haar_without_its_cascades_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import cv2

    if hasattr(cv2, "CascadeClassifier"):
        monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
        with pytest.raises(DetectorError, match="has no Haar cascades"):
            make_detector("haar")
        monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(DetectorError, match="has no Haar cascades: install opencv-python below 5"):
        make_detector("haar")


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
