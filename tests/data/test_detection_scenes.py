"""Folders of scenes are read, split by photo, and looked at through matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facekit import geometry
from facekit.data.detection_scenes import (
    DOUBTFUL,
    FACE,
    NONE,
    Labels,
    load_scenes,
    read_labels,
    sample_scenes,
    split_labels,
)
from facekit.errors import DatasetError

CPU = torch.device("cpu")
HEADER = "image,x0,y0,x1,y1,score\n"


def _write(folder: Path, names: list[str], lines: str) -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    (folder / "faces.csv").write_text(HEADER + lines)
    return picture


def test_labels_are_read_with_their_pictures(tmp_path: Path) -> None:
    _write(
        tmp_path, ["a/1.png", "a/2.png"], "a/1.png,1,2,31,42,0.9\na/1.png,3,4,20,30,0.4\na/1.png,1,1,5,5,1\n"
    )
    labels = read_labels([tmp_path])
    assert [path.name for path in labels.paths] == ["1.png", "2.png"]
    assert [len(own) for own in labels.faces] == [3, 0]
    scenes = load_scenes(labels, CPU)
    # Certain and large enough; an unsure labeller; too small.
    assert scenes.kinds.tolist() == [[FACE, DOUBTFUL, DOUBTFUL], [NONE] * 3]
    assert scenes.boxes[0, 0].tolist() == [1, 2, 31, 42]


def test_hidden_files_are_no_scenes(tmp_path: Path) -> None:
    _write(tmp_path, ["a/1.png"], "a/1.png,1,2,31,42,0.9\n")
    (tmp_path / "a" / "._1.png").write_bytes(b"\0\5\x16\7Mac OS X")  # as macOS writes them beside pictures
    assert len(load_scenes(read_labels([tmp_path]), CPU)) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("b.png,1,2,3,4,1\n", r"row 0: no picture 'b\.png'"),
        ("a.png,1,2,3,4,1\na.png,1,two,3,4,1\n", "row 1: expected numbers"),
        ("a.png,1,2\n", "row 0: expected numbers"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, lines: str, message: str) -> None:
    _write(tmp_path, ["a.png"], lines)
    with pytest.raises(DatasetError, match=message):
        read_labels([tmp_path])


def test_a_line_that_ends_before_the_picture_is_named(tmp_path: Path) -> None:
    _write(tmp_path, ["a.png"], "")
    (tmp_path / "faces.csv").write_text("x0,y0,x1,y1,score,image\n1,2,3,4,1,a.png\n1,2,3\n")
    with pytest.raises(DatasetError, match=r"row 1: no picture '' in the folder"):
        read_labels([tmp_path])


def test_a_folder_without_labels_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="label_scenes"):
        read_labels([tmp_path])


def test_a_photo_is_never_on_both_sides() -> None:
    scenes = [Path(f"scenes/{photo}.jpg") for photo in range(40)]
    crops = [Path(f"crops/{photo}_{face}.jpg") for photo in range(40) for face in (1, 2)]
    paths = (*scenes, *crops)
    labels = Labels(paths, tuple(np.zeros((0, 5), np.float32) for _ in paths))
    train, held_out = split_labels(labels, {"scenes": 10})
    held = {path.stem for path in held_out.paths}
    assert len(held_out.paths) == 10
    assert all(path.parent.name == "scenes" for path in held_out.paths)
    assert not held & {path.stem.partition("_")[0] for path in train.paths}
    assert len(train.paths) == 30 + 60


def test_the_identity_shows_the_picture_and_nothing_beside_it(tmp_path: Path) -> None:
    picture = _write(tmp_path, ["1.png", "2.png"], "1.png,0,0,20,20,1\n")
    scenes = load_scenes(read_labels([tmp_path]), CPU)
    matrix = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[1.0, 0, -8], [0, 1, 4]]])
    views, inside = sample_scenes(scenes, torch.tensor([0, 1]), matrix, 64, torch.full((2,), 0.5))
    shown = views.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(shown[0, :48], picture, atol=1e-3)
    np.testing.assert_allclose(shown[1, :44, 8:], picture[4:, :56], atol=1e-3)
    assert not shown[0, 48:].any()
    assert inside[0].sum() == 48 * 64
    assert inside[1].sum() == 44 * 56


@pytest.mark.parametrize("level", [1, 2, 3])
def test_shrinking_averages(tmp_path: Path, level: int) -> None:
    picture = _write(tmp_path, ["1.png"], "1.png,0,0,20,20,1\n")
    scenes = load_scenes(read_labels([tmp_path]), CPU)
    factor = 2**level
    matrix = geometry.crop(torch.tensor([[0.0, 0, 48, 48]]), 48 // factor)
    views, _ = sample_scenes(scenes, torch.tensor([0]), matrix, 48 // factor, torch.full((1,), 0.5))
    expected = picture[:48, :48].reshape(48 // factor, factor, 48 // factor, factor, 3).mean((1, 3))
    # Each level is rounded to whole gray values.
    np.testing.assert_allclose(views[0].permute(1, 2, 0).numpy(), expected, atol=level)
