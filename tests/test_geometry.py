from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from facekit import geometry
from facekit.backends.torch import warp_on_device

places = st.floats(-200, 200)
sides = st.floats(5, 400)


@st.composite
def matrices(draw, limit: float = 100.0):
    angle, scale = draw(st.floats(-3.1, 3.1)), draw(st.floats(0.2, 5))
    shift = [draw(st.floats(-limit, limit)) for _ in range(2)]
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


@st.composite
def boxes(draw):
    x0, y0 = draw(places), draw(places)
    return np.array([x0, y0, x0 + draw(sides), y0 + draw(sides)])


def blob(width: int, height: int, x: float, y: float, spread: float) -> np.ndarray:
    across = np.exp(-((np.arange(width) - x) ** 2) / (2 * spread**2))
    down = np.exp(-((np.arange(height) - y) ** 2) / (2 * spread**2))
    return (down[:, None] * across[None]).astype(np.float32)


def centroid(picture: np.ndarray) -> np.ndarray:
    total = picture.sum()
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return np.array([(picture * columns).sum() / total, (picture * rows).sum() / total])


@given(matrices(), matrices())
def test_compose_applies_the_inner_matrix_first(outer, inner):
    points = np.array([[0.0, 0.0], [3.0, -2.0], [10.0, 7.0]])
    expected = geometry.apply(outer, geometry.apply(inner, points))
    np.testing.assert_allclose(geometry.apply(geometry.compose(outer, inner), points), expected, atol=1e-9)


@given(matrices())
def test_invert_undoes(matrix):
    points = np.array([[0.0, 0.0], [48.0, 5.0], [-7.0, 95.0]])
    there_and_back = geometry.apply(geometry.invert(matrix), geometry.apply(matrix, points))
    np.testing.assert_allclose(there_and_back, points, atol=1e-8)


@given(boxes(), st.integers(2, 200))
def test_crop_maps_the_corners_of_the_crop_to_the_edges_of_the_box(box, size):
    corners = np.array([[-0.5, -0.5], [size - 0.5, size - 0.5]])
    mapped = geometry.apply(geometry.crop(box, size), corners) + 0.5
    np.testing.assert_allclose(mapped.ravel(), box, atol=1e-9)


@given(boxes(), st.integers(2, 200), places)
def test_crop_follows_the_stated_formula(box, size, x):
    scale = size / (box[2] - box[0])
    crop_from_image = geometry.invert(geometry.crop(box, size))
    mapped = geometry.apply(crop_from_image, np.array([[x, 0.0]]))[0, 0]
    assert mapped == pytest.approx(scale * x + (0.5 - box[0]) * scale - 0.5, abs=1e-6)


@given(matrices())
def test_similarity_finds_the_matrix_that_moved_the_points(matrix):
    points = np.random.default_rng(0).normal(size=(15, 2)) * 20
    np.testing.assert_allclose(geometry.similarity(points, geometry.apply(matrix, points)), matrix, atol=1e-8)


@given(matrices(), st.integers(1, 6))
def test_a_matrix_into_the_reduced_image_points_at_the_same_place(matrix, factor):
    points = np.array([[0.0, 0.0], [23.0, 7.0]])
    reduced = geometry.apply(geometry.reduced_from_crop(matrix, factor), points)
    np.testing.assert_allclose((reduced + 0.5) * factor - 0.5, geometry.apply(matrix, points), atol=1e-8)


def test_reduction_rounds_the_crops_shrinking():
    boxes = [np.array([0.0, 0.0, 48 * s, 48 * s]) for s in (0.3, 1.0, 1.49, 1.51, 2.4, 2.6, 9.0)]
    factors = [geometry.reduction(geometry.crop(box, 48), (1000, 1000)) for box in boxes]
    assert factors == [1, 1, 1, 2, 2, 3, 9]
    assert geometry.reduction(geometry.crop(boxes[-1], 48), (4, 700)) == 4


@given(st.floats(0.6, 1.4), st.floats(-0.6, 0.6), st.floats(-3, 3), st.floats(-3, 3))
@example(1.03125, 0.0, 0.0, 0.25)
def test_a_blob_lands_where_the_matrix_says(scale, angle, dx, dy):
    width, height, size = 90, 80, 64
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    middle = np.array([(width - 1) / 2 + dx, (height - 1) / 2 + dy])
    centre = np.full(2, (size - 1) / 2)
    image_from_crop = np.concatenate([linear, (middle - linear @ centre)[:, None]], 1)
    blob_image = middle + np.array([2.3, -1.7])
    picture = blob(width, height, *blob_image, spread=4.0)
    exact = geometry.apply(geometry.invert(image_from_crop), blob_image[None])[0]
    # Between pixels bilinear sampling dims, which moves the centroid a little where the scale is nearly 1.
    y, x = np.mgrid[:size, :size]
    sampled_at = geometry.apply(image_from_crop, np.stack([x.ravel(), y.ravel()], 1).astype(float))
    expected = centroid(map_coordinates(picture, sampled_at.T[::-1], order=1).reshape(size, size))
    assert np.abs(expected - exact).max() < 0.02

    cut = geometry.warp(picture, image_from_crop, size)
    assert np.abs(centroid(cut) - expected).max() < 0.01

    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    by_cv2 = cv2.warpAffine(picture, image_from_crop, (size, size), flags=flags)
    assert np.abs(centroid(by_cv2) - exact).max() < 0.02

    theta = geometry.theta(image_from_crop, (width, height), (size, size))
    grid = F.affine_grid(torch.from_numpy(theta[None]).float(), [1, 1, size, size], align_corners=False)
    sampled = F.grid_sample(torch.from_numpy(picture)[None, None], grid, align_corners=False)
    assert np.abs(centroid(sampled[0, 0].numpy()) - expected).max() < 0.01


@given(matrices(limit=30), st.integers(20, 90), st.integers(20, 90), st.integers(8, 96))
def test_theta_and_the_pixel_matrix_agree(matrix, width, height, size):
    theta = geometry.theta(matrix, (width, height), (size, size))
    crop_pixel = np.array([[3.0, 5.0], [0.0, size - 1.0]])
    normalised = (crop_pixel + 0.5) * 2 / size - 1
    image_normalised = geometry.apply(theta, normalised)
    image_pixel = (image_normalised + 1) * np.array([width, height]) / 2 - 0.5
    np.testing.assert_allclose(image_pixel, geometry.apply(matrix, crop_pixel), atol=1e-6)


@pytest.mark.parametrize("shrink", [1.2, 2.0, 3.7, 8.0])
def test_both_warps_cut_the_same_crop_and_do_not_alias(shrink):
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (400, 420), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    box = np.array([10.0, 20.0, 10 + 48 * shrink, 20 + 48 * shrink])
    matrix = geometry.crop(box, 48)
    warped = geometry.warp(smooth, matrix, 48)
    by_torch = warp_on_device(torch.from_numpy(smooth), matrix[None], 48)[0, 0].numpy() * 255
    assert np.abs(warped - by_torch).mean() < 0.6
    if shrink >= 3:
        assert geometry.warp(noise, matrix, 48).std() < noise.std() * 0.6


def test_square_keeps_the_centre_and_takes_the_longer_side():
    squared = geometry.square(np.array([[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 11.0, 7.0]]), 1.5)
    np.testing.assert_allclose(squared, [[-10, -5, 20, 25], [3.5, 1.5, 12.5, 10.5]])


@given(st.lists(st.tuples(places, places), min_size=1, max_size=15))
def test_box_around_holds_the_points_and_agrees_for_tensors(points):
    array = np.array(points)
    box = geometry.box_around(array)
    np.testing.assert_allclose(box, [*(array.min(0) + 0.5), *(array.max(0) + 0.5)])
    np.testing.assert_allclose(geometry.box_around(torch.from_numpy(array)).numpy(), box)


def test_overlaps_of_known_boxes():
    first = np.array([[0.0, 0.0, 10.0, 10.0]])
    second = np.array([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    np.testing.assert_allclose(geometry.overlaps(first, second), [[1, 1 / 3, 0]])


def test_an_unmoved_crop_is_the_picture_itself():
    picture = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    matrix = geometry.crop(np.array([0.0, 0.0, 48.0, 48.0]), 48)
    np.testing.assert_array_equal(geometry.warp(picture, matrix, 48), picture)


def test_a_matrix_that_hardly_differs_gives_hardly_another_crop():
    picture = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
    matrix = np.array([[1.0, 0.125, 10.0], [-0.125, 1.0, 20.0]])
    crops = [geometry.warp(picture, matrix + offset, 48) for offset in (0.0, 1e-5)]
    assert np.abs(crops[0] - crops[1]).max() < 0.5


def test_square_moves_by_the_longer_side():
    boxes = np.array([[10.0, 20.0, 30.0, 60.0]])
    np.testing.assert_allclose(geometry.square(boxes, 0.5, (0.1, -0.25)), [[14, 20, 34, 40]])


def test_boxes_are_mapped_as_the_ellipses_in_them():
    box = np.array([10.0, 20.0, 40.0, 60.0])
    angle = np.linspace(0, 2 * np.pi, 20_000)
    # Points of the ellipse, as centres are counted: half a pixel less than edges.
    ellipse = np.stack([25 + 15 * np.cos(angle), 40 + 20 * np.sin(angle)], -1) - 0.5
    matrix = np.array([[0.8, -0.9, 5.0], [0.7, 1.1, -3.0]])
    mapped = geometry.apply(matrix, ellipse) + 0.5
    expected = [*mapped.min(0), *mapped.max(0)]
    np.testing.assert_allclose(geometry.apply_to_boxes(matrix, box[None])[0], expected, atol=1e-5)


def test_a_grid_is_mapped_as_its_points_are():
    matrix = np.array([[[0.8, -0.9, 5.0], [0.7, 1.1, -3.0]], [[1.0, 0.0, 2.0], [0.5, -1.0, 0.0]]])
    places = np.arange(4.0) * 2
    y, x = np.meshgrid(places, places, indexing="ij")
    expected = geometry.apply(matrix, np.stack([x, y], -1).reshape(-1, 2)).reshape(2, 4, 4, 2)
    np.testing.assert_allclose(geometry.apply_to_grid(matrix, places), np.moveaxis(expected, -1, 1))


@given(matrices(), st.floats(-3, 3), st.floats(-3, 3))
def test_a_crop_turns_about_its_middle(matrix, first, then):
    turned = geometry.turned(matrix, np.array(first), 96)
    middle = np.array([[47.5, 47.5]])
    np.testing.assert_allclose(geometry.apply(turned, middle), geometry.apply(matrix, middle), atol=1e-6)
    np.testing.assert_allclose(geometry.scale_of(turned), geometry.scale_of(matrix))
    twice = geometry.turned(turned, np.array(then), 96)
    np.testing.assert_allclose(twice, geometry.turned(matrix, np.array(first + then), 96), atol=1e-6)
