from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from facekit import geometry
from facekit.backends import Backend, make_backend
from facekit.images import to_gray
from facekit.keypoints import find_keypoints
from facekit.mirror import mirror_boxes, mirror_image, mirror_points
from facekit.schema import OUTER_EYE_CORNERS

FACE = np.float32([[184.375, 74.375, 265.625, 155.625]])
"""The square around the points of Eileen Collins' face, upright."""


@pytest.fixture(scope="module")
def backend() -> Backend:
    return make_backend("onnx", "default", "cpu", "fp32")


@pytest.fixture(scope="module")
def crop(backend) -> np.ndarray:
    """Stage 1's crop of that face."""
    return geometry.square(FACE, backend.header["crop_factor"])


@pytest.fixture
def looks(backend, monkeypatch) -> Iterator[list[int]]:
    """Count the faces of each pass of stage 1."""
    counts: list[int] = []
    whole = type(backend).keypoints
    monkeypatch.setattr(
        type(backend), "keypoints", lambda self, crops: counts.append(len(crops)) or whole(self, crops)
    )
    return counts


def turned(gray: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn a picture about the face's middle, degrees; give the matrix from the upright one too."""
    middle = tuple(((FACE[0, :2] + FACE[0, 2:]) / 2).tolist())
    matrix = cv2.getRotationMatrix2D(middle, angle, 1)
    return cv2.warpAffine(gray, matrix, gray.shape[::-1]), matrix


@pytest.mark.parametrize("angle", [-50, -25, 25, 50])
def test_a_tilted_face_has_the_points_of_the_upright_one(backend, crop, looks, angle):
    gray = to_gray(astronaut())
    first = np.array([0])
    upright, _ = find_keypoints(backend, [gray], first, crop)
    assert looks == [1, 1]
    tilted, matrix = turned(gray, angle)
    found, sigma = find_keypoints(backend, [tilted], first, crop)
    assert looks == [1, 1] * 3
    expected = geometry.apply(matrix[None], upright.astype(np.float64))
    apart = np.linalg.norm(np.subtract(*upright[0, list(OUTER_EYE_CORNERS)]))
    error = np.linalg.norm(found - expected, axis=-1) / apart
    assert error.mean() < 0.025
    assert sigma.shape == (1, 15)


def test_only_the_tilted_faces_are_looked_at_again(backend, crop, looks):
    gray = to_gray(astronaut())
    pictures = [gray, turned(gray, 30)[0], gray]
    found, _ = find_keypoints(backend, pictures, np.arange(3), np.repeat(crop, 3, 0))
    assert looks == [3, 3, 1, 1]
    alone, _ = find_keypoints(backend, pictures, np.array([1]), crop)
    np.testing.assert_allclose(found[1], alone[0], atol=1e-3)
    np.testing.assert_allclose(found[0], found[2], atol=1e-3)


@pytest.mark.parametrize(
    ("factor", "shift"), [(1.0, (0.14, 0.0)), (1.0, (0.0, -0.14)), (1.25, (0.0, 0.0)), (0.82, (0.0, 0.0))]
)
def test_a_face_that_lies_askew_in_its_crop_has_the_points_of_the_right_one(
    backend, crop, looks, factor, shift
):
    gray = to_gray(astronaut())
    first = np.array([0])
    right, _ = find_keypoints(backend, [gray], first, crop)
    assert looks == [1, 1]
    found, _ = find_keypoints(backend, [gray], first, geometry.square(crop, factor, shift))
    assert looks == [1, 1] * 3
    apart = np.linalg.norm(np.subtract(*right[0, list(OUTER_EYE_CORNERS)]))
    assert np.linalg.norm(found - right, axis=-1).mean() / apart < 0.02


def test_points_that_are_no_face_are_not_looked_at_again(backend, crop, looks, monkeypatch):
    monkeypatch.setattr(
        type(backend),
        "_run",
        lambda _, task, crops, outputs: [np.full((len(crops), 15, 2), 40.0), np.ones((len(crops), 15))],
    )
    found, _ = find_keypoints(backend, [to_gray(astronaut())], np.array([0]), crop)
    assert looks == [1, 1]
    assert np.ptp(found, axis=1).max() == pytest.approx(0, abs=1e-3)


def test_a_mirrored_tilted_face_has_mirrored_points(backend, crop):
    gray = turned(to_gray(astronaut()), 35)[0]
    width = gray.shape[1]
    first = np.array([0])
    found, _ = find_keypoints(backend, [gray], first, crop)
    other, _ = find_keypoints(backend, [mirror_image(gray)], first, mirror_boxes(crop, width))
    np.testing.assert_allclose(mirror_points(other, width), found, atol=0.05)
