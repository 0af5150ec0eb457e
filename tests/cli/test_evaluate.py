from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made import class_folders

from facekit.data.holdout import content_hash


@pytest.fixture
def fer2013(tmp_path, monkeypatch) -> Path:
    """A table of 40 rows in FER2013's form; its cache lies beside it."""
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    lines = ["emotion,pixels,Usage"]
    for row in range(40):
        pixels = " ".join(map(str, rng.integers(0, 256, 48 * 48)))
        lines.append(f"{row % 7},{pixels},{'Training' if row < 30 else 'PublicTest'}")
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def evaluate(facekit, untrained):
    return lambda *arguments: facekit("evaluate", *arguments, "--weights", untrained, "--device", "cpu")


def test_the_object_of_the_contract(evaluate, fer2013):
    done = evaluate(fer2013, "--json", "-")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    keys = ["dataset", "format", "split", "n", "weights", "skipped", "expression", "keypoints"]
    assert [key for key in found if key in keys] == keys
    assert (found["dataset"], found["format"], found["split"]) == (str(fer2013), "fer2013", None)
    assert (found["n"], found["weights"], found["skipped"]) == (40, "untrained-0", [])
    assert found["keypoints"] is None
    assert 0 <= found["expression"]["accuracy"] <= 1


def test_split_limit_and_file(evaluate, fer2013, tmp_path):
    target = tmp_path / "figures.json"
    assert evaluate(fer2013, "--split", "publictest", "--json", target).stdout == ""
    assert json.loads(target.read_text())["n"] == 10
    assert json.loads(evaluate(fer2013, "--limit", "7", "--json", "-").stdout)["n"] == 7


def test_text_names_the_main_figures(evaluate, fer2013):
    done = evaluate(fer2013, "--tta")
    assert done.exit_code == 0
    first, second, *figures = done.stdout.splitlines()
    assert first == f"{fer2013} (fer2013): 40 rows, weights untrained-0"
    assert second == "expression: 40 faces, 0 not found"
    assert [line.split()[0] for line in figures][:3] == ["accuracy", "balanced_accuracy", "macro_f1"]


def test_labels_that_the_model_does_not_tell_are_told(evaluate, tmp_path):
    folder = class_folders(tmp_path / "set", {"happy": 3, "contempt": 2})
    _, expression, others, *_ = evaluate(folder).stdout.splitlines()
    assert expression.startswith("expression: 3 faces")
    assert others.endswith("with labels that the model does not tell: 2 contempt")


def test_pictures_that_the_weights_were_trained_on_are_told(evaluate, fer2013, untrained):
    table = [line.split(",")[1] for line in fer2013.read_text().splitlines()[1:13]]
    pictures = [np.array(pixels.split(), np.uint8).reshape(48, 48) for pixels in table]
    listed = Path(untrained).with_suffix(".seen")
    listed.write_bytes(b"".join(sorted(content_hash(picture) for picture in pictures)))
    try:
        told = evaluate(fer2013).stdout.splitlines()[1]
    finally:
        listed.unlink()
    assert told == "12 were in the weights' training data; figures are too good"


def test_a_bad_row_is_named_and_makes_exit_1_or_2_when_strict(evaluate, fer2013):
    lines = fer2013.read_text().splitlines()
    lines[4] = "3,1 2 3,Training"
    fer2013.write_text("\n".join(lines) + "\n")
    done = evaluate(fer2013, "--json", "-")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["n"] == 39
    (skipped,) = found["skipped"]
    assert skipped["row"] == 3
    assert done.stderr.startswith("facekit: row 3, ")
    strict = evaluate(fer2013, "--json", "-", "--strict")
    assert (strict.exit_code, strict.stdout) == (2, "")
    assert strict.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "options", [["--split", "nonsense"], ["--format", "nonsense"], ["--head", "nonsense"]]
)
def test_wrong_settings_are_one_line_and_exit_2(evaluate, fer2013, options):
    done = evaluate(fer2013, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "nonsense" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_dataset_that_is_not_there(evaluate, tmp_path):
    done = evaluate(tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1
