from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_sets import (
    FACE,
    MTFL_POINTS,
    facekit_json,
    gray,
    kaggle_keypoints,
    mtfl,
    pts,
    save,
    write_pts,
    youtube_faces,
)

from facekit.data.catalog import load_dataset
from facekit.data.faults import swapped_sides
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.schema import KEYPOINTS

FIVE = [KEYPOINTS.index(name) for name in MTFL_POINTS]
LEFT_EYE, RIGHT_EYE = KEYPOINTS.index("left_eye_center"), KEYPOINTS.index("right_eye_center")


def skipped(dataset: Dataset) -> dict[str, str]:
    return {fault.source: fault.reason for fault in dataset.skipped}


class TestPts:
    def test_points_count_pixels_from_zero(self, tmp_path: Path) -> None:
        dataset = load_dataset(pts(tmp_path / "helen"))
        assert (dataset.name, dataset.format, dataset.whole_pictures) == ("helen", "pts", True)
        assert dataset.labels is None
        np.testing.assert_allclose(dataset.points, np.stack([FACE, FACE + 1, FACE + 2]), atol=1e-4)

    def test_faces_of_one_photo_are_a_group(self, tmp_path: Path) -> None:
        assert load_dataset(pts(tmp_path)).groups.tolist() == ["100", "100", "indoor_001"]

    def test_folders_named_by_split(self, tmp_path: Path) -> None:
        for place, part in enumerate(("testset", "trainset")):
            save(tmp_path / part / "1.jpg", place)
            write_pts(tmp_path / part / "1.pts", FACE)
        dataset = load_dataset(tmp_path)
        assert dataset.sources.tolist() == ["testset/1.jpg", "trainset/1.jpg"]
        assert dataset.splits.tolist() == ["test", "train"]

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("n_points: 68", "n_points: 67", "got 68 under the header n_points: 67"),
            ("n_points: 68\n{\n", "n_points: 68\n{\n3.0 4.0\n", "expected 68 points, got 69"),
            ("n_points: 68\n{\n", "n_points: 68\n{\n3.0\n", "got 68.5"),
            ("version: 1", "vers", "not a .pts file"),
            ("}", "", "not a .pts file"),
            ("{\n", "{\nx y\n", "a coordinate is not a number"),
            ("{\n", "{\nnan 1\n", "expected 68 points"),
            ("{\n2.00000", "{\ninf", "a coordinate is infinite"),
        ],
    )
    def test_a_broken_file_is_named(self, old: str, new: str, reason: str, tmp_path: Path) -> None:
        path = pts(tmp_path) / "100_2.pts"
        path.write_text(path.read_text().replace(old, new, 1))
        dataset = load_dataset(tmp_path)
        assert dataset.rows.tolist() == [0, 2]
        assert reason in skipped(dataset)["100_2.pts"]

    def test_pictures_and_points_without_each_other(self, tmp_path: Path) -> None:
        pts(tmp_path)
        (tmp_path / "100_1.png").unlink()
        (tmp_path / "100_2.pts").unlink()
        save(tmp_path / "indoor_001.jpg", 9)
        save(tmp_path / "z.png", 10)
        write_pts(tmp_path / "z.pts", FACE)
        dataset = load_dataset(tmp_path)
        assert dataset.sources.tolist() == ["z.png"]
        assert dataset.rows.tolist() == [3]
        assert skipped(dataset) == {
            "100_1.pts": "no picture of this name",
            "100_2.png": "no .pts file of this name",
            "indoor_001.jpg": "several pictures of one name: indoor_001.jpg, indoor_001.png",
        }


class TestYouTubeFaces:
    def test_points_people_and_splits(self, tmp_path: Path) -> None:
        dataset = load_dataset(youtube_faces(tmp_path))
        assert dataset.splits.tolist() == ["train", "train", "test"]
        assert dataset.groups.tolist() == ["Al_Gore", "Al_Gore", "Zhu_Rongji"]
        assert dataset.sources.tolist()[2] == "test/Zhu_Rongji_20.jpg"
        assert dataset.rows.tolist() == [0, 1, 2]
        np.testing.assert_allclose(dataset.points, np.stack([FACE, FACE + 1, FACE]), atol=1e-3)

    def test_bad_rows(self, tmp_path: Path) -> None:
        file = youtube_faces(tmp_path) / "training_frames_keypoints.csv"
        lines = file.read_text().splitlines()
        lines[1:1] = ["Gone_00.jpg," + lines[1].partition(",")[2], lines[1].rpartition(",")[0] + ",x"]
        file.write_text("\n".join(lines)[:-200])
        dataset = load_dataset(file)
        assert dataset.rows.tolist() == [2]
        assert [fault.row for fault in dataset.skipped] == [0, 1, 3]
        assert [fault.reason.split()[0] for fault in dataset.skipped] == ["no", "expected", "expected"]

    def test_absolute_names(self, tmp_path: Path) -> None:
        file = youtube_faces(tmp_path / "set") / "training_frames_keypoints.csv"
        elsewhere = save(tmp_path / "elsewhere" / "Al_Gore_00.jpg", 0)
        file.write_text(file.read_text().replace("Al_Gore_00.jpg", str(elsewhere)))
        dataset = load_dataset(file)
        assert dataset.sources.tolist() == [str(elsewhere), "training/Al_Gore_10.jpg"]
        assert dataset.load(0).shape == (100, 120, 3)
        elsewhere.unlink()
        dataset = load_dataset(file)
        assert dataset.rows.tolist() == [1]
        assert [(fault.row, fault.reason) for fault in dataset.skipped] == [(0, "no such picture")]


class TestMtfl:
    def test_sides_are_the_subjects(self, tmp_path: Path) -> None:
        dataset = load_dataset(mtfl(tmp_path))
        assert dataset.splits.tolist() == ["train", "train", "test"]
        assert dataset.groups.tolist() == ["Al_Gore", "Al_Gore", None]
        for points in dataset.points:
            np.testing.assert_allclose(points[FIVE], FACE[FIVE], atol=1e-3)
            assert np.isnan(np.delete(points, FIVE, 0)).all()

    def test_a_row_that_ends_before_the_path(self, tmp_path: Path) -> None:
        file = mtfl(tmp_path) / "points.csv"
        lines = [line.split(",") for line in file.read_text().splitlines()]
        lines = [",".join((*numbers, split, path)) for path, split, *numbers in lines]
        file.write_text("\n".join((*lines[:3], "1,2,3")))
        dataset = load_dataset(tmp_path)
        assert dataset.rows.tolist() == [0, 1]
        assert [fault.row for fault in dataset.skipped] == [2]
        assert "expected ten numbers" in dataset.skipped[0].reason

    def test_the_original_lists(self, tmp_path: Path) -> None:
        save(tmp_path / "lfw_5590" / "Al_Gore_0001.jpg", 0)
        numbers = " ".join(f"{v:.6f}" for v in FACE[FIVE].T.ravel())
        good = f" lfw_5590\\Al_Gore_0001.jpg {numbers} 1 2 1 3"
        bad = good.replace(numbers, numbers.replace(".", "x", 1))
        (tmp_path / "training.txt").write_text(f"{good}\n{bad}\n lfw_5590\\gone.jpg {numbers} 1 1 1 1\n \n")
        (tmp_path / "testing.txt").write_text(good + "\n")
        dataset = load_dataset(tmp_path)
        assert dataset.format == "mtfl"
        assert dataset.splits.tolist() == ["train", "test"]
        assert dataset.rows.tolist() == [0, 3]
        assert [fault.row for fault in dataset.skipped] == [1, 2]
        np.testing.assert_allclose(dataset.points[1][FIVE], FACE[FIVE], atol=1e-4)


class TestKaggle:
    def test_points_gaps_and_pictures(self, tmp_path: Path) -> None:
        dataset = load_dataset(kaggle_keypoints(tmp_path))
        np.testing.assert_allclose(dataset.points[[0, 2]], np.stack([FACE - 10, FACE - 8]), atol=1e-3)
        known = np.isfinite(dataset.points[1]).all(1)
        assert [KEYPOINTS[k] for k in np.flatnonzero(known)] == [
            "left_eye_center",
            "right_eye_center",
            "nose_tip",
        ]
        for row in range(3):
            np.testing.assert_array_equal(dataset.load(row), gray(row, 96))
        assert not dataset.whole_pictures

    def test_the_complete_variant_with_other_columns_and_quotes(self, tmp_path: Path) -> None:
        lines = (kaggle_keypoints(tmp_path) / "training.csv").read_text().splitlines()
        lines = [lines[0], lines[1], lines[3]]
        lines = [
            f'{k or "id"},{line.rpartition(",")[0]},"{line.rpartition(",")[2]}"'
            for k, line in enumerate(lines)
        ]
        (tmp_path / "training.csv").unlink()
        (tmp_path / "data.csv").write_text("\n".join(lines))
        dataset = load_dataset(tmp_path)
        assert np.isfinite(dataset.points).all()
        np.testing.assert_array_equal(dataset.load(1), gray(2, 96))

    def test_bad_rows_and_columns(self, tmp_path: Path) -> None:
        file = kaggle_keypoints(tmp_path) / "training.csv"
        text = file.read_text()
        first = text.splitlines()[1].partition(",")[0]
        file.write_text(text.replace(f"\n{first},", "\n12x,", 1)[:-40])
        dataset = load_dataset(file)
        assert dataset.rows.tolist() == [1]
        assert [fault.row for fault in dataset.skipped] == [0, 2]
        assert "not a number" in dataset.skipped[0].reason
        assert "expected 9216 pixels" in dataset.skipped[1].reason
        file.write_text(text.replace("nose_tip_x", "nose_x"))
        with pytest.raises(DatasetError, match="missing column nose_tip_x"):
            load_dataset(file, "kaggle_keypoints")


@pytest.mark.parametrize("number", ["inf", "-1e400", "1e30"])
@pytest.mark.parametrize("write", [kaggle_keypoints, mtfl, youtube_faces])
def test_a_point_far_from_any_picture_is_a_bad_row(
    write: Callable[[Path], Path], number: str, tmp_path: Path
) -> None:
    folder = write(tmp_path)
    file = max(folder.glob("*.csv"))
    whole = load_dataset(folder)
    lines = file.read_text().splitlines()
    cells = lines[1].split(",")
    place = next(k for k, name in enumerate(lines[0].split(",")) if name in ("nose_tip_x", "nose_x", "60"))
    lines[1] = ",".join([*cells[:place], number, *cells[place + 1 :]])
    file.write_text("\n".join(lines))
    dataset = load_dataset(folder)
    assert dataset.rows.tolist() == whole.rows.tolist()[1:]
    assert [(fault.row, fault.reason) for fault in dataset.skipped] == [
        (0, "a point lies infinitely or absurdly far away")
    ]


class TestFacekitJson:
    def test_every_face_is_a_row(self, tmp_path: Path) -> None:
        dataset = load_dataset(facekit_json(tmp_path))
        assert dataset.labels.tolist() == ["happy", "sad", "neutral"]
        assert dataset.sources.tolist() == ["a.png", "a.png", "sub/b.png"]
        assert dataset.groups.tolist() == ["a.png", "a.png", "sub/b.png"]
        np.testing.assert_allclose(dataset.points, np.stack([FACE, FACE + 5, FACE + 1]), atol=1e-4)
        assert dataset.boxes.tolist()[1] == [45, 30, 85, 70]
        assert dataset.whole_pictures

    def test_lines_and_faults(self, tmp_path: Path) -> None:
        pictures = json.loads(facekit_json(tmp_path).read_text())
        pictures[0]["faces"][1]["keypoints"]["chin"] = [1.0, 2.0]
        gone = {**pictures[1], "image": "gone.png"}
        failed = {**pictures[1], "error": "truncated", "faces": []}
        faceless = {**pictures[1], "faces": []}
        lines = [json.dumps(entry) for entry in (*pictures, gone, failed, faceless, [1], pictures[1])]
        path = tmp_path / "labels.jsonl"
        path.write_text("\n".join(lines)[:-30])
        dataset = load_dataset(path)
        assert dataset.rows.tolist() == [0, 2]
        assert [fault.row for fault in dataset.skipped] == [1, 3, 4, 5, 6]
        reasons = [fault.reason for fault in dataset.skipped]
        assert "chin" in reasons[0]
        assert reasons[1:3] == ["no such picture", "truncated"]
        assert all("is the file cut off?" in reason for reason in reasons[3:])

    def test_blank_lines_are_no_rows(self, tmp_path: Path) -> None:
        pictures = json.loads(facekit_json(tmp_path).read_text())
        path = tmp_path / "labels.jsonl"
        path.write_text("\n \n".join(map(json.dumps, pictures)) + "\n\n")
        dataset = load_dataset(path)
        assert dataset.rows.tolist() == [0, 1, 2]
        assert dataset.skipped == ()

    @pytest.mark.parametrize("box", [[40, 30, 1e400, 70], [40, 30, 40, 30], [80, 70, 40, 30]])
    def test_what_is_no_box_is_a_bad_row(self, box: list[float], tmp_path: Path) -> None:
        pictures = json.loads(facekit_json(tmp_path).read_text())
        pictures[0]["faces"][1]["box"] = box
        (tmp_path / "labels.json").write_text(json.dumps(pictures))
        dataset = load_dataset(tmp_path / "labels.json")
        assert dataset.rows.tolist() == [0, 2]
        assert [fault.row for fault in dataset.skipped] == [1]
        assert "expected x0 < x1 and y0 < y1" in dataset.skipped[0].reason

    def test_labels_or_points_alone(self, tmp_path: Path) -> None:
        pictures = json.loads(facekit_json(tmp_path).read_text())
        for face in (face for picture in pictures for face in picture["faces"]):
            face.update(keypoints=None, box=None)
        (tmp_path / "labels.json").write_text(json.dumps(pictures))
        dataset = load_dataset(tmp_path / "labels.json")
        assert dataset.points is None
        assert dataset.boxes is None
        assert dataset.labels.tolist() == ["happy", "sad", "neutral"]

    def test_a_folder_or_a_cut_list_is_an_error(self, tmp_path: Path) -> None:
        path = facekit_json(tmp_path)
        with pytest.raises(DatasetError, match=r"expected a \.json"):
            load_dataset(tmp_path, "facekit_json")
        path.write_text(path.read_text()[:-1])
        with pytest.raises(DatasetError, match="not JSON"):
            load_dataset(path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "format", "rows", "groups"),
    [
        ("landmarks68/helen_train", "pts", 870, 783),
        ("landmarks68/afw", "pts", 337, 185),
        ("ytf", "youtube_faces", 694, 347),
        ("mtfl", "mtfl", 5902, 890),
    ],
)
def test_real_points_lie_in_their_pictures(
    folder: str, format: str, rows: int, groups: int, data_folder: Path
) -> None:
    dataset = load_dataset(data_folder / folder)
    assert (dataset.format, len(dataset), dataset.skipped) == (format, rows, ())
    assert len(set(dataset.groups)) == groups
    assert (dataset.points[:, LEFT_EYE, 0] > dataset.points[:, RIGHT_EYE, 0]).all()
    assert not swapped_sides(dataset.points).any()
    for place in range(0, rows, rows // 25):
        height, width = dataset.load(place).shape[:2]
        known = dataset.points[place][np.isfinite(dataset.points[place]).all(1)]
        assert ((known >= -0.5) & (known <= (width - 0.5, height - 0.5))).all()


@pytest.mark.data
def test_real_eye_centres_lie_on_dark_eyes(data_folder: Path) -> None:
    """A quarter of a face away in any direction it is brighter."""
    dataset = load_dataset(data_folder / "landmarks68" / "helen_train")
    dark = np.zeros((3, 3))
    for place in range(0, 300, 2):
        picture = dataset.load(place).mean(2)
        scale = np.ptp(dataset.points[place], 0).max() / 4
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                eyes = dataset.points[place, [LEFT_EYE, RIGHT_EYE]] + np.array((dx, dy)) * scale
                x, y = eyes.round().astype(int).T.clip(0)
                dark[dy + 1, dx + 1] += picture[
                    y.clip(max=len(picture) - 1), x.clip(max=picture.shape[1] - 1)
                ].mean()
    assert dark.argmin() == 4
