from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from small_sets import MAKERS, fer2013_rows, save, write_fer2013

from facekit.data.catalog import FORMATS, detect_format, load_dataset
from facekit.data.samples import Dataset
from facekit.errors import ConfigError, DatasetError, ImageError


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_found_and_read_whole(name: str, tmp_path: Path) -> None:
    path = MAKERS[name](tmp_path / "set")
    assert detect_format(path) == name
    dataset = load_dataset(path)
    assert dataset.format == name
    assert dataset.skipped == ()
    assert dataset.labels is not None or dataset.points is not None
    for place in range(len(dataset)):
        picture = dataset.load(place)
        assert picture.dtype == np.uint8
        assert picture.shape[2:] in ((), (3,))
        assert dataset.root is not None
        assert dataset.root.is_file() or (dataset.root / dataset.sources[place]).is_file()
    assert_columns_fit(dataset)
    assert len(set(dataset.rows.tolist())) == len(dataset)


def assert_columns_fit(dataset: Dataset) -> None:
    for column in (
        dataset.sources,
        dataset.splits,
        dataset.labels,
        dataset.points,
        dataset.boxes,
        dataset.groups,
    ):
        assert column is None or len(column) == len(dataset)
    assert dataset.points is None or dataset.points.shape[1:] == (15, 2)


@pytest.mark.parametrize("name", FORMATS)
def test_a_main_file_does_as_well_as_its_folder(name: str, tmp_path: Path) -> None:
    path = MAKERS[name](tmp_path / "set")
    files = {
        "youtube_faces": "training_frames_keypoints.csv",
        "mtfl": "points.csv",
        "muxspace": "data/legend.csv",
    }
    files |= {"kaggle_keypoints": "training.csv", "raf_db": "test_labels.csv"}
    if name == "fer2013":
        assert detect_format(path.parent) == name
        assert load_dataset(path.parent).rows.tolist() == load_dataset(path).rows.tolist()
    elif name in files:
        whole, part = load_dataset(path), load_dataset(path / files[name])
        assert part.format == name
        first = np.flatnonzero(whole.sources == part.sources[0])[0]
        np.testing.assert_array_equal(part.load(0), whole.load(int(first)))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_shows_its_layout(name: str) -> None:
    reader = FORMATS[name]
    assert reader.LAYOUT.strip()
    assert reader.__doc__
    assert max(map(len, reader.LAYOUT.splitlines())) <= 100


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"File name too long$"):
        load_dataset(tmp_path / ("long" * 75))
    with pytest.raises(DatasetError, match="no such file"):
        load_dataset(tmp_path / "absent")
    with pytest.raises(DatasetError, match="an empty folder"):
        load_dataset(tmp_path)
    save(tmp_path / "holiday" / "1.png", 0)
    with pytest.raises(DatasetError, match=r"no known format.*holiday"):
        load_dataset(tmp_path)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DatasetError, match="an empty file"):
        load_dataset(tmp_path / "empty.csv")
    (tmp_path / "other.csv").write_text("name,age\nAl,3\n")
    with pytest.raises(DatasetError, match="starts with 'name,age'"):
        load_dataset(tmp_path / "other.csv")


@pytest.mark.parametrize("format", FORMATS)
def test_a_wrong_format_is_a_dataset_error(format: str, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("name,age\nAl,3\n")
    for path in (tmp_path, tmp_path / "notes.csv"):
        with pytest.raises(DatasetError, match=re.escape(str(path))):
            load_dataset(path, format)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown format 'fer'.*fer2013"):
        load_dataset(tmp_path, "fer")


def test_strict_stops_at_the_first_bad_row(tmp_path: Path) -> None:
    rows = fer2013_rows(["Training"] * 3)
    rows[1] = "9" + rows[1][1:]
    path = write_fer2013(tmp_path / "fer2013.csv", rows)
    assert len(load_dataset(path)) == 2
    with pytest.raises(DatasetError, match=r"1 of 3 rows.*row 1, fer2013.csv:1: the label is '9'"):
        load_dataset(path, strict=True)


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    path = write_fer2013(tmp_path / "fer2013.csv", ["7,1 2 3,Training"])
    with pytest.raises(DatasetError, match=r"1 of 1 rows.*expected 2304 pixels, got 3"):
        load_dataset(path)
    (tmp_path / "happy").mkdir()
    with pytest.raises(DatasetError, match="no pictures of format class_folders"):
        load_dataset(tmp_path, "class_folders")


def test_pictures_are_read_when_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "happy" / "1.png", 0)
    (tmp_path / "happy" / "2.png").write_text("not a picture")
    dataset = load_dataset(tmp_path)
    assert dataset.sources.tolist() == ["happy/1.png", "happy/2.png"]
    assert dataset.load(0).shape == (100, 120, 3)
    with pytest.raises(ImageError, match=r"2\.png"):
        dataset.load(1)
