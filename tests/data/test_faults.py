from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made import faults_of
from small_sets import (
    FACE,
    facekit_json,
    fer2013_rows,
    gray,
    muxspace,
    numbers,
    pts,
    save,
    swap_names,
    write_fer2013,
)

from facekit.data.catalog import load_dataset
from facekit.data.faults import FaultFinder, swapped_sides
from facekit.errors import ImageError
from facekit.mirror import mirror_points
from facekit.schema import KEYPOINTS, MIRROR_PERMUTATION

PARTS = {
    "all": ("",),
    "eyes": ("_eye_",),
    "brows": ("_eyebrow_",),
    "mouth": ("mouth_",),
    "eyes and mouth": ("_eye_", "mouth_"),
}


def swapped(points: np.ndarray, parts: tuple[str, ...]) -> np.ndarray:
    order = [
        MIRROR_PERMUTATION[k] if any(part in name for part in parts) else k
        for k, name in enumerate(KEYPOINTS)
    ]
    return points[..., order, :]


def fer2013(path: Path, rows: list[tuple[int, int, str]]) -> Path:
    """Write rows of label, picture number (-1: black) and Usage."""
    pictures = {-1: np.zeros((48, 48), np.uint8)}
    lines = [
        f"{label},{numbers(pictures[number] if number in pictures else gray(number))},{usage}"
        for label, number, usage in rows
    ]
    return write_fer2013(path / "fer2013.csv", lines)


def test_duplicates_conflicts_overlaps_and_blanks(tmp_path: Path) -> None:
    path = fer2013(
        tmp_path,
        [
            (3, 1, "Training"),
            (3, 2, "Training"),
            (4, 3, "Training"),
            (3, 1, "Training"),
            (9, 8, "Training"),
            (5, 3, "PublicTest"),
            (3, 1, "PrivateTest"),
            (6, -1, "PrivateTest"),
            (6, 5, "PrivateTest"),
        ],
    )
    faults = faults_of(load_dataset(path))
    assert faults["duplicates"] == {
        "n": 3,
        "rows": [0, 3, 6, 2, 5],
        "copies": [3, 6, 5],
        "surplus": 3,
        "groups": 2,
        "conflicting_groups": 1,
    }
    assert faults["conflicting_duplicates"] == {"n": 2, "rows": [2, 5]}
    assert faults["split_overlap"] == {"n": 2, "rows": [5, 6]}
    assert faults["blank"] == {"n": 1, "rows": [7]}
    assert faults["left_out"] == {"n": 1, "rows": [4]}
    assert "points_outside" not in faults
    json.dumps(faults)


def test_labels_people_and_unreadable_pictures(tmp_path: Path) -> None:
    dataset = load_dataset(muxspace(tmp_path))
    (tmp_path / "images" / "odd.jpg").write_text("no picture")
    dataset = replace(dataset, splits=np.array(["train", "train", "train", "test", "test", "test"], object))
    faults = faults_of(dataset)
    assert faults["unknown_labels"] == {"n": 1, "rows": [5], "labels": {"bored": 1}}
    assert faults["unreadable"] == {"n": 1, "rows": [5]}
    assert faults["group_overlap"] == {"n": 2, "rows": [3, 4]}
    assert faults["split_overlap"] == {"n": 2, "rows": [3, 4]}
    assert faults["conflicting_duplicates"]["rows"] == [1, 3]


def test_scarce_classes(tmp_path: Path) -> None:
    for place in range(12):
        save(tmp_path / ("happy" if place < 11 else "fear") / f"{place}.png", place, (8, 8))
    imbalance = faults_of(load_dataset(tmp_path))["class_imbalance"]
    assert imbalance == {"n": 1, "rows": [0], "labels": {"happy": 11, "fear": 1}}


def test_points_outside_the_picture(tmp_path: Path) -> None:
    dataset = load_dataset(pts(tmp_path))
    points = dataset.points.copy()
    points[0, 3] = (119.5, 99.5)
    points[1, 3] = (119.6, 50)
    points[2, 3] = (np.nan, np.nan)
    faults = faults_of(replace(dataset, points=points))
    assert faults["points_outside"] == {"n": 1, "rows": [1]}


def test_two_faces_of_a_picture_are_no_duplicates(tmp_path: Path) -> None:
    path = facekit_json(tmp_path)
    assert faults_of(load_dataset(path))["duplicates"]["n"] == 0
    pictures = json.loads(path.read_text())
    path.write_text(json.dumps([*pictures, pictures[1]]))
    assert faults_of(load_dataset(path))["duplicates"]["rows"] == [2, 3]


def test_pictures_may_come_in_any_order(tmp_path: Path) -> None:
    dataset = load_dataset(write_fer2013(tmp_path / "fer2013.csv", fer2013_rows(["Training"] * 3) * 2))
    finder = FaultFinder(dataset)
    for place in (5, 0, 3, 2, 4, 1):
        finder.see(place, dataset.load(place))
    assert finder.faults() == faults_of(dataset)
    assert finder.faults()["duplicates"]["rows"] == [0, 3, 1, 4, 2, 5]


def test_only_unreadable_pictures_are_passed_over(tmp_path: Path) -> None:
    dataset = load_dataset(pts(tmp_path))

    def load(place: int) -> np.ndarray:
        raise ImageError("no") if place else MemoryError

    with pytest.raises(MemoryError):
        faults_of(replace(dataset, load=load))


class TestSwappedSides:
    @pytest.mark.parametrize("part", PARTS)
    def test_of_the_mean_face(self, part: str) -> None:
        both = np.stack([FACE, swapped(FACE, PARTS[part])])
        assert swapped_sides(both).tolist() == [False, True]

    def test_a_mirrored_face_is_right_and_a_face_upside_down_too(self) -> None:
        assert not swapped_sides(np.stack([mirror_points(FACE, 120), (120, 100) - FACE])).any()

    def test_gaps(self) -> None:
        points = np.stack([FACE, swap_names(FACE)])
        points[:, 3:10] = np.nan
        assert swapped_sides(points).tolist() == [False, True]
        assert not swapped_sides(np.full((2, 15, 2), np.nan, np.float32)).any()
        assert not swapped_sides(np.zeros((1, 15, 2), np.float32)).any()

    @pytest.mark.data
    @pytest.mark.parametrize("folder", ["landmarks68/afw", "ytf", "mtfl"])
    @pytest.mark.parametrize("part", ["all", "eyes", "mouth"])
    def test_planted_in_real_faces(self, folder: str, part: str, data_folder: Path) -> None:
        points = load_dataset(data_folder / folder).points
        assert not swapped_sides(points).any()
        assert swapped_sides(swapped(points, PARTS[part])).all()


@pytest.mark.data
def test_real_faults_of_fer2013(fer2013_csv: Path) -> None:
    dataset = load_dataset(fer2013_csv)
    faults = faults_of(dataset)
    assert len(dataset) == 32298
    assert faults["duplicates"]["surplus"] == 1530
    assert faults["duplicates"]["conflicting_groups"] == 47
    assert faults["split_overlap"]["n"] == 280
    assert faults["blank"]["n"] == 13
    assert faults["class_imbalance"]["n"] == 1
