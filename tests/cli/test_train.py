from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekit.schema import EXPRESSIONS, MEAN_FACE

TINY = """
name = "tiny-v0"
[model]
width = 16
blocks = [1, 1, 1, 1]
[fit]
epochs = 2
seed = 1
[aligner]
epochs = 1
[data]
held_out = {points = 4, faces = 6}
[keypoints]
batch_size = 4
[expression]
batch_size = 4
"""


@pytest.fixture
def folders(tmp_path, save_picture) -> tuple[Path, Path, Path]:
    """Pictures with 68 points, pictures in class folders, and a quick configuration."""
    rng = np.random.default_rng(0)
    for place in range(12):
        save_picture(tmp_path / "points" / f"person{place}_1.jpg", place, (120, 120))
        fifteen = np.array(MEAN_FACE) * 60 + 60 + rng.normal(0, 2, 2)
        points = fifteen[np.arange(68) % 15] + rng.normal(0, 1, (68, 2))
        rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in points)
        (tmp_path / "points" / f"person{place}_1.pts").write_text(
            f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n"
        )
        folder = tmp_path / "faces" / EXPRESSIONS[place % 3]
        for copy in range(2):
            save_picture(folder / f"{place}_{copy}.png", 100 + 2 * place + copy, (48, 48))
    config = tmp_path / "tiny.toml"
    config.write_text(TINY)
    return tmp_path / "points", tmp_path / "faces", config


def test_a_tiny_run_gives_weights_that_predict_can_use(facekit, folders, tmp_path):
    points, faces, config = folders
    out = tmp_path / "run"
    # --data takes several paths, as the shell's globs give them
    done = facekit(
        "train", "--config", config, "--data", points, faces, "--out", out, "--epochs", 1, "--seed", 3
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("epoch 1/1  ")
    assert (out / "history.csv").is_file()
    picture = next(points.glob("*.jpg"))
    found = facekit("predict", picture, "--detector", "none", "--weights", out / "weights.safetensors")
    assert found.exit_code == 0, found.output
    assert ": 1 face: " in found.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arch", "nonsense"], "unknown architecture 'nonsense': expected shared"),
        (["--config", "missing.toml"], "missing.toml"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_2(facekit, tmp_path, options, message):
    done = facekit("train", "--data", tmp_path, "--out", tmp_path / "run", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_data_that_are_not_there(facekit, tmp_path):
    done = facekit("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
