from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data.small_sets import write_fer2013
from PIL import Image
from safetensors.torch import load_file
from skimage.data import astronaut
from torch.nn.functional import normalize

from facekit import FaceAnalyzer, preparation
from facekit.augmentation import AugmentConfig
from facekit.configuration import DataConfig, ExpressionConfig, KeypointConfig, TrainConfig, read_config
from facekit.data import resident
from facekit.data.catalog import load_dataset
from facekit.data.holdout import content_hash, held_out
from facekit.data.reading import read_ahead
from facekit.data.samples import Dataset
from facekit.errors import ConfigError, DatasetError, ImageError
from facekit.fitting import FitConfig
from facekit.model import ModelConfig, SharedNetwork
from facekit.preparation import Prepared, prepare
from facekit.schema import EXPRESSIONS, MEAN_FACE
from facekit.training import fit_photo_bias, fit_scaling, train
from facekit.weights import load_weights, seen_by

CPU = torch.device("cpu")
TINY = TrainConfig(
    name="tiny-v0",
    model=ModelConfig(width=16, blocks=(1, 1, 1, 1)),
    fit=FitConfig(epochs=2, optimizer="adamw", learning_rate=1e-3, average=0.5),
    aligner=FitConfig(epochs=1, optimizer="adamw", learning_rate=1e-3),
    data=DataConfig(crop_factor=1.6, held_out={"fer2013": 6, "points": 3}),
    keypoints=KeypointConfig(batch_size=4),
    expression=ExpressionConfig(batch_size=8),
)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory) -> Path:
    """Forty training rows, 0 and 1 the same; six PublicTest rows, the first of which is row 2 again."""
    seeds = [0, 0, *range(2, 40)]
    rows = [f"{k % 7},{' '.join(map(str, picture(seed).ravel()))},Training" for k, seed in enumerate(seeds)]
    seeds = [2, *range(50, 55)]
    rows += [
        f"{k % 7},{' '.join(map(str, picture(seed).ravel()))},PublicTest" for k, seed in enumerate(seeds)
    ]
    return write_fer2013(tmp_path_factory.mktemp("fer2013") / "fer2013.csv", rows)


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "points"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for place in range(10):
        Image.fromarray(rng.integers(0, 256, (120, 120), np.uint8)).save(folder / f"person{place}_1.jpg")
        marks = (np.array(MEAN_FACE) * 60 + 60)[np.arange(68) % 15] + rng.normal(0, 1, (68, 2))
        lines = "\n".join(f"{x:.2f} {y:.2f}" for x, y in marks)
        (folder / f"person{place}_1.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Class folders of 60x60 pictures, which have to be aligned first."""
    folder = tmp_path_factory.mktemp("sets") / "faces"
    for place in range(12):
        target = folder / EXPRESSIONS[place % 3] / f"{place}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(200 + place).integers(0, 256, (60, 60), np.uint8)).save(target)
    return folder


def run(*arguments: object, **options: object) -> list[int]:
    return [record.epoch for record in train(*arguments, device="cpu", **options)]


def test_a_run_leaves_weights_that_say_what_they_did_not_see(fer2013, points, tmp_path):
    assert run(TINY, [fer2013, points], tmp_path) == [1, 2]
    header = load_weights(tmp_path).header
    held = header["data"]["fer2013"]["held_out_rows"]
    assert 6 <= len(held) <= 7
    assert header["data"]["fer2013"]["train"] + len(held) == 39  # 40 less the double of a PublicTest row
    assert 2 not in held
    assert np.shape(header["frame"]) == (5, 2)
    assert header["training"]["fit"]["epochs"] == 2
    assert (tmp_path / "history.png").stat().st_size > 1000
    seen = (tmp_path / "weights.seen").read_bytes()
    listed = {seen[start : start + 8] for start in range(0, len(seen), 8)}
    rows = [seed for row, seed in enumerate([0, 0, *range(2, 40)]) if row not in held and row != 2]
    assert {content_hash(picture(seed)) for seed in rows} <= listed
    assert not {content_hash(picture(seed)) for seed in (2, *range(50, 55))} & listed


def test_rows_that_earlier_weights_held_out_are_held_out_again(fer2013, points, tmp_path):
    few = replace(TINY, fit=replace(TINY.fit, epochs=1))
    run(few, [fer2013, points], tmp_path / "first")
    other = DataConfig(held_out={"fer2013": 12, "points": 3}, held_out_as=str(tmp_path / "first"))
    run(replace(few, data=other), [fer2013, points], tmp_path / "second")
    first, second = (load_weights(tmp_path / name).header["data"] for name in ("first", "second"))
    assert first == second


def test_returned_rows_are_learnt_from_and_calibration_is_that_of_the_run_without_them(
    fer2013, points, tmp_path
):
    twin, other = tmp_path / "twin", tmp_path / "other"
    run(TINY, [fer2013, points], twin)
    data = DataConfig(crop_factor=1.6, held_out_as=str(twin), returned={"fer2013": 2.0})
    config = replace(TINY, data=data, calibrated_by=str(twin))
    assert run(config, [fer2013, points], other) == [1, 2]
    before, after = load_weights(twin), load_weights(other)
    held = before.header["data"]["fer2013"]["held_out_rows"]
    assert after.header["data"]["fer2013"] == {"train": 39, "held_out_rows": [], "returned_rows": held}
    assert after.header["data"]["points"] == before.header["data"]["points"]
    contents = {content_hash(picture(max(0, row - (row == 1)))) for row in held}
    for folder, seen in ((twin, set()), (other, contents)):
        assert contents & set(seen_by(folder).view("V8").tolist()) == seen
    for part in ("scaling", "temperature", "photo_bias", "sigma_factor"):
        assert after.header[part] == before.header[part]
    figures = [weights.header["held_out_figures"] for weights in (before, after)]
    assert figures[0].keys() == figures[1].keys()
    assert figures[0]["fer2013_nll"] == figures[1]["fer2013_nll"]
    assert figures[0]["nme"] != figures[1]["nme"]
    scaling = before.header["scaling"]["fer2013"]
    learnt = load_file(other / "checkpoint.safetensors")["average.expression_heads.fer2013.bias"]
    expected = torch.tensor(scaling["matrix"]) @ learnt + torch.tensor(scaling["bias"])
    assert (expected - learnt).abs().max() > 0.01
    torch.testing.assert_close(after.network.expression_heads["fer2013"].bias, expected, atol=1e-3, rtol=0)
    again = prepared_from(replace(config, data=replace(data, held_out_as=str(other))), fer2013, out=tmp_path)
    part = again.expressions["fer2013"]
    assert [int(key.split(":")[1]) for key in part.keys[part.returned]] == held
    assert part.samples.draws.tolist() == np.where(part.returned, 2.0, 1.0).tolist()


@pytest.mark.parametrize(
    "half", [{"calibrated_by": "default"}, {"data": DataConfig(returned={"fer2013": 1.0})}]
)
def test_returned_rows_and_other_weights_calibration_go_together(fer2013, points, tmp_path, half):
    with pytest.raises(ConfigError, match="returned and calibrated_by: expected both"):
        run(replace(TINY, **half), [fer2013, points], tmp_path)


def test_pictures_held_out_that_the_weights_before_know_are_told_of(fer2013, points, tmp_path, caplog):
    first = replace(TINY, fit=replace(TINY.fit, epochs=1))
    run(first, [fer2013, points], tmp_path / "first")
    run(replace(first, start=str(tmp_path / "first")), [fer2013, points], tmp_path / "same")
    assert "too sure" not in caplog.text
    more = replace(first.data, held_out={"fer2013": 12, "points": 3})
    run(replace(first, start=str(tmp_path / "first"), data=more), [fer2013, points], tmp_path / "more")
    few, many = (load_weights(tmp_path / name).header["data"]["fer2013"] for name in ("first", "more"))
    known = set(many["held_out_rows"]) - set(few["held_out_rows"])
    assert f"fer2013: the weights to begin with know {len(known)} of the pictures held out" in caplog.text
    assert known


def test_weights_that_tell_no_calibration_of_the_heads_calibrate_nothing(fer2013, points, tmp_path):
    run(TINY, [points], tmp_path / "first")
    config = replace(TINY, data=replace(TINY.data, returned={"fer2013": 1.0}))
    with pytest.raises(ConfigError, match="tells of no calibration"):
        run(replace(config, calibrated_by=str(tmp_path / "first")), [fer2013, points], tmp_path / "second")
    assert not (tmp_path / "second" / "history.csv").exists()


def test_a_resumed_run_ends_as_an_unbroken_one(fer2013, points, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "whole")
    broken = train(TINY, [fer2013, points], tmp_path / "broken", device="cpu")
    assert next(broken).epoch == 1
    broken.close()
    assert run(TINY, [fer2013, points], tmp_path / "broken", resume=True) == [2]
    whole, resumed = (load_weights(tmp_path / name).network.state_dict() for name in ("whole", "broken"))
    for name, tensor in whole.items():
        np.testing.assert_array_equal(tensor.numpy(), resumed[name].numpy(), err_msg=name)


def test_pictures_outside_the_frame_are_aligned_by_a_network_trained_first(fer2013, points, faces, tmp_path):
    assert run(TINY, [fer2013, points, faces], tmp_path) == [1, 1, 2]
    assert (tmp_path / "aligner" / "history.csv").is_file()
    assert load_weights(tmp_path).header["data"]["faces"]["train"] == 12


def test_weights_to_begin_with_align_the_pictures(fer2013, points, faces, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "first")
    assert run(replace(TINY, start=str(tmp_path / "first")), [fer2013, points, faces], tmp_path) == [1, 2]
    first, second = (load_weights(tmp_path / name) for name in ("first", "."))
    assert second.header["frame"] == first.header["frame"]
    assert second.header["data"]["faces"]["train"] == 12


def test_a_resumed_run_does_not_align_again(fer2013, points, faces, tmp_path, monkeypatch):
    reframed = replace(TINY, data=replace(TINY.data, reframed=(1.0,)))
    run(reframed, [fer2013, points, faces], tmp_path)
    first = (tmp_path / "weights.safetensors").read_bytes()
    monkeypatch.setattr(preparation.PictureAligner, "__call__", None)
    run(reframed, [fer2013, points, faces], tmp_path, resume=True)
    assert (tmp_path / "weights.safetensors").read_bytes() == first


def test_a_resumed_run_aligns_pictures_that_are_new(fer2013, points, faces, tmp_path):
    more = shutil.copytree(faces, tmp_path / "faces")
    run(TINY, [fer2013, points, more], tmp_path / "out")
    shutil.copy(more / EXPRESSIONS[0] / "0.png", more / EXPRESSIONS[0] / "1.png")
    run(TINY, [fer2013, points, more], tmp_path / "out", resume=True)
    assert load_weights(tmp_path / "out").header["data"]["faces"]["train"] == 13


def test_framed_faces_are_cut_on_the_way_to_the_aligned_ones():
    canvases = np.pad(picture(0), 8, mode="edge")[None]
    further = np.array([[[1.0, 0.0, 4.0], [0.0, 1.0, -6.0]]])
    given, half, whole = resident.reframed_canvases(canvases, lambda grays: further, (0, 0.5, 1))
    np.testing.assert_array_equal(given, canvases)
    np.testing.assert_array_equal(half[0, 11:, :-10], canvases[0, 8:-3, 2:-8])
    np.testing.assert_array_equal(whole[0, 14:, :-12], canvases[0, 8:-6, 4:-8])


def test_framed_faces_are_drawn_in_other_crops_too(fer2013, points, tmp_path):
    reframed = replace(TINY, data=replace(TINY.data, reframed=(0.5, 1.0)))
    part = prepared_from(reframed, fer2013, points, out=tmp_path).expressions["fer2013"]
    seen = part.train(~part.held_out)
    assert sum(float(samples.draws.sum()) for samples in seen) == pytest.approx((~part.held_out).sum())
    first, *others = seen
    assert len(others) == 2
    for other in others:
        assert torch.equal(other.targets, first.targets)
        assert not torch.equal(other.canvases, first.canvases)


def test_two_datasets_of_one_name_are_refused(fer2013, points, faces, tmp_path):
    other = shutil.copytree(faces, tmp_path / "faces")
    with pytest.raises(DatasetError, match="both named 'faces'"):
        run(TINY, [fer2013, points, faces, other], tmp_path / "out")


def test_pictures_of_other_splits_that_cannot_be_read_are_left_out(
    fer2013, points, tmp_path, monkeypatch, caplog
):
    def unreadable(dataset: Dataset, places: np.ndarray) -> Iterator[tuple[int, object]]:
        for place, picture in read_ahead(dataset, places):
            broken = dataset.splits[place] == "validation"
            yield place, ImageError("cannot be decoded") if broken else picture

    monkeypatch.setattr(resident, "read_ahead", unreadable)
    assert run(replace(TINY, fit=replace(TINY.fit, epochs=1)), [fer2013, points], tmp_path) == [1]
    assert "6 pictures are left out" in caplog.text


def test_a_set_without_training_rows_is_named(points, tmp_path):
    rows = [f"{k},{' '.join(map(str, picture(k).ravel()))},PublicTest" for k in range(3)]
    table = write_fer2013(tmp_path / "fer2013.csv", rows)
    with pytest.raises(DatasetError, match="no faces to train on among 0"):
        run(TINY, [table, points], tmp_path / "out")


def test_points_without_eye_corners_leave_weights_without_an_error_of_points(tmp_path):
    folder = tmp_path / "mtfl"
    folder.mkdir()
    lines = ["path,split,leye_x,reye_x,nose_x,lmouth_x,rmouth_x,leye_y,reye_y,nose_y,lmouth_y,rmouth_y"]
    for place in range(10):
        Image.fromarray(np.random.default_rng(place).integers(0, 256, (120, 120), np.uint8)).save(
            folder / f"{place}.png"
        )
        lines.append(f"{place}.png,train,45,75,60,48,72,50,50,62,75,75")
    (folder / "points.csv").write_text("\n".join(lines))
    one = replace(TINY, fit=replace(TINY.fit, epochs=1), data=DataConfig(held_out={"mtfl": 3}))
    run(one, [folder], tmp_path / "out")
    assert load_weights(tmp_path / "out").header["held_out_figures"]["nme"] is None


def test_a_head_without_held_out_rows_keeps_its_temperature(fer2013, points, faces, tmp_path):
    held = DataConfig(held_out={"faces": 4, "points": 3})
    heads = replace(TINY.model, heads={"fer2013": EXPRESSIONS, "raf_db": EXPRESSIONS})
    run(replace(TINY, data=held, model=heads), [fer2013, points, faces], tmp_path)
    temperature = load_weights(tmp_path).header["temperature"]
    assert temperature["fer2013"] != 1.0
    assert temperature["raf_db"] == 1.0


def of_logits(logits: torch.Tensor, labels: torch.Tensor) -> SimpleNamespace:
    """Stand in for an objective whose FER2013 rows a network answers so; other sets are all of one class."""
    others = torch.zeros(50, 7), torch.zeros(50, dtype=torch.int64)
    rows = {"fer2013": (logits, labels), "raf_db": others}
    return SimpleNamespace(held_out={name: name for name in rows}, answers=lambda _, name: rows[name])


def test_the_default_head_learns_how_frequent_expressions_are():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 7, generator=generator) * 2
    lacking = torch.tensor([-1.0, -0.5, 0, 0.5, 1, 0, 0])
    labels = torch.multinomial(((logits + lacking) / 1.3).softmax(1), 1, generator=generator)[:, 0]
    matrix, bias = fit_scaling(of_logits(logits, labels), torch.nn.Identity())
    torch.testing.assert_close(bias - bias.mean(), lacking - lacking.mean(), atol=0.2, rtol=0)
    assert (matrix - torch.eye(7)).abs().max() < 0.1
    _, wrong = fit_scaling(of_logits(-logits, labels), torch.nn.Identity())
    assert wrong.abs().max() < 3
    _, few = fit_scaling(of_logits(torch.zeros(3, 7), torch.tensor([0, 0, 1])), torch.nn.Identity())
    assert few.abs().max() < 1.5


def test_the_default_head_learns_which_expressions_are_taken_for_one_another():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20000, 7, generator=generator) * 2
    mixed = torch.eye(7)
    mixed[2, 4], mixed[0, 0] = 0.15, 0.85
    labels = torch.multinomial((logits @ mixed.T).softmax(1), 1, generator=generator)[:, 0]
    matrix, _ = fit_scaling(of_logits(logits, labels), torch.nn.Identity())
    unlike = matrix - torch.eye(7)
    assert unlike[2, 4] > 0.08 > 3 * unlike[4, 2].abs()
    assert unlike[0, 0] - unlike.diag()[1:].mean() < -0.08


def test_a_set_of_photos_tells_how_frequent_expressions_are_in_them(fer2013, points, faces, tmp_path):
    logits = torch.randn(20_000, 7, generator=torch.Generator().manual_seed(0))
    bias = torch.tensor([0.5, -1.0, 0.2, 0.0, 1.0, -0.5, -0.2])
    labels = (logits / 0.8 + bias).softmax(1).multinomial(1, generator=torch.Generator().manual_seed(1))[:, 0]
    found = torch.tensor(fit_photo_bias(logits, labels, 0.8))
    assert torch.allclose(found - found.mean(), bias - bias.mean(), atol=0.1)
    assert fit_photo_bias(logits[:0], labels[:0], 0.8) == [0.0] * 7
    photos = replace(TINY, expression=replace(TINY.expression, photos="faces"))
    run(photos, [fer2013, points, faces], tmp_path)
    told = load_weights(tmp_path).header["photo_bias"]["fer2013"]
    # The class folders hold the first three expressions alone.
    assert min(told[:3]) > max(told[3:])


def test_a_set_of_photos_that_is_not_among_the_data_is_missed(fer2013, points, tmp_path, caplog):
    run(replace(TINY, expression=replace(TINY.expression, photos="faces")), [fer2013, points], tmp_path)
    assert "photos = 'faces'" in caplog.text
    assert load_weights(tmp_path).header["photo_bias"] == {}


def test_what_maps_logits_maps_their_mean():
    torch.manual_seed(0)
    network = SharedNetwork(replace(TINY.model, members=2)).eval()
    crops, matrix, bias = torch.rand(2, 1, 48, 48), torch.rand(7, 7), torch.arange(7.0)
    with torch.inference_mode():
        before = network.expression(crops)["fer2013"].mean(1)
    network.map_logits("fer2013", matrix, bias)
    with torch.inference_mode():
        after = network.expression(crops)["fer2013"].mean(1)
    torch.testing.assert_close(after, before @ matrix.T + bias)


def test_folds_predict_every_row_once_by_a_network_that_did_not_see_it(fer2013, points, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "folds", folds=2)
    stored = np.load(tmp_path / "folds" / "folds.npz")
    assert len(stored["keys"]) == len(set(stored["keys"])) == 39 - len(held_rows(fer2013, points, tmp_path))
    np.testing.assert_allclose(stored["probabilities"].sum(1), 1, atol=1e-5)

    student = replace(TINY, expression=replace(TINY.expression, distill=0.5))
    assert run(student, [fer2013, points], tmp_path / "student") == [1, 2]


def prepared_from(config: TrainConfig, *data: Path, out: Path) -> Prepared:
    steps = prepare(config, [load_dataset(path) for path in data], out, CPU, False)
    while True:
        try:
            next(steps)
        except StopIteration as stopped:
            return stopped.value


def held_rows(fer2013: Path, points: Path, tmp_path: Path) -> list[int]:
    return prepared_from(TINY, fer2013, points, out=tmp_path).record["fer2013"]["held_out_rows"]


def test_distillation_without_folds_says_what_to_do(fer2013, points, tmp_path):
    student = replace(TINY, expression=replace(TINY.expression, distill=0.5))
    with pytest.raises(ConfigError, match="train --folds first"):
        run(student, [fer2013, points], tmp_path / "student")


def test_a_student_learns_from_teachers_and_counts_what_they_have_seen(fer2013, points, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run(TINY, [fer2013, points], first)
    part = replace(TINY.expression, distill=0.75, teachers=(str(first), "default"))
    run(replace(TINY, expression=part), [fer2013, points], second)
    taught = load_weights(second)
    assert taught.header["training"]["expression"]["teachers"] == [str(first), "default"]
    assert not torch.equal(
        *(weights.network.expression_heads["fer2013"].weight for weights in (taught, load_weights(first)))
    )
    seen, by_teacher = (set(seen_by(weights).tolist()) for weights in (second, "default"))
    assert by_teacher < seen


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"teachers": ("default",)}, "distill, their share, is 0"),
        ({"teachers": ("points",), "distill": 0.5}, "a teacher needs the head 'fer2013'"),
    ],
)
def test_teachers_that_cannot_teach_are_refused(fer2013, points, tmp_path, monkeypatch, settings, says):
    monkeypatch.chdir(tmp_path)
    if settings["teachers"] == ("points",):
        run(TINY, [points], tmp_path / "points")
    with pytest.raises(ConfigError, match=says):
        run(replace(TINY, expression=replace(TINY.expression, **settings)), [fer2013, points], tmp_path / "x")


def test_a_run_begins_with_given_weights(fer2013, points, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "first")
    idle = replace(TINY, start=str(tmp_path / "first"), fit=replace(TINY.fit, learning_rate=0.0, epochs=1))
    run(idle, [fer2013, points], tmp_path / "second")
    first, second = (load_weights(tmp_path / name) for name in ("first", "second"))
    assert second.header["training"]["start"] == str(tmp_path / "first")
    for name, tensor in first.network.named_parameters():
        if name == "expression_heads.fer2013.bias":
            continue  # it is calibrated anew
        ways = [
            normalize(part.detach().flatten(), dim=0) for part in (tensor, second.network.get_parameter(name))
        ]
        torch.testing.assert_close(*ways, atol=1e-3, rtol=0, msg=name)

    with pytest.raises(ConfigError, match="another network"):
        run(replace(idle, model=replace(TINY.model, width=8)), [fer2013, points], tmp_path / "third")
    with pytest.raises(ConfigError, match="have seen the folds' rows"):
        run(idle, [fer2013, points], tmp_path / "fourth", folds=2)


def test_a_run_begins_with_an_average(fer2013, points, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "first")
    run(replace(TINY, model=replace(TINY.model, tasks=("expression",))), [fer2013], tmp_path / "second")
    averaged = replace(TINY, averaged={str(tmp_path / "second"): 0.5})
    with pytest.raises(ConfigError, match="averaged: expected start"):
        run(averaged, [fer2013, points], tmp_path / "third")
    run(replace(averaged, start=str(tmp_path / "first")), [fer2013, points], tmp_path / "third")
    assert load_weights(tmp_path / "third").header["training"]["averaged"] == averaged.averaged


def test_an_ensemble_begins_with_other_weights(fer2013, points, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "first")
    joined = (str(tmp_path / "first"),)
    ensemble = replace(TINY, model=replace(TINY.model, members=2), joined=joined)
    with pytest.raises(ConfigError, match="joined: expected start"):
        run(ensemble, [fer2013, points], tmp_path / "second")
    run(replace(ensemble, start=joined[0]), [fer2013, points], tmp_path / "second")
    second = load_weights(tmp_path / "second")
    assert second.header["training"]["joined"] == list(joined)
    assert second.network.config.members == 2
    crops = torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, further = second.network.expression(crops)["fer2013"].unbind(1)
    assert not torch.allclose(first, further)


RUN = """
[model]
width = 16
blocks = [1, 1, 1, 1]
[fit]
epochs = 1
[aligner]
epochs = 1
[keypoints]
batch_size = 4
[expression]
batch_size = 8
distill = 0.5
"""


def test_runs_that_a_configuration_names_come_first(fer2013, points, tmp_path, caplog):
    caplog.set_level("INFO")
    configs = tmp_path / "configs"
    configs.mkdir()
    plain = RUN.replace("distill = 0.5", "")
    (configs / "first.toml").write_text(plain)
    (configs / "second.toml").write_text(f'start = "first.toml"\n{plain}')
    averaged = 'averaged = { "second.toml" = 0.5 }\n'
    teachers = 'teachers = ["second.toml", "default"]'
    (configs / "third.toml").write_text(f'start = "first.toml"\n{averaged}{RUN}{teachers}')
    config = read_config(configs / "third.toml")
    assert config.weights == (
        *(str(configs / f"{name}.toml") for name in ("first", "second", "second")),
        "default",
    )
    assert run(config, [fer2013, points], tmp_path / "runs" / "third") == [1, 1, 1]
    assert caplog.text.count("trained first") == 2
    assert caplog.text.count("trained already") == 1
    third = load_weights(tmp_path / "runs" / "third")
    assert third.header["training"]["averaged"] == {str(configs / "second.toml"): 0.5}
    with pytest.raises(ConfigError, match="choose another --out"):
        run(config, [fer2013, points], tmp_path / "runs" / "first")


@pytest.mark.parametrize("told", [False, True])
def test_keypoints_alone_go_on_and_expressions_stay(fer2013, points, tmp_path, told):
    run(replace(TINY, data=replace(TINY.data, crop_factor=1.3)), [fer2013, points], tmp_path / "first")
    second = replace(TINY, start=str(tmp_path / "first"), teach=("keypoints",) if told else ())
    second = replace(second, data=replace(TINY.data, crop_factor=0))
    run(second, [fer2013, points] if told else [points], tmp_path / "second")
    first, second = (load_weights(tmp_path / name) for name in ("first", "second"))
    crops = torch.rand(4, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, after = (found.network.expression(crops[..., ::2, ::2]) for found in (first, second))
        moved = [found.network.keypoints(crops)[0] for found in (first, second)]
    assert all(torch.equal(before[head], after[head]) for head in before)
    assert not torch.allclose(*moved)
    assert second.network.config == first.network.config
    for part in ("temperature", "frame", "crop_factor"):
        assert second.header[part] == first.header[part]
    assert second.header["data"].keys() == first.header["data"].keys()
    assert (tmp_path / "second" / "weights.seen").read_bytes() == (
        tmp_path / "first" / "weights.seen"
    ).read_bytes()


def test_expressions_alone_go_on_and_keypoints_stay(fer2013, points, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "first")
    start = replace(TINY, start=str(tmp_path / "first"))
    run(start, [fer2013], tmp_path / "second")
    first, second = (load_weights(tmp_path / name) for name in ("first", "second"))
    crops = torch.rand(4, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for before, after in zip(*(found.network.keypoints(crops) for found in (first, second)), strict=True):
            assert torch.equal(before, after)
    assert second.header["sigma_factor"] == first.header["sigma_factor"]
    shared = replace(start, model=replace(TINY.model, norm_per_task=False))
    with pytest.raises(ConfigError, match="batch norms of their own"):
        run(shared, [fer2013], tmp_path / "third")


def test_a_further_member_learns_and_all_else_stays(fer2013, points, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "first")
    model = replace(TINY.model, members=2)
    grown = replace(TINY, start=str(tmp_path / "first"), model=model, teach=("expression",))
    run(grown, [fer2013, points], tmp_path / "second")
    fresh = replace(grown, fit=replace(TINY.fit, epochs=0))
    run(fresh, [fer2013, points], tmp_path / "third")
    first, second, third = (
        load_weights(tmp_path / name).network.state_dict() for name in ("first", "second", "third")
    )
    kept = [name for name in first if not name.startswith("expression_heads.fer2013.")]  # calibrated anew
    assert all(torch.equal(second[name], first[name]) for name in kept)
    members = [name for name in second if "conv" in name and name.startswith("members.")]
    assert not any(torch.equal(second[name], third[name]) for name in members)


def test_a_start_gives_one_task_to_a_network_of_that_task_alone(fer2013, points, tmp_path):
    run(TINY, [fer2013, points], tmp_path / "first")
    alone = replace(TINY, start=str(tmp_path / "first"), model=replace(TINY.model, tasks=("expression",)))
    run(alone, [fer2013, points], tmp_path / "second")
    second = load_weights(tmp_path / "second")
    assert second.network.config.tasks == ("expression",)
    assert "nme" not in second.header["held_out_figures"]


def test_a_start_that_lacks_a_task_is_refused(fer2013, points, tmp_path):
    run(TINY, [points], tmp_path / "first")
    with pytest.raises(ConfigError, match="another network"):
        run(replace(TINY, start=str(tmp_path / "first")), [fer2013], tmp_path / "second")


def test_expressions_alone_are_learnt_and_the_shipped_weights_do_the_rest(fer2013, faces, tmp_path, caplog):
    assert run(TINY, [fer2013, faces], tmp_path) == [1, 2]
    assert "the data teach expression alone" in caplog.text
    analyzers = [
        FaceAnalyzer("cpu", "none", "fp32", weights=str(tmp_path), backend=backend)
        for backend in ("torch", "onnx")
    ]
    usual = FaceAnalyzer("cpu", "none", "fp32", backend="torch")
    portrait = astronaut()[:200, 120:320]
    for (face,) in (analyzer(portrait) for analyzer in analyzers):
        expected = usual(portrait)[0]
        np.testing.assert_allclose(face.keypoints.xy, expected.keypoints.xy, atol=0.01)
        np.testing.assert_allclose(face.keypoints.sigma, expected.keypoints.sigma, atol=0.01)
        assert abs(face.expression.confidence - expected.expression.confidence) > 0.01
    found = [list(analyzer(portrait)[0].expression.scores.values()) for analyzer in analyzers]
    np.testing.assert_allclose(*found, atol=1e-4)


def test_keypoints_alone_are_learnt_and_the_shipped_weights_do_the_rest(points, tmp_path):
    several = replace(TINY, keypoints=replace(TINY.keypoints, batch_size=2))
    assert run(several, [points], tmp_path) == [1, 2]
    portrait = astronaut()[:200, 120:320]
    own, usual = (
        FaceAnalyzer("cpu", "none", "fp32", weights=weights, backend="torch")(portrait)[0]
        for weights in (str(tmp_path), "default")
    )
    assert np.abs(own.keypoints.xy - usual.keypoints.xy).max() > 1
    assert own.expression.scores.keys() == usual.expression.scores.keys()


def test_data_that_teach_no_task_are_refused_before_the_work_begins(points, fer2013, tmp_path):
    alone = replace(TINY, model=replace(TINY.model, tasks=("expression",)))
    with pytest.raises(DatasetError, match="no labels for expression"):
        run(alone, [points], tmp_path)
    with pytest.raises(ConfigError, match="folds is 1"):
        run(TINY, [fer2013, points], tmp_path, folds=1)


def test_one_task_is_trained_on_its_labels_alone(fer2013, points, tmp_path):
    alone = replace(TINY, model=replace(TINY.model, tasks=("expression",)))
    assert run(alone, [fer2013, points], tmp_path) == [1, 2]
    assert load_weights(tmp_path).header["frame"] == load_weights().header["frame"]


def test_held_out_rows_do_not_depend_on_order_and_keep_doubles_together():
    keys = [content_hash(picture(seed)) for seed in [*range(30), 4, 4]]
    mask = held_out(keys, 10)
    assert 10 <= mask.sum() <= 12
    assert mask[4] == mask[30] == mask[31]
    np.testing.assert_array_equal(held_out(keys[::-1], 10), mask[::-1])
    assert not held_out(keys, 0).any()


def test_a_configuration_is_read_table_by_table(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'name = "x"\n[model]\nwidth = 24\nblocks = [1, 1, 2, 2]\n[fit]\nlearning_rate = 1\n'
        "[keypoints]\naugment = { rotation = 5 }\n"
    )
    config = read_config(file)
    assert (config.name, config.model.width, config.model.blocks) == ("x", 24, (1, 1, 2, 2))
    assert config.fit.learning_rate == 1.0
    assert config.keypoints.augment == AugmentConfig(rotation=5.0, low_resolution=0.3)
    assert config.expression == TrainConfig().expression


def test_a_configuration_extends_another_key_by_key(tmp_path):
    (tmp_path / "base.toml").write_text(
        'name = "base"\naveraged = { default = 0.5 }\n[fit]\nepochs = 3\nseed = 7\n'
        "[expression.augment]\nrotation = 5\n"
    )
    (tmp_path / "middle.toml").write_text('extends = "base.toml"\n[expression.augment]\nnoise = 0\n')
    file = tmp_path / "run.toml"
    file.write_text(
        'extends = "middle.toml"\nname = "run"\nstart = "base.toml"\naveraged = { other = 0.1 }\n'
        "[fit]\nepochs = 4\n"
    )
    config = read_config(file)
    assert (config.name, config.fit.epochs, config.fit.seed) == ("run", 4, 7)
    assert config.averaged == {"other": 0.1}
    assert config.expression.augment == AugmentConfig(rotation=5.0, noise=0.0)
    assert config.start == str(tmp_path / "base.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nwidht = 3", "unknown key 'widht'"),
        ("[fitt]", "unknown key 'fitt'"),
        ("= 3", "as TOML"),
        ("model = 3", "expected a table"),
        ('extends = "run.toml"', "extends itself"),
        ('extends = "none.toml"', r"none\.toml: cannot be read"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path, text, message):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(file)


def without_returned_rows(config: TrainConfig, name: str, **changes: str) -> TrainConfig:
    data = replace(config.data, returned={})
    return replace(config, name=name, calibrated_by="", data=data, **changes)


def test_the_shipped_configurations_are_readable():
    folder = Path(__file__).parents[1] / "configs"
    shipped = read_config(folder / "shipped.toml")
    twin_mean, returned = (read_config(name) for name in (shipped.calibrated_by, shipped.start))
    assert without_returned_rows(shipped, twin_mean.name, start=twin_mean.start) == twin_mean
    twin, halfway = (read_config(name) for name in twin_mean.weights)
    assert without_returned_rows(returned, twin.name) == twin
    assert returned.calibrated_by == twin_mean.start
    assert shipped.weights[1] == twin.start == twin_mean.weights[1]
    reframed, beside = (read_config(name) for name in halfway.weights)
    assert reframed.start == halfway.weights[1]
    assert reframed.model == beside.model == shipped.model
    closer, third = (read_config(name) for name in beside.weights)
    assert third.start == closer.start
    assert third.model == shipped.model
    further_mean = read_config(read_config(third.start).start)
    further, refitted = (read_config(name) for name in further_mean.weights)
    settled = read_config(refitted.start)
    again, fitted = (read_config(name) for name in settled.weights)
    blend = read_config(fitted.start)
    ensemble, joined = (read_config(name) for name in blend.weights)
    points = read_config(joined.start)
    mean = read_config(points.start)
    longer, first, restart = (read_config(name) for name in mean.weights)
    assert first.data.held_out["fer2013"] >= 3000
    pair = replace(shipped.model, members=2)
    for trained, averaged in ((further, further_mean), (again, settled), (ensemble, blend)):
        assert trained.start == averaged.weights[1]
        assert trained.model == averaged.model == pair
    assert longer.start == restart.start == mean.weights[1]
    assert joined.joined == mean.weights[2:]
    assert first.model.heads["fer2013"] == EXPRESSIONS
    assert joined.model == fitted.model == refitted.model == pair
    assert longer.model == mean.model == points.model == replace(shipped.model, members=1)
    assert first.model == restart.model == replace(longer.model, blocks=(1, 1, 2, 2))
    expressions = read_config(third.joined[0])
    assert expressions.model == replace(restart.model, tasks=("expression",))
