from __future__ import annotations

import gzip
import logging
import lzma
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_sets import fer2013_rows, gray, numbers, write_fer2013, write_ferplus

from facekit.data import cache, pixel_table
from facekit.data.catalog import load_dataset
from facekit.data.fer2013 import join_ferplus, read_ferplus
from facekit.data.samples import Dataset
from facekit.errors import DatasetError
from facekit.schema import EXPRESSIONS, FERPLUS

USAGES = ["Training", "Training", "PublicTest", "PrivateTest"]
SPLITS = ["train", "train", "validation", "test"]


def assert_pictures(dataset: Dataset) -> None:
    """The picture of data row r is gray(r)."""
    for place, row in enumerate(dataset.rows.tolist()):
        np.testing.assert_array_equal(dataset.load(place), gray(row))


def xz(path: Path, content: bytes) -> Path:
    path = path.with_name("fer2013.csv.xz")
    path.write_bytes(lzma.compress(content))
    return path


def gz(path: Path, content: bytes) -> Path:
    path = path.with_name("fer2013.csv.gz")
    path.write_bytes(gzip.compress(content))
    return path


def zipped(path: Path, content: bytes) -> Path:
    path = path.with_name("archive.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fer2013/README", "text")
        archive.writestr("fer2013/example_submission.csv", "id,emotion\n1,2\n")
        archive.writestr("fer2013/fer2013.csv", content)
    return path


def plain(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("pack", [plain, xz, gz, zipped])
def test_plain_and_compressed_files(pack: Callable[[Path, bytes], Path], tmp_path: Path) -> None:
    text = "\n".join(("emotion,pixels,Usage", *fer2013_rows(USAGES)))
    dataset = load_dataset(pack(tmp_path / "fer2013.csv", text.encode()))
    assert dataset.format == dataset.name == "fer2013"
    assert dataset.labels is not None
    assert dataset.labels.tolist() == list(EXPRESSIONS[:4])
    assert dataset.splits.tolist() == SPLITS
    assert dataset.rows.tolist() == [0, 1, 2, 3]
    assert dataset.fer2013_frame
    assert not dataset.whole_pictures
    assert dataset.skipped == ()
    assert_pictures(dataset)


def test_line_ends_quotes_blank_lines_and_byte_order_mark(tmp_path: Path) -> None:
    rows = [f'{row},"{numbers(gray(row))}",Training' for row in range(3)]
    text = "\ufeffemotion,pixels,Usage\r\n" + "\r\n\r\n".join(rows)
    (tmp_path / "fer2013.csv").write_bytes(text.encode())
    dataset = load_dataset(tmp_path)
    assert dataset.splits.tolist() == ["train"] * 3
    assert_pictures(dataset)


def test_icml_column_names_with_spaces_in_another_order(tmp_path: Path) -> None:
    rows = [f"{row},{usage},{numbers(gray(row))}" for row, usage in enumerate(USAGES)]
    path = write_fer2013(tmp_path / "icml_face_data.csv", rows, "emotion, Usage, pixels")
    dataset = load_dataset(path)
    assert dataset.splits.tolist() == SPLITS
    assert_pictures(dataset)


def test_challenge_files_without_usage(tmp_path: Path) -> None:
    rows = [f'{row},"{numbers(gray(row))}"' for row in range(2)]
    train = load_dataset(write_fer2013(tmp_path / "train.csv", rows, "emotion,pixels"))
    assert train.splits.tolist() == ["train", "train"]
    assert train.labels is not None
    rows = [f'"{numbers(gray(row))}"' for row in range(2)]
    test = load_dataset(write_fer2013(tmp_path / "test.csv", rows, "pixels"))
    assert test.splits.tolist() == ["test", "test"]
    assert test.labels is None
    assert_pictures(test)
    mine = load_dataset(write_fer2013(tmp_path / "mine.csv", rows, "pixels"))
    assert mine.splits.tolist() == [None, None]


def bad(row: str, place: int, value: str) -> str:
    label, pixels, usage = row.split(",")
    words = pixels.split()
    words[place] = value
    return f"{label},{' '.join(words)},{usage}"


FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "a comma missing": (lambda row: row.replace(",", " ", 1), "expected 3 fields, got 2"),
    "a pixel missing": (lambda row: bad(row, 7, ""), "expected 2304 pixels, got 2303"),
    "a pixel more": (lambda row: bad(row, 7, "1 2"), "expected 2304 pixels, got 2305"),
    "no pixels": (lambda row: "1,,Training", "expected 2304 pixels, got 0"),
    "not a number": (lambda row: bad(row, 2303, "x7"), "pixel 2303 is 'x7'"),
    "not whole": (lambda row: bad(row, 5, "7.5"), "pixel 5 is '7.5'"),
    "negative": (lambda row: bad(row, 5, "-1"), "pixel 5 is '-1'"),
    "over 255": (lambda row: bad(row, 0, "256"), "pixel 0 is '256'; expected a whole number from 0 to 255"),
    "far over 255": (lambda row: bad(row, 9, "1255"), "pixel 9 is '1255'"),
    "label 7": (lambda row: "7" + row[1:], "the label is '7'; expected 0 to 6"),
    "label text": (lambda row: "happy" + row[1:], "the label is 'happy'"),
    "no label": (lambda row: row[1:], "the label is ''"),
    "unknown usage": (lambda row: row[: row.rindex(",")] + ",Holdout", "the Usage is not Training"),
    "too many fields": (lambda row: row + ",1", "expected 3 fields, got 4"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_is_named_and_the_rest_read(fault: str, tmp_path: Path) -> None:
    spoil, reason = FAULTS[fault]
    rows = fer2013_rows(["Training"] * 5)
    rows[2] = spoil(rows[2])
    dataset = load_dataset(write_fer2013(tmp_path / "fer2013.csv", rows))
    assert dataset.rows.tolist() == [0, 1, 3, 4]
    assert_pictures(dataset)
    (skipped,) = dataset.skipped
    assert (skipped.row, skipped.source) == (2, "fer2013.csv:2")
    assert skipped.reason.startswith(reason)


@pytest.mark.parametrize("left", [1, 20, 4000, -5, -14])
def test_a_file_cut_in_the_middle(left: int, tmp_path: Path) -> None:
    text = write_fer2013(tmp_path / "fer2013.csv", fer2013_rows(["Training"] * 3)).read_bytes()
    start_of_last = text.rstrip().rindex(b"\n") + 1
    (tmp_path / "fer2013.csv").write_bytes(text[: start_of_last + left] if left > 0 else text[:left])
    dataset = load_dataset(tmp_path)
    assert dataset.rows.tolist() == [0, 1]
    assert_pictures(dataset)
    assert [fault.row for fault in dataset.skipped] == [2]


def test_a_compressed_file_that_breaks_off(tmp_path: Path) -> None:
    text = "\n".join(("emotion,pixels,Usage", *fer2013_rows(["Training"] * 40)))
    content = gzip.compress(text.encode())
    (tmp_path / "fer2013.csv.gz").write_bytes(content[: len(content) * 3 // 4])
    dataset = load_dataset(tmp_path)
    assert 20 < len(dataset) < 40
    assert_pictures(dataset)
    (skipped,) = dataset.skipped
    assert skipped.row == len(dataset)
    assert "breaks off" in skipped.reason


@pytest.mark.parametrize("name", ["fer2013.csv.xz", "fer2013.csv.gz", "fer2013.zip"])
def test_a_compressed_file_that_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("emotion,pixels,Usage\n")
    with pytest.raises(DatasetError, match=f"{name}: cannot be unpacked"):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("emotion,Usage\n1,Training\n", "missing column pixels; the header has emotion, usage"),
        ("emotion,pixels,Usage\n", "no rows below the header"),
    ],
)
def test_files_without_rows_or_columns(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_dataset(path, "fer2013")


def test_a_file_of_many_blocks_is_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = fer2013_rows(["Training"] * 12)
    rows[5] = bad(rows[5], 3, "999")
    path = write_fer2013(tmp_path / "fer2013.csv", rows)
    monkeypatch.setattr(pixel_table, "_BLOCK", 20_000)
    dataset = load_dataset(path)
    assert dataset.rows.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert [fault.row for fault in dataset.skipped] == [5]
    assert_pictures(dataset)


class TestCache:
    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = tmp_path / "cache"
        monkeypatch.setenv("FACEKIT_CACHE", str(self.cache))

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        rows = fer2013_rows(["Training"] * 3)
        rows[1] = "1,2,Training"
        return write_fer2013(tmp_path / "fer2013.csv", rows)

    def parses(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        parsed: list[Path] = []
        parse = pixel_table._parse
        monkeypatch.setattr(
            pixel_table, "_parse", lambda path, *rest: parsed.append(path) or parse(path, *rest)
        )
        return parsed

    def test_the_second_time_nothing_is_parsed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        parsed = self.parses(monkeypatch)
        first, second = load_dataset(path), load_dataset(path)
        assert len(parsed) == 1
        assert second.skipped == first.skipped
        assert second.labels is not None
        assert second.labels.tolist() == ["angry", "fear"]
        assert_pictures(second)
        stored = pixel_table.read_pixel_table(path, "pixels", 48 * 48).pixels
        assert isinstance(stored, np.memmap)

    def test_a_copy_elsewhere_is_known_by_content(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        load_dataset(path)
        copy = path.with_name("copy.csv")
        copy.write_bytes(path.read_bytes())
        parsed = self.parses(monkeypatch)
        assert load_dataset(copy).skipped[0].source == "copy.csv:1"
        assert parsed == []

    def test_changed_content_is_noticed_although_size_and_time_are_equal(self, path: Path) -> None:
        old = time.time() - 3600
        os.utime(path, (old, old))
        load_dataset(path)
        content = path.read_bytes()
        path.write_bytes(content.replace(b"\n0,", b"\n6,", 1))
        os.utime(path, (old, old))
        changed = load_dataset(path)
        assert changed.labels is not None
        assert changed.labels[0] == "neutral"

    @pytest.mark.parametrize("suffix", ["npy", "npz"])
    def test_a_broken_cache_is_made_again(
        self, suffix: str, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        load_dataset(path)
        (stored,) = self.cache.glob(f"pixels/*.{suffix}")
        stored.write_bytes(stored.read_bytes()[:100])
        with caplog.at_level(logging.WARNING):
            assert_pictures(load_dataset(path))
        assert "parsed again" in caplog.text

    @pytest.mark.parametrize("note", ["", "null", '{"path": "a.csv"}', "\0\0"])
    def test_a_broken_note_of_a_digest_is_made_again(
        self, note: str, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache, "_SETTLED", -1)  # else nothing is noted of what was just written
        digest = cache.digest_of(path)
        (stored,) = self.cache.glob("digests/*.json")
        stored.write_text(note)
        assert cache.digest_of(path) == digest
        assert digest in stored.read_text()

    def test_without_a_writable_cache_it_still_reads(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.cache.write_text("a file where the folder should be")
        assert_pictures(load_dataset(path))
        assert "cannot be written" in caplog.text

    def test_no_parts_are_left_behind(self, path: Path) -> None:
        load_dataset(path)
        assert not list(self.cache.rglob(".*"))


class TestFerPlus:
    def test_votes_are_joined_within_each_usage(self, tmp_path: Path) -> None:
        """FER+'s file holds the three Usages in its own order; the dataset here holds two of them."""
        path = write_fer2013(tmp_path / "a.csv", fer2013_rows(["PublicTest", "Training", "Training"]))
        votes = [("Training", 1), ("Training", 2), ("PublicTest", 3), ("PrivateTest", 4)]
        joined = join_ferplus(load_dataset(path), write_ferplus(tmp_path / "plus.csv", votes))
        assert joined.votes is not None
        assert joined.votes.shape == (3, 10)
        assert joined.votes.argmax(1).tolist() == [3, 1, 2]
        assert joined.split("PublicTest").votes.argmax(1).tolist() == [3]

    def test_bad_rows_keep_their_place(self, tmp_path: Path) -> None:
        rows = fer2013_rows(["Training"] * 4)
        rows[1] = bad(rows[1], 0, "300")
        path = write_fer2013(tmp_path / "a.csv", rows)
        plus = write_ferplus(tmp_path / "plus.csv", [("Training", k) for k in (5, 6, 7, 8)])
        joined = join_ferplus(load_dataset(path), plus)
        assert joined.votes.argmax(1).tolist() == [5, 7, 8]

    def test_a_selection_gets_the_votes_of_its_rows(self, tmp_path: Path) -> None:
        path = write_fer2013(tmp_path / "a.csv", fer2013_rows(["Training"] * 4))
        plus = write_ferplus(tmp_path / "plus.csv", [("Training", k) for k in (5, 6, 7, 8)])
        part = load_dataset(path).select(np.array([3, 1]))
        assert join_ferplus(part, plus).votes.argmax(1).tolist() == [8, 6]

    def test_unequal_counts_are_an_error(self, tmp_path: Path) -> None:
        dataset = load_dataset(write_fer2013(tmp_path / "a.csv", fer2013_rows(["Training"] * 3)))
        plus = write_ferplus(tmp_path / "plus.csv", [("Training", 1)] * 4)
        with pytest.raises(DatasetError, match=r"4 rows of train, but .*a\.csv has 3"):
            join_ferplus(dataset, plus)

    def test_votes_beside_the_file_are_found(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write_fer2013(tmp_path / "fer2013.csv", fer2013_rows(["Training"] * 2))
        write_ferplus(tmp_path / "fer2013new.csv", [("Training", 1), ("Training", 9)])
        votes = load_dataset(tmp_path).votes
        assert votes is not None
        assert votes.argmax(1).tolist() == [1, 9]
        write_ferplus(tmp_path / "fer2013new.csv", [("Training", 1)])
        assert load_dataset(tmp_path).votes is None
        assert "votes are not used" in caplog.text

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("anger", "wrath", "missing column anger"),
            (",10,", ",ten,", "row 0: expected a Usage and ten numbers"),
            ("Training", "Holdout", "unknown split 'Holdout'"),
            ("\nTraining,fer0000000.png,0,10,0,0,0,0,0,0,0,0", "", "no rows below the header"),
        ],
    )
    def test_a_broken_vote_file(self, old: str, new: str, message: str, tmp_path: Path) -> None:
        path = write_ferplus(tmp_path / "plus.csv", [("Training", 1)])
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(DatasetError, match=message):
            read_ferplus(path)

    def test_other_datasets_have_no_votes(self, tmp_path: Path) -> None:
        (tmp_path / "happy").mkdir()
        (tmp_path / "happy" / "1.jpg").touch()
        with pytest.raises(DatasetError, match="belong to FER2013's CSV"):
            join_ferplus(load_dataset(tmp_path), tmp_path / "fer2013new.csv")


@pytest.mark.data
def test_real_rows_equal_the_lossless_sheets(fer2013_csv: Path, data_folder: Path) -> None:
    from PIL import Image

    dataset = load_dataset(fer2013_csv)
    assert [(dataset.splits == split).sum() for split in ("train", "validation", "test")] == [28709, 3589, 0]
    assert dataset.skipped == ()
    pictures = []
    for sheet in sorted((data_folder / "fer2013").glob("sheet_*.webp")):
        cells = np.asarray(Image.open(sheet).convert("L"))
        down = cells.shape[0] // 48
        pictures.append(cells.reshape(down, 48, 64, 48).swapaxes(1, 2).reshape(-1, 48, 48))
    expected = np.concatenate(pictures)
    table = pixel_table.read_pixel_table(fer2013_csv, "pixels", 48 * 48)
    np.testing.assert_array_equal(table.pixels, expected[: len(dataset)].reshape(-1, 48 * 48))
    np.testing.assert_array_equal(dataset.load(32297), expected[32297])


@pytest.mark.data
def test_real_votes(fer2013_csv: Path, data_folder: Path) -> None:
    joined = join_ferplus(load_dataset(fer2013_csv), data_folder / "fer2013" / "fer2013new.csv")
    assert joined.votes is not None
    assert joined.labels is not None
    assert set(joined.votes.sum(1).tolist()) <= set(range(8, 12))
    plurality = np.array([*FERPLUS, "unknown", "nf"], object)[joined.votes.argmax(1)]
    agreement = {
        name: (plurality == name)[joined.labels == name].mean() for name in ("happy", "neutral", "fear")
    }
    assert agreement["happy"] > 0.9
    assert agreement["neutral"] > 0.85
    assert agreement["fear"] < 0.3
