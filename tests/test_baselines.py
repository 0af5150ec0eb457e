from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import made
import numpy as np
import pytest
import torch
from data.small_sets import numbers, write_fer2013

from facekit import FaceAnalyzer, evaluate, imagenet, plots
from facekit.backends.torch import BaselineBranch
from facekit.baseline_training import BaselineTrainConfig, default_config, train_baseline
from facekit.baselines import BASELINES, BaselineConfig, BaselineNetwork, describe_baselines, standard
from facekit.baselines.standard import Standard
from facekit.configuration import DataConfig, read_settings
from facekit.errors import ConfigError, DatasetError, WeightsError
from facekit.fitting import FitConfig
from facekit.imagenet import download
from facekit.schema import DEFAULT_HEAD, EXPRESSIONS, INPUT_SIZE, KEYPOINTS, LABEL_SETS
from facekit.weights import load_stages, load_weights, shipped

CONFIGS = Path(__file__).parents[1] / "configs" / "baselines"


def bars(label: int, seed: int) -> np.ndarray:
    """A noisy picture (48, 48) with a bright bar whose height tells the class, the same when mirrored."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(40, 110, (48, 48)).astype(np.uint8)
    picture[4 + 6 * label : 9 + 6 * label] += 120
    return picture


def write_bars(path: Path, training: Sequence[int], public: Sequence[int]) -> Path:
    rows = [
        f"{label},{numbers(bars(label, seed))},{usage}"
        for seed, (label, usage) in enumerate(
            [(label, "Training") for label in training] + [(label, "PublicTest") for label in public]
        )
    ]
    return write_fer2013(path, rows)


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory) -> Path:
    """Happy is four times as frequent as the rest; PublicTest has five of each."""
    training = [*np.repeat([0, 1, 2, 4, 5, 6], 16), *[3] * 64]
    order = np.random.default_rng(0).permutation(len(training))
    folder = tmp_path_factory.mktemp("fer2013")
    return write_bars(folder / "fer2013.csv", np.array(training)[order].tolist(), [*range(7)] * 5)


def config(arch: str, epochs: int = 1, **model: object) -> BaselineTrainConfig:
    start = default_config(arch)
    return replace(
        start,
        model=BaselineConfig(arch, **model),
        fit=replace(start.fit, epochs=epochs, average=0.8),
        expression=replace(
            start.expression, batch_size=16, watched=30, augment=plain(), late_augment=plain()
        ),
        keypoints=replace(start.keypoints, batch_size=8, watched=6),
    )


def plain():
    """No shifts: they would move the bars to another class."""
    return replace(default_config("simple_cnn").expression.augment, shift=0.0)


def run(*arguments: object, **options: object) -> list[dict[str, float]]:
    return [record.figures for record in train_baseline(*arguments, device="cpu", **options)]


@pytest.fixture(scope="module")
def trained(fer2013, tmp_path_factory) -> Path:
    """A simple CNN that has learnt the bars."""
    folder = tmp_path_factory.mktemp("runs") / "simple_cnn"
    run(config("simple_cnn", 6), [fer2013], folder)
    return folder


def test_every_model_of_the_five_projects_is_there_with_its_reference():
    assert {
        "simple_cnn",
        "vgg16",
        "vgg19",
        "vgg16_features",
        "vgg19_features",
        "stacked_cnn",
        "resnet101",
        "mobilenet_v2",
        "densenet169",
        "cnn_222k",
        "keypoint_resnet",
        "expression_resnet",
        "oheix_cnn",
    } == set(BASELINES)
    told = {entry["name"]: entry for entry in describe_baselines()}
    assert told["cnn_222k"]["parameters"] == 222_702
    # The notebook's summary says 75,303 for three colour channels; 2 x 2 x 2 x 16 fewer for one.
    assert told["stacked_cnn"]["parameters"] == 75_303 - 128
    assert told["cnn_222k"]["classes"] == list(LABEL_SETS["four"])
    assert "61%" in told["densenet169"]["reference_figure"]


@pytest.mark.parametrize("arch", BASELINES)
def test_a_branch_gives_what_the_network_gives_one_picture_at_a_time(arch):
    torch.manual_seed(0)
    network = BaselineNetwork(BaselineConfig(arch)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    size = INPUT_SIZE[network.task]
    crops = torch.randn(3, 1, size, size)
    branch = BaselineBranch(network, network.task)
    with torch.inference_mode():
        together, folded = network(crops, network.task), branch(crops)
        alone = [branch(crop[None]) for crop in crops]
    if network.task == "keypoints":
        assert together[0].shape == (3, len(KEYPOINTS), 2)
        assert (together[1] > 0).all()
        for part in range(2):
            torch.testing.assert_close(folded[part], together[part], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(torch.cat([one[part] for one in alone]), folded[part])
    else:
        assert together[DEFAULT_HEAD].shape == (3, len(network.config.classes))
        torch.testing.assert_close(folded[DEFAULT_HEAD], together[DEFAULT_HEAD], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            torch.cat([one[DEFAULT_HEAD] for one in alone]), folded[DEFAULT_HEAD], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("stack", "convolutions", "dense"), [((2, 3, 2), 6, 2), ((1, 1, 0), 1, 0), ((3, 5, 1), 15, 1)]
)
def test_stacked_cnn_is_as_deep_as_told_and_wider_the_deeper(stack, convolutions, dense):
    network = BaselineNetwork(BaselineConfig("stacked_cnn", stack=stack))
    layers = [layer for layer in network.layers if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.kernel_size for layer in layers] == [(2, 2)] * convolutions + [(1, 1)] * dense
    widths = [layer.out_channels for layer in layers]
    assert widths == sorted(widths)
    assert network(torch.zeros(1, 1, 48, 48), "expression")[DEFAULT_HEAD].shape == (1, 7)


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("vgg17", {}, "expected one of simple_cnn"),
        ("simple_cnn", {"class_set": "six"}, "unknown class set 'six': expected fer2013"),
        ("simple_cnn", {"pretrained": True}, "no ImageNet weights of simple_cnn, only of vgg16"),
        ("keypoint_resnet", {"class_set": "four"}, "leave class_set out"),
        ("oheix_cnn", {"stack": (1, 1, 1)}, "option of stacked_cnn"),
    ],
)
def test_options_that_a_model_does_not_have_are_refused(arch, options, message):
    with pytest.raises(ConfigError, match=message):
        BaselineConfig(arch, **options)


def test_a_stack_that_pools_48_pixels_away_is_refused():
    with pytest.raises(ConfigError, match="m of 1 to 5"):
        BaselineNetwork(BaselineConfig("stacked_cnn", stack=(2, 6, 2)))


def test_a_run_learns_and_is_evaluated_like_the_shared_network(fer2013, trained):
    found = evaluate(fer2013, split="PublicTest", weights=str(trained), device="cpu")
    assert found.expression.n == 35
    assert found.expression.accuracy > 0.8
    assert found.weights == "simple_cnn"
    assert found.keypoints is None


def test_a_run_shows_overfitting_and_confusions(trained):
    rows = list(csv.DictReader((trained / "history.csv").read_text().splitlines()))
    assert len(rows) == 6
    for kind in ("accuracy", "nll"):
        assert {f"training_{kind}", f"fer2013_{kind}"} <= set(rows[0])
    assert float(rows[-1]["training_accuracy"]) > float(rows[0]["training_accuracy"])
    assert (trained / "confusion.png").stat().st_size > 1000
    header = load_stages(trained).header
    told = header["held_out_confusion"]
    counts = np.array(told["counts"])
    assert told["labels"] == list(EXPRESSIONS)
    assert counts.sum() == len(header["data"]["fer2013"]["held_out_rows"]) >= 16
    assert counts.trace() / counts.sum() == pytest.approx(float(rows[-1]["fer2013_accuracy"]), abs=0.05)


def test_training_figures_stand_in_the_panels_of_their_held_out_counterparts():
    history = {"epoch": [1, 2], "expression_loss": [2, 1], "fer2013_accuracy": [0.1, 0.2]}
    history |= {"training_accuracy": [0.1, 0.9], "raf_db_accuracy": [0.3, 0.4]}
    panels = [axes for axes in plots.training_curves(history).axes if axes.get_visible()]
    assert [len(axes.lines) for axes in panels] == [1, 2, 2]
    assert panels[1].lines[1].get_ydata().tolist() == [0.1, 0.9]


def test_a_resumed_run_with_copies_ends_as_an_unbroken_one(fer2013, tmp_path):
    given = replace(config("stacked_cnn", 2), data=DataConfig(balanced=True))
    run(given, [fer2013], tmp_path / "whole")
    broken = train_baseline(given, [fer2013], tmp_path / "broken", device="cpu")
    assert next(broken).epoch == 1
    broken.close()
    assert len(run(given, [fer2013], tmp_path / "broken", resume=True)) == 1
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]


def test_classes_are_balanced_by_copies_of_what_is_not_held_out(fer2013, tmp_path, monkeypatch):
    seen = {}

    def spied(recipe, prepared, device, soft):
        seen["part"] = prepared.expressions["fer2013"]
        (objective,) = build(recipe, prepared, device, soft)
        seen["counts"] = objective.train.targets.sum(0).tolist()
        return [objective]

    build = spy_on("build_objectives", spied, monkeypatch)
    balanced = replace(config("simple_cnn"), data=DataConfig(held_out={"fer2013": 20}, balanced=True))
    run(balanced, [fer2013], tmp_path)
    assert len(set(seen["counts"])) == 1
    part = seen["part"]
    assert not part.held_out[part.copied].any()
    assert torch.equal(part.copies.targets, part.samples.targets[torch.from_numpy(part.copied)])
    header = load_stages(tmp_path).header["data"]["fer2013"]
    assert header["copies"] == len(part.copies) > 100
    # A fold's training must see no copy of the rows that the fold leaves out.
    left_out = np.arange(len(part.samples)) % 2 == 0
    _, copies = part.train(~left_out)
    assert len(copies) == (~left_out[part.copied]).sum() < len(part.copies)


def spy_on(name, replacement, monkeypatch):
    from facekit import baseline_training

    original = getattr(baseline_training, name)
    monkeypatch.setattr(baseline_training, name, replacement)
    return original


def test_four_classes_are_measured_on_rows_of_the_four(fer2013, tmp_path, caplog):
    run(config("simple_cnn", 6, class_set="four"), [fer2013], tmp_path)
    header = load_stages(tmp_path).header
    assert header["model"]["heads"][DEFAULT_HEAD] == list(LABEL_SETS["four"])
    assert header["data"]["fer2013"]["train"] + len(header["data"]["fer2013"]["held_out_rows"]) == 3 * 16 + 64
    found = evaluate(fer2013, split="PublicTest", weights=str(tmp_path), device="cpu")
    assert found.expression.n == 20
    assert found.expression.accuracy > 0.8
    assert found.expression.other_labels == {"disgust": 5, "fear": 5, "surprise": 5}
    face = FaceAnalyzer(detector="none", weights=str(tmp_path), device="cpu")(bars(3, 0))[0]
    assert set(face.expression.scores) == set(LABEL_SETS["four"])
    assert sum(face.expression.scores.values()) == pytest.approx(1, abs=1e-5)


def test_contempt_takes_the_place_of_disgust(tmp_path, caplog):
    rows = write_bars(tmp_path / "fer2013.csv", [*range(7)] * 5, [])
    run(config("simple_cnn", class_set="contempt_without_disgust"), [rows], tmp_path / "run")
    assert "has no faces labelled contempt" in caplog.text
    header = load_stages(tmp_path / "run").header
    assert "contempt" in header["model"]["heads"][DEFAULT_HEAD]
    assert header["data"]["fer2013"]["train"] + len(header["data"]["fer2013"]["held_out_rows"]) == 30


def test_pictures_outside_the_frame_are_aligned_by_the_shipped_weights(tmp_path):
    folder = made.class_folders(tmp_path / "faces", {"happy": 8, "sad": 8})
    run(config("simple_cnn"), [folder], tmp_path / "run")
    header = load_stages(tmp_path / "run").header
    assert header["frame"] == load_weights().header["frame"]
    assert header["data"]["faces"]["train"] == 14
    found = evaluate(folder, weights=str(tmp_path / "run"), device="cpu")
    assert found.expression.n == 16
    assert np.isfinite(found.predictions.points).all()


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Path:
    """Kaggle's CSV of 24 faces: a bright disc at each of the points, which move about."""
    rng = np.random.default_rng(0)
    header = [f"{name}_{axis}" for name in KEYPOINTS for axis in "xy"]
    lines = [",".join([*header, "Image"])]
    for _ in range(24):
        picture, place = rng.integers(0, 60, (96, 96)), rng.uniform(-8, 8, 2) + 48
        marks = np.array(made.MEAN_FACE) * 56 + place
        for x, y in marks.round().astype(int):
            picture[y - 1 : y + 2, x - 1 : x + 2] = 250
        lines.append(",".join([*(f"{value:.2f}" for value in marks.ravel()), numbers(picture)]))
    path = tmp_path_factory.mktemp("points") / "training.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_keypoint_baseline_is_judged_by_its_points_alone(points, fer2013, tmp_path):
    figures = run(config("keypoint_resnet", 6), [points], tmp_path)
    assert figures[-1]["nme"] < figures[0]["nme"]
    assert {"training_nme", "sigma_factor"} <= set(figures[-1])
    header = load_stages(tmp_path).header
    assert header["model"]["tasks"] == ["keypoints"]
    found = evaluate(points, weights=str(tmp_path), device="cpu")
    assert found.keypoints.n == 24
    assert found.expression is None
    assert 0 < found.keypoints.nme < figures[0]["nme"]
    with pytest.raises(ConfigError, match=r"are for keypoints, but .* has labels for expression only"):
        evaluate(fer2013, weights=str(tmp_path), device="cpu")


def test_data_without_labels_of_the_task_are_refused(points, fer2013, tmp_path):
    for arch, data in (("simple_cnn", points), ("keypoint_resnet", fer2013)):
        with pytest.raises(DatasetError, match=f"no labels that {arch} learns from"):
            run(config(arch), [data], tmp_path)


def test_frozen_features_stay_and_the_two_layers_learn(tmp_path):
    rows = write_bars(tmp_path / "fer2013.csv", [*range(7)] * 3, [])
    given = replace(config("vgg16_features", 2), data=DataConfig(held_out={"fer2013": 5}))
    run(given, [rows], tmp_path / "run")
    torch.manual_seed(given.fit.seed)
    start = BaselineNetwork(given.model).state_dict()
    end = load_stages(tmp_path / "run").baseline.state_dict()
    moved = {key for key in start if not torch.equal(start[key].half().float(), end[key])}
    assert {key.split(".")[2] for key in moved} == {"classifier"}
    assert len(moved) == 4


def test_baselines_only_stand_in_for_the_shared_network_where_both_stages_are_asked(trained):
    weights = load_stages(trained)
    default = load_weights()
    assert weights.header["crop_factor"] == default.header["crop_factor"]
    assert weights.header["sigma_factor"] == default.header["sigma_factor"]
    assert weights.header["temperature"] != default.header["temperature"]
    with pytest.raises(WeightsError, match="kind 'baseline'"):
        load_weights(trained)
    assert load_stages("default").sha256 == shipped()["default"]["sha256"]


def test_weights_are_downloaded_once_and_checked(tmp_path):
    state = {"weight": torch.arange(6.0)}
    torch.save(state, tmp_path / "plain.pth")
    data = (tmp_path / "plain.pth").read_bytes()
    source = tmp_path / f"net-{sha256(data).hexdigest()[:8]}.pth"
    source.write_bytes(data)
    cached = download(source.as_uri(), tmp_path / "cache")
    source.unlink()
    assert download(source.as_uri(), tmp_path / "cache") == cached
    cached.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match="delete the file"):
        download(source.as_uri(), tmp_path / "cache")
    cached.unlink()
    with pytest.raises(WeightsError, match="train from random weights"):
        download(source.as_uri(), tmp_path / "cache")
    source.with_name("net-00000000.pth").write_bytes(data)
    with pytest.raises(WeightsError, match="the download is not what"):
        download(source.with_name("net-00000000.pth").as_uri(), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_imagenet_weights_fill_all_but_the_classifier(monkeypatch):
    torch.manual_seed(0)
    given = standard.densenet169(BaselineConfig("densenet169"), 1000).network.state_dict()
    # As they are published: norms and convolutions of dense layers under names of older releases.
    old = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.")
        if "denselayer" in key
        else key: tensor
        for key, tensor in given.items()
    }
    assert set(old) != set(given)
    torch.manual_seed(1)
    network = BaselineNetwork(BaselineConfig("densenet169", pretrained=True))
    assert isinstance(network.layers, Standard)
    before = network.layers.network.classifier.weight.clone()
    network.layers.take_imagenet(old)
    own = network.layers.network.state_dict()
    assert all(torch.equal(own[key], given[key]) for key in own if not key.startswith("classifier"))
    assert torch.equal(network.layers.network.classifier.weight, before)
    with pytest.raises(WeightsError, match="do not fit"):
        network.layers.take_imagenet({"features.conv0.weight": given["features.conv0.weight"]})


def test_a_pretrained_run_starts_from_imagenet(fer2013, tmp_path, monkeypatch):
    torch.manual_seed(5)
    given = standard.mobilenet_v2(BaselineConfig("mobilenet_v2"), 1000).network.state_dict()
    asked = []
    monkeypatch.setattr(
        "facekit.baseline_training.imagenet_weights", lambda name: asked.append(name) or given
    )
    start = config("mobilenet_v2", pretrained=True)
    still = replace(start, fit=replace(start.fit, learning_rate=0.0))
    run(still, [fer2013], tmp_path)
    weights = load_stages(tmp_path)
    assert asked == ["MobileNet_V2_Weights.IMAGENET1K_V2"]
    assert weights.header["model"]["pretrained"]
    own = weights.baseline.layers.network.state_dict()
    key = "features.1.conv.0.0.weight"
    assert torch.equal(own[key], given[key].half().float())


@pytest.mark.parametrize("arch", [arch for arch, entry in BASELINES.items() if entry.imagenet])
def test_torchvision_has_the_imagenet_weights_and_their_names_hold_a_digest(arch):
    url = imagenet.get_weight(BASELINES[arch].imagenet).url
    assert re.search(r"-[0-9a-f]{8}\.pth$", url)


@pytest.mark.parametrize("arch", BASELINES)
def test_every_model_has_a_configuration_of_its_reference(arch):
    config = read_settings(CONFIGS / f"{arch}.toml", default_config(arch))
    assert config.model.arch == arch
    assert f"--arch {arch}\n" in (CONFIGS / f"{arch}.toml").read_text()


def test_no_configuration_is_without_a_model():
    assert {path.stem for path in CONFIGS.iterdir()} == set(BASELINES)


def test_the_references_own_recipes():
    def recipe(arch):
        return read_settings(CONFIGS / f"{arch}.toml", default_config(arch))

    oheix = recipe("oheix_cnn")
    assert (oheix.fit.epochs, oheix.expression.batch_size, oheix.data.balanced) == (100, 128, True)
    assert (oheix.fit.optimizer, oheix.fit.weight_decay) == ("adamw", 0.0)  # Adam
    assert recipe("cnn_222k").fit.epochs == 14
    assert recipe("vgg19_features").model.pretrained
    assert recipe("stacked_cnn").expression.augment.scale == 0.2


def test_the_command_trains_evaluates_and_lists(fer2013, tmp_path):
    from typer.testing import CliRunner

    from facekit_cli.main import app

    def facekit(*arguments: object):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    toml = tmp_path / "quick.toml"
    toml.write_text('[model]\nclass_set = "four"\n[expression]\nbatch_size = 16\n')
    options = ["train", "--arch", "stacked_cnn", "--data", fer2013]
    done = facekit(*options, "--config", toml, "--out", tmp_path / "run", "--epochs", 1)
    assert done.exit_code == 0, done.output
    assert "training_accuracy" in done.stdout
    done = facekit("evaluate", fer2013, "--split", "PublicTest", "--weights", tmp_path / "run", "--json", "-")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["weights"], told["expression"]["n"]) == ("stacked_cnn", 20)
    listed = json.loads(facekit("models", "--json", "-").stdout)
    assert [entry["name"] for entry in listed] == [*shipped(), *BASELINES]
    common = {"name", "kind", "tasks", "parameters", "class_set", "reference", "reference_figure", "weights"}
    assert all(common <= set(entry) for entry in listed)
    assert "52.56%" in facekit("models").stdout

    toml.write_text('[model]\narch = "vgg16"\n')
    for wrong, message in (
        (["--config", toml], "is for vgg16, but --arch is stacked_cnn"),
        (["--folds", 3], "--folds is for the shared network"),
    ):
        done = facekit(*options, "--out", tmp_path / "other", *wrong)
        assert (done.exit_code, message in done.stderr) == (2, True), done.output


def test_the_default_configuration_is_adam_at_the_models_own_rate():
    assert default_config("vgg16").fit == FitConfig(
        epochs=30, optimizer="adamw", learning_rate=2e-4, weight_decay=0.0, average=0.998
    )
