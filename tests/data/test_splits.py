from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_sets import gray

from facekit.data.catalog import load_dataset
from facekit.data.holdout import content_hash
from facekit.data.samples import Dataset
from facekit.data.splits import split_dataset
from facekit.errors import ConfigError, ImageError


def made(
    labels: list[str], groups: list[str | None] | None = None, pictures: list[int] | None = None
) -> Dataset:
    """Pictures with equal numbers are equal; -1 cannot be read."""
    numbers = list(range(len(labels))) if pictures is None else pictures

    def load(place: int) -> np.ndarray:
        if numbers[place] < 0:
            raise ImageError("broken")
        return gray(numbers[place], 8)

    return Dataset(
        name="made",
        format="class_folders",
        path=Path("made"),
        load=load,
        rows=np.arange(len(labels)),
        sources=np.array([f"{place}.jpg" for place in range(len(labels))], object),
        splits=np.full(len(labels), None, object),
        labels=np.array(labels, object),
        groups=None if groups is None else np.array(groups, object),
    )


def sides(parts: tuple[Dataset, ...]) -> dict[int, int]:
    return {int(row): side for side, part in enumerate(parts) for row in part.rows}


@pytest.mark.parametrize(
    ("fractions", "names"),
    [((0.8, 0.2), ["train", "test"]), ((0.6, 0.2, 0.2), ["train", "validation", "test"])],
)
def test_every_row_once_and_every_class_in_its_share(fractions: tuple[float, ...], names: list[str]) -> None:
    dataset = made(["happy"] * 50 + ["sad"] * 30 + ["fear"] * 10)
    parts = split_dataset(dataset, fractions, seed=3)
    assert sorted(sides(parts)) == list(range(90))
    for part, fraction, name in zip(parts, fractions, names, strict=True):
        assert set(part.splits) == {name}
        assert (np.diff(part.rows) > 0).all()
        counts = Counter(part.labels)
        assert counts == {"happy": 50 * fraction, "sad": 30 * fraction, "fear": 10 * fraction}
        np.testing.assert_array_equal(part.load(0), gray(int(part.rows[0]), 8))


def test_the_seed_decides() -> None:
    dataset = made(["happy"] * 40)
    first, again, other = (sides(split_dataset(dataset, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", range(5))
def test_doubles_and_groups_stay_on_one_side_also_when_chained(seed: int) -> None:
    """Row 0 and 1 are one person, 1 and 2 one picture, 2 and 3 one person: all four belong together."""
    labels = ["happy", "sad"] * 20
    groups = ["a", "a", "b", "b", *[None] * 36]
    pictures = [0, 1, 1, 3, *range(4, 36), 35, 35, 35, 35]
    side = sides(split_dataset(made(labels, groups, pictures), seed=seed))
    assert len({side[row] for row in (0, 1, 2, 3)}) == 1
    assert len({side[row] for row in (35, 36, 37, 38, 39)}) == 1


def test_people_are_kept_together_and_shares_still_hold() -> None:
    rng = np.random.default_rng(0)
    people = rng.integers(0, 120, 1000)
    labels = rng.choice(["happy", "sad", "fear"], 1000, p=[0.6, 0.3, 0.1])
    dataset = made(labels.tolist(), [f"p{person}" for person in people])
    parts = split_dataset(dataset, (0.6, 0.2, 0.2), seed=0)
    persons = [set(part.groups) for part in parts]
    assert len(set.union(*persons)) == sum(map(len, persons))
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        counts = Counter(part.labels)
        for name, total in Counter(labels.tolist()).items():
            assert abs(counts[name] - fraction * total) <= 0.02 * len(labels)


def test_unreadable_pictures_go_somewhere() -> None:
    parts = split_dataset(made(["happy"] * 10, pictures=[*range(8), -1, -1]))
    assert sorted(sides(parts)) == list(range(10))


@pytest.mark.parametrize("fractions", [(1.0,), (0.5, 0.4), (1.2, -0.2), (0.25,) * 4])
def test_impossible_fractions(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="expected two or three"):
        split_dataset(made(["happy"] * 4), fractions)


@pytest.mark.data
def test_real_doubles_and_people(fer2013_csv: Path, data_folder: Path) -> None:
    parts = split_dataset(load_dataset(fer2013_csv).split("PublicTest"), (0.6, 0.2, 0.2), seed=0)
    hashes = [{content_hash(part.load(place)) for place in range(len(part))} for part in parts]
    assert len(set.union(*hashes)) == sum(map(len, hashes))
    assert [round(len(part) / 3589, 2) for part in parts] == [0.6, 0.2, 0.2]
    train, test = split_dataset(load_dataset(data_folder / "ytf"), seed=0)
    assert not set(train.groups) & set(test.groups)
    assert abs(len(test) - 694 / 5) <= 2
