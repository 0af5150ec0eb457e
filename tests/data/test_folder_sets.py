from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_sets import ck_plus, class_folders, expw, jaffe, muxspace, raf_db, save

from facekit.data.catalog import detect_format, load_dataset
from facekit.data.muxspace import four_classes
from facekit.errors import DatasetError, ImageError
from facekit.schema import RAF_DB


class TestClassFolders:
    def test_labels_are_facekits_names(self, tmp_path: Path) -> None:
        dataset = load_dataset(class_folders(tmp_path / "mine"))
        assert (dataset.name, dataset.format) == ("mine", "class_folders")
        assert dataset.labels.tolist() == ["angry", "angry", "happy", "contempt"]
        assert dataset.sources.tolist() == [
            "Anger/1.png",
            "Anger/2.png",
            "Happiness/x/1.png",
            "contempt/1.png",
        ]
        assert dataset.splits.tolist() == [None] * 4
        assert dataset.rows.tolist() == [0, 1, 2, 3]
        assert not dataset.whole_pictures
        assert not dataset.fer2013_frame

    @pytest.mark.parametrize("wrapper", ["", "images/", "a/images/"])
    def test_split_folders_below_lone_folders(self, wrapper: str, tmp_path: Path) -> None:
        for place, name in enumerate(("test/sad/1.jpg", "train/happy/1.jpg", "valid/Bored/2.jpg")):
            save(tmp_path / (wrapper + name), place)
        dataset = load_dataset(tmp_path)
        assert dataset.format == "class_folders"
        assert dataset.splits.tolist() == ["test", "train", "validation"]
        assert dataset.labels.tolist() == ["sad", "happy", "bored"]
        assert dataset.sources[1] == f"{wrapper}train/happy/1.jpg"
        assert dataset.load(1).shape == (100, 120, 3)

    def test_one_split_given_by_itself(self, tmp_path: Path) -> None:
        save(tmp_path / "validation" / "happy" / "1.jpg", 0)
        assert load_dataset(tmp_path / "validation").splits.tolist() == ["validation"]

    def test_kaggles_names_tell_the_split(self, tmp_path: Path) -> None:
        names = ("PrivateTest_4.jpg", "PublicTest_5.jpg", "Training_6.jpg", "train_7.jpg")
        for place, name in enumerate(names):
            save(tmp_path / "fer" / "happy" / name, place, (48, 48))
            save(tmp_path / "test" / "happy" / name, place, (48, 48))
        dataset = load_dataset(tmp_path / "fer")
        assert dataset.splits.tolist() == ["test", "validation", "train", None]
        assert dataset.fer2013_frame
        assert load_dataset(tmp_path / "test").splits.tolist() == ["test", "validation", "train", "test"]

    def test_one_picture_of_another_size_among_fer2013s(self, tmp_path: Path) -> None:
        for place in range(200):
            save(tmp_path / "happy" / f"{place:03d}.png", place, (48, 48) if place != 101 else (64, 48))
        dataset = load_dataset(tmp_path)
        assert dataset.fer2013_frame
        assert dataset.load(100).shape == (48, 48, 3)
        with pytest.raises(ImageError, match="64x48 pixels in a set of FER2013's 48x48"):
            dataset.load(101)

    def test_large_pictures_hold_a_face_somewhere(self, tmp_path: Path) -> None:
        save(tmp_path / "happy" / "1.jpg", 0, (256, 200))
        assert not load_dataset(tmp_path).whole_pictures
        save(tmp_path / "happy" / "1.jpg", 0, (257, 200))
        assert load_dataset(tmp_path).whole_pictures

    def test_only_the_formats_that_are_read_are_opened(self, tmp_path: Path) -> None:
        save(tmp_path / "happy" / "1.jpg", 0)
        # Pillow's reader of this format raises NotImplementedError.
        (tmp_path / "happy" / "2.jpg").write_bytes(b"DDS " + (124).to_bytes(4, "little") + bytes(120))
        dataset = load_dataset(tmp_path)
        assert len(dataset) == 2
        with pytest.raises(ImageError, match="not a picture, it starts with b'DDS"):
            dataset.load(1)

    def test_pictures_without_a_class_are_named(self, tmp_path: Path) -> None:
        for place, name in enumerate(
            ("cover.jpg", "extra/sad/1.jpg", "train/happy/1.jpg", "train/loose.jpg")
        ):
            save(tmp_path / name, place)
        save(tmp_path / "train" / "happy" / ".hidden.jpg", 5)
        (tmp_path / "train" / "happy" / "notes.txt").write_text("no picture")
        dataset = load_dataset(tmp_path)
        assert dataset.rows.tolist() == [2]
        assert [(f.row, f.source) for f in dataset.skipped] == [
            (0, "cover.jpg"),
            (1, "extra/sad/1.jpg"),
            (3, "train/loose.jpg"),
        ]

    def test_one_class_alone(self, tmp_path: Path) -> None:
        save(tmp_path / "happy" / "1.jpg", 0)
        assert load_dataset(tmp_path).labels.tolist() == ["happy"]

    def test_the_name_of_the_folder_one_stands_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(class_folders(tmp_path / "mine"))
        assert load_dataset(".").name == "mine"


class TestRafDb:
    def test_both_splits(self, tmp_path: Path) -> None:
        dataset = load_dataset(raf_db(tmp_path))
        assert dataset.labels.tolist() == list(RAF_DB) * 2
        assert dataset.splits.tolist() == ["train"] * 7 + ["test"] * 7
        assert dataset.rows.tolist() == list(range(14))
        assert dataset.sources[7] == "DATASET/test/1/test_00001_aligned.jpg"

    @pytest.mark.parametrize("given", ["", "DATASET", "test_labels.csv"])
    def test_the_test_part_alone(self, given: str, tmp_path: Path) -> None:
        dataset = load_dataset(raf_db(tmp_path, ["test"]) / given)
        assert dataset.format == "raf_db"
        assert dataset.splits.tolist() == ["test"] * 7
        assert dataset.load(6).shape == (100, 100, 3)

    def test_without_label_files(self, tmp_path: Path) -> None:
        (raf_db(tmp_path, ["train"]) / "train_labels.csv").unlink()
        assert load_dataset(tmp_path).labels.tolist() == list(RAF_DB)

    def test_bad_rows(self, tmp_path: Path) -> None:
        table = raf_db(tmp_path, ["train"]) / "train_labels.csv"
        lines = table.read_text().splitlines()
        table.write_text(
            "\n".join((*lines[:3], "train_00003_aligned.jpg,8", "gone.jpg,1", *lines[5:])) + "\n"
        )
        dataset = load_dataset(tmp_path)
        assert dataset.rows.tolist() == [0, 1, 4, 5, 6]
        assert [(f.row, f.reason.split(";")[0]) for f in dataset.skipped] == [
            (2, "the label is '8'"),
            (3, f"no such picture in {tmp_path / 'DATASET' / 'train'}"),
            (7, f"not in {table}"),
        ]

    def test_missing_columns(self, tmp_path: Path) -> None:
        table = raf_db(tmp_path, ["train"]) / "train_labels.csv"
        table.write_text("name,label\n")
        with pytest.raises(DatasetError, match="missing column image"):
            load_dataset(tmp_path)


class TestExpw:
    def test_crops_of_one_photo_are_a_group(self, tmp_path: Path) -> None:
        dataset = load_dataset(expw(tmp_path))
        assert (dataset.name, dataset.format) == ("expw", "expw")
        assert dataset.groups.tolist() == ["angry_African_112", "angry_African_112", "fierce_boy_13"]
        assert dataset.labels.tolist() == ["angry", "happy", "sad"]
        assert not dataset.whole_pictures

    @pytest.mark.parametrize("folder", ["image/origin", "origin", "image", "."])
    def test_label_list_with_boxes(self, folder: str, tmp_path: Path) -> None:
        save(tmp_path / folder / "angry_boy_1.jpg", 0)
        lines = [
            "angry_boy_1.jpg 0 28 13 81 96 22.9 5",
            "angry_boy_1.jpg 1 5 70 110 45 20.1 0",
            "gone.jpg 0 1 2 3 4 5.0 6",
            "angry_boy_1.jpg 2 5 70 110 45 20.1 7",
            "angry_boy_1.jpg 3 5 70 110",
            "angry_boy_1.jpg 4 28 13 13 96 22.9 5",
            "angry_boy_1.jpg 5 nan 13 81 96 22.9 5",
        ]
        listed = tmp_path / "label" / "label.lst" if folder == "image/origin" else tmp_path / "label.lst"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text("\n".join(lines))
        for path in (tmp_path, listed):
            dataset = load_dataset(path)
            assert dataset.format == "expw"
            assert dataset.labels.tolist() == ["surprise", "angry"]
            assert dataset.boxes.tolist() == [[13, 28, 81, 96], [70, 5, 110, 45]]
            assert dataset.groups.tolist() == ["angry_boy_1"] * 2
            assert dataset.whole_pictures
            assert [fault.row for fault in dataset.skipped] == [2, 3, 4, 5, 6]
            assert dataset.load(1).shape == (100, 120, 3)


class TestMuxspace:
    def test_every_row_counts(self, tmp_path: Path) -> None:
        dataset = load_dataset(muxspace(tmp_path))
        assert dataset.labels.tolist() == ["happy", "angry", "neutral", "disgust", "neutral", "bored"]
        assert dataset.groups.tolist() == ["Al_Gore", "Al_Gore", "crowd_12x", "Al_Gore", "crowd_12x", "odd"]
        assert dataset.whole_pictures
        np.testing.assert_array_equal(dataset.load(1), dataset.load(3))

    def test_rows_without_picture_or_label(self, tmp_path: Path) -> None:
        legend = muxspace(tmp_path) / "data" / "legend.csv"
        legend.write_text(legend.read_text() + "1,gone.jpg,anger\n1,odd.jpg,\n")
        dataset = load_dataset(tmp_path)
        assert len(dataset) == 6
        assert [(fault.row, fault.source) for fault in dataset.skipped] == [
            (6, "images/gone.jpg"),
            (7, "images/odd.jpg"),
        ]

    def test_pictures_beside_the_legend(self, tmp_path: Path) -> None:
        save(tmp_path / "1.jpg", 0)
        (tmp_path / "legend.csv").write_text("user.id,image,emotion\n3,1.jpg,FEAR\n")
        assert load_dataset(tmp_path).labels.tolist() == ["fear"]

    def test_four_class_clean_up(self, tmp_path: Path) -> None:
        cleaned = four_classes(load_dataset(muxspace(tmp_path)))
        assert cleaned.sources.tolist() == ["images/Al_Gore_0001.jpg", "images/crowd_12x.jpg"]
        assert cleaned.labels.tolist() == ["happy", "neutral"]


def test_ck_plus_groups_by_subject(tmp_path: Path) -> None:
    dataset = load_dataset(ck_plus(tmp_path))
    assert (dataset.name, dataset.format) == ("ck_plus", "ck_plus")
    assert dataset.labels.tolist() == ["angry", "angry", "happy"]
    assert dataset.groups.tolist() == ["S010", "S010", "S011"]
    assert not dataset.fer2013_frame


def test_jaffe_by_its_file_names(tmp_path: Path) -> None:
    save(jaffe(tmp_path) / "cover.png", 9)
    dataset = load_dataset(tmp_path)
    assert dataset.labels.tolist() == ["angry", "neutral", "surprise"]
    assert dataset.groups.tolist() == ["KA", "KA", "YM"]
    assert dataset.whole_pictures
    assert [fault.source for fault in dataset.skipped] == ["cover.png"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "format", "counts"),
    [
        ("affectnet", "class_folders", {"happy": 463, "contempt": 740, "angry": 740}),
        ("expw", "expw", {"happy": 815, "angry": 797, "neutral": 815}),
        ("muxspace", "muxspace", {"neutral": 321, "happy": 320, "contempt": 4}),
        ("raf_db", "raf_db", {"surprise": 1290, "fear": 281, "neutral": 2524}),
    ],
)
def test_real_rows(folder: str, format: str, counts: dict[str, int], data_folder: Path) -> None:
    dataset = load_dataset(data_folder / folder)
    assert detect_format(data_folder / folder) == format
    assert dataset.name == folder
    assert dataset.skipped == ()
    found = Counter(dataset.labels.tolist())
    assert {label: found[label] for label in counts} == counts
    for place in range(0, len(dataset), len(dataset) // 20):
        assert dataset.load(place).std() > 1
