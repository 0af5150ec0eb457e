from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from facekit import geometry
from facekit.mirror import (
    mirror_boxes,
    mirror_image,
    mirror_per_point,
    mirror_points,
    mirroring_matrix,
    swap_sides,
)
from facekit.schema import KEYPOINTS, MEAN_FACE

widths = st.integers(1, 500)
seeds = st.integers(0, 1000)


def some_points(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, (3, 15, 2))


@given(seeds, widths)
def test_twice_is_identity(seed, width):
    points = some_points(seed)
    np.testing.assert_allclose(mirror_points(mirror_points(points, width), width), points, atol=1e-9)
    boxes = points[:, :2].reshape(3, 4)
    np.testing.assert_allclose(mirror_boxes(mirror_boxes(boxes, width), width), boxes, atol=1e-9)
    np.testing.assert_array_equal(mirror_per_point(mirror_per_point(points[..., 0])), points[..., 0])
    image = np.random.default_rng(seed).integers(0, 256, (4, width))
    np.testing.assert_array_equal(mirror_image(mirror_image(image)), image)


def test_left_and_right_change_names():
    renamed = mirror_per_point(np.array(KEYPOINTS))
    for before, after in zip(KEYPOINTS, renamed, strict=True):
        assert after == before.replace("left", "*").replace("right", "left").replace("*", "right")


def test_the_subjects_left_eye_stays_at_larger_x():
    face = np.array(MEAN_FACE) * 50 + 48
    left, right = KEYPOINTS.index("left_eye_center"), KEYPOINTS.index("right_eye_center")
    mirrored = mirror_points(face, 96)
    assert face[left, 0] > face[right, 0]
    assert mirrored[left, 0] > mirrored[right, 0]


def test_a_bright_pixel_and_its_point_move_together():
    image = np.zeros((5, 9))
    image[2, 7] = 1
    points = np.zeros((15, 2))
    points[0] = (7, 2)
    x, y = mirror_points(points, 9)[1]
    assert mirror_image(image)[int(y), int(x)] == 1


@given(seeds, st.integers(40, 90), st.integers(16, 64), st.floats(-0.5, 0.5), st.floats(0.5, 1.4))
def test_mirror_then_warp_is_warp_then_mirror(seed, width, size, angle, scale):
    image = np.random.default_rng(seed).uniform(0, 1, (50, width)).astype(np.float32)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    image_from_crop = np.array([[cosine, -sine, 5.0], [sine, cosine, 3.0]])
    across, along = np.array(mirroring_matrix(width)), np.array(mirroring_matrix(size))
    of_mirrored = geometry.compose(across, geometry.compose(image_from_crop, along))

    warped_then_mirrored = mirror_image(_sampled(image, image_from_crop, size))
    mirrored_then_warped = _sampled(np.ascontiguousarray(mirror_image(image)), of_mirrored, size)
    np.testing.assert_allclose(mirrored_then_warped, warped_then_mirrored, atol=2e-3)

    points_crop = np.random.default_rng(seed).uniform(0, size, (15, 2))
    in_mirrored = mirror_points(geometry.apply(image_from_crop, points_crop), width)
    np.testing.assert_allclose(
        geometry.apply(of_mirrored, mirror_points(points_crop, size)), in_mirrored, atol=1e-9
    )


def test_reading_right_to_left_and_swapping_sides_is_mirroring():
    points = some_points(3)
    reading = np.array(mirroring_matrix(96))
    np.testing.assert_allclose(swap_sides(geometry.apply(reading, points)), mirror_points(points, 96))


def test_tensors_and_arrays_agree():
    points = some_points(5)
    np.testing.assert_allclose(mirror_points(torch.from_numpy(points), 77).numpy(), mirror_points(points, 77))
    image = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(mirror_image(torch.from_numpy(image)).numpy(), mirror_image(image))


def _sampled(image: np.ndarray, image_from_crop: np.ndarray, size: int) -> np.ndarray:
    theta = torch.from_numpy(geometry.theta(image_from_crop, (image.shape[1], image.shape[0]), (size, size)))
    grid = torch.nn.functional.affine_grid(theta[None].double(), [1, 1, size, size], align_corners=False)
    picture = torch.from_numpy(image.copy())[None, None].double()
    return torch.nn.functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)[
        0, 0
    ].numpy()
