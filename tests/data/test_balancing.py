from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_sets import FACE, class_folders, expw, pts

from facekit.data.balancing import balanced
from facekit.data.catalog import load_dataset
from facekit.data.samples import Dataset
from facekit.data.splits import split_dataset
from facekit.errors import DatasetError
from facekit.schema import KEYPOINTS

BOX = (30, 20, 95, 80)


def drawn(points: np.ndarray) -> np.ndarray:
    """A black picture (100, 120, 3) with the box in gray and a white pixel at each point."""
    picture = np.zeros((100, 120, 3), np.uint8)
    picture[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 100
    x, y = points.astype(int).T
    picture[y, x] = 255
    return picture


def pointed(count: int) -> Dataset:
    """One "happy" face with points and box among `count` "sad" ones."""
    points = np.tile(FACE.round(), (count + 1, 1, 1))
    points[np.arange(count + 1), 3, 0] += np.arange(count + 1) % 9
    return Dataset(
        name="made",
        format="facekit_json",
        path=Path("made"),
        load=lambda place: drawn(points[place]),
        rows=np.arange(count + 1),
        sources=np.array([f"{k}.jpg" for k in range(count + 1)], object),
        splits=np.full(count + 1, "train", object),
        labels=np.array(["happy", *["sad"] * count], object),
        points=points.astype(np.float32),
        boxes=np.tile(np.array(BOX, np.float32), (count + 1, 1)),
    )


def test_every_class_has_as_many_rows(tmp_path: Path) -> None:
    dataset = load_dataset(class_folders(tmp_path))
    result = balanced(dataset)
    assert Counter(result.labels) == {"angry": 2, "happy": 2, "contempt": 2}
    assert result.rows[: len(dataset)].tolist() == dataset.rows.tolist()
    np.testing.assert_array_equal(result.load(0), dataset.load(0))


def test_the_first_copy_is_the_mirror_image_and_no_two_are_equal() -> None:
    result = balanced(pointed(8))
    pictures = [result.load(0), *(result.load(place) for place in range(9, len(result)))]
    assert len(pictures) == 8
    np.testing.assert_array_equal(pictures[1], pictures[0][:, ::-1])
    assert len({picture.tobytes() for picture in pictures}) == 8


def test_points_and_boxes_move_with_the_picture() -> None:
    """In every copy the gray area is the box and the white pixels are the points, left ones on the left."""
    result = balanced(pointed(30), seed=5)
    left, right = KEYPOINTS.index("left_eye_center"), KEYPOINTS.index("right_eye_center")
    for place in range(31, len(result)):
        picture, points = result.load(place)[..., 0], result.points[place]
        assert points[left, 0] > points[right, 0]
        x, y = points.round().astype(int).T
        assert (picture[y, x] == 255).all()
        assert (picture == 255).sum() == len(set(zip(x.tolist(), y.tolist(), strict=True)))
        rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        np.testing.assert_allclose(result.boxes[place], edges, atol=1e-4)


def test_copies_stay_with_their_rows_in_a_later_split(tmp_path: Path) -> None:
    for dataset in (pointed(8), load_dataset(expw(tmp_path))):
        parts = split_dataset(balanced(dataset), (0.5, 0.5))
        groups = [set(part.groups) for part in parts]
        assert groups[0].isdisjoint(groups[1])


def test_pictures_without_labels_cannot_be_balanced(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no expression labels"):
        balanced(load_dataset(pts(tmp_path)))
