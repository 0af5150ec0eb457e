from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path, save_picture):
    for k in range(6):
        save_picture(tmp_path / "set" / ("happy" if k % 2 else "sad") / f"{k}.png", seed=k, size=(50, 50))
    return tmp_path / "set"


def test_a_folder_is_cross_checked(facekit, untrained, folder, tmp_path):
    done = facekit("crosscheck", folder, "--out", tmp_path / "out", "--weights", untrained)
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "out" / "report.html") in done.stdout
    assert "suspect labels:" in done.stdout
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["n"] == 6


def test_json_goes_to_stdout_alone_and_faulty_rows_make_exit_1(facekit, untrained, folder, tmp_path):
    (folder / "sad" / "broken.png").write_bytes(b"")
    options = ("--weights", untrained, "--json", "-", "--write-clean", tmp_path / "clean.csv")
    done = facekit("crosscheck", folder, "--out", tmp_path / "out", *options)
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)["skipped"]) == 1
    assert "broken.png" in done.stderr
    assert len((tmp_path / "clean.csv").read_text().splitlines()) == 7
    strict = facekit("crosscheck", folder, "--out", tmp_path / "strict", "--weights", untrained, "--strict")
    assert strict.exit_code == 2
    assert "broken.png" in strict.stderr
    assert not (tmp_path / "strict" / "summary.json").exists()


@pytest.mark.parametrize("command", [["evaluate"], ["crosscheck", "--out", "out"]])
def test_pictures_that_all_fail_are_listed_and_make_exit_2(
    facekit, untrained, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    for name in ("happy/a.png", "sad/b.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(b"")
    name, *options = command
    done = facekit(name, "set", *options, "--weights", untrained, "--json", "-")
    assert done.exit_code == 2
    found = json.loads(done.stdout)
    assert (found["n"], len(found["skipped"])) == (0, 2)


def test_votes_for_another_dataset_are_refused(facekit, untrained, folder, tmp_path):
    votes = Path(tmp_path / "fer2013new.csv")
    votes.write_text("Usage,Image name\n")
    done = facekit("crosscheck", folder, "--out", tmp_path, "--weights", untrained, "--reference", votes)
    assert done.exit_code == 2
    assert "FER2013" in done.stderr


def test_fer2013_with_votes_is_judged(facekit, untrained, tmp_path):
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (60, 6, 6), np.uint8)
    pictures = [np.asarray(Image.fromarray(s).resize((48, 48), Image.Resampling.BICUBIC)) for s in small]
    rows = [f"{k % 7},{' '.join(map(str, p.ravel()))},PublicTest" for k, p in enumerate(pictures)]
    rows.append(rows[0].replace("PublicTest", "Training"))  # of which the votes need not know
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    names = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = np.eye(10, dtype=int)[random.integers(0, 7, 60)] * 10
    lines = [f"PublicTest,x.png,{','.join(map(str, row))}" for row in votes]
    (tmp_path / "votes.csv").write_text(f"Usage,Image name,{names}\n" + "\n".join(lines) + "\n")
    options = ("--weights", untrained, "--reference", tmp_path / "votes.csv", "--out", tmp_path / "out")
    done = facekit("crosscheck", tmp_path / "fer2013.csv", "--split", "PublicTest", *options)
    assert done.exit_code == 0, done.output
    reference = json.loads((tmp_path / "out" / "summary.json").read_text())["reference"]
    assert reference["n"] == 60
    assert 0 <= reference["macro_within_class_auroc"] <= 1
    assert f"within classes: {reference['macro_within_class_auroc']:.4f}" in done.stdout
