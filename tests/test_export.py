"""Exported files give what facekit gives, by their card alone."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import made
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from skimage.data import astronaut
from typer.testing import CliRunner

from facekit import ConfigError, DatasetError, FaceAnalyzer, WeightsError
from facekit.backends.onnx import OnnxBackend, open_session
from facekit.backends.onnx_graph import Graph, keypoints_graph
from facekit.detector_network import DetectorConfig, DetectorNetwork
from facekit.export import export_networks
from facekit.model import Branch, SharedNetwork
from facekit.quantization import calibration_crops
from facekit.schema import PIXEL_MEAN, PIXEL_STD
from facekit.weights import load_weights, model_record, of_its_task, read_weights, save_weights
from facekit_cli.main import app

LOADING = pytest.mark.filterwarnings("ignore:.torch.jit.load:FutureWarning")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return made.weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = DetectorConfig(stem=8, widths=(8, 16, 24), head=16)
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    header = {"model": vars(config), "slope": 1.0, "offset": 0.0, "overlap": 0.3}
    save_weights(path, DetectorNetwork(config), "detector", header)
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    return made.class_folders(tmp_path_factory.mktemp("faces") / "set", {"happy": 6, "sad": 6})


def crops(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1, size, size)).astype(np.float32)


def test_the_card_and_its_files_belong_together(weights, detector, tmp_path):
    card = export_networks(tmp_path, weights, detector=detector)
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(card))
    assert {path.name for path in tmp_path.iterdir()} == {
        "card.json",
        "keypoints.onnx",
        "expression.onnx",
        "detector.onnx",
    }
    for entry in card["files"].values():
        data = (tmp_path / entry["file"]).read_bytes()
        assert sha256(data).hexdigest() == entry["sha256"]
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        assert {part.name: part.shape for part in session.get_inputs()} == entry["inputs"]
        assert {part.name: part.shape for part in session.get_outputs()} == entry["outputs"]
    assert card["weights_sha256"] == sha256(Path(weights).read_bytes()).hexdigest()


def by_card(folder: Path, picture: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do what the card says, with nothing of facekit's: points (15, 2) and probabilities of "fer2013"."""
    card = json.loads((folder / "card.json").read_text())
    run = {
        task: onnxruntime.InferenceSession(folder / entry["file"], providers=["CPUExecutionProvider"]).run
        for task, entry in card["files"].items()
    }
    gray = (picture @ np.array([0.299, 0.587, 0.114])).astype(np.float32)

    def cut(matrix: np.ndarray, size: int) -> np.ndarray:
        factor = max(1, int(np.sqrt(abs(np.linalg.det(matrix[:, :2]))) + 0.5))
        height, width = (side // factor for side in gray.shape)
        whole = gray[: height * factor, : width * factor]
        small = whole.reshape(height, factor, width, factor).mean((1, 3))
        matrix = matrix / factor
        matrix[:, 2] -= (factor - 1) / (2 * factor)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        found = cv2.warpAffine(small, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return ((found / 255 - card["mean"]) / card["std"]).astype(np.float32)[None, None]

    framing = card["crop_from_box"]["facekit"]
    side = max(box[2] - box[0], box[3] - box[1])
    centre = (box[:2] + box[2:]) / 2 + side * np.array(framing["shift"])
    side *= framing["scale"]
    step = side / 96
    corner = centre - side / 2
    crop = np.array([[step, 0, corner[0] + step / 2 - 0.5], [0, step, corner[1] + step / 2 - 0.5]])

    def look(crop: np.ndarray) -> np.ndarray:
        seen = cut(crop, 96)
        points, mirrored = (
            run["keypoints"](["points"], {"crops": part})[0][0] for part in (seen, seen[..., ::-1])
        )
        mirrored = mirrored[card["mirror_permutation"]] * [-1, 1] + [95, 0]
        return (points + mirrored) / 2 @ crop[:, :2].T + crop[:, 2]

    points = look(crop)
    right, left = (points[card["keypoints"].index(f"{side}_eye_center")] for side in ("right", "left"))
    angle = np.arctan2(*(left - right)[::-1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    level = points @ turn
    implied = (level.max(0) - level.min(0)).max() * card["crop_factor"]
    middle = turn @ (level.max(0) + level.min(0)) / 2
    factor = max(implied / side, side / implied)
    off = abs(middle - centre + 0.5).max() / side
    tilted, moved = abs(np.degrees(angle)) > card["tilted"], off > card["aside"]
    if (tilted or moved or factor > card["missized"]) and factor < card["no_face"]:
        linear = turn * implied / 96
        points = look(np.column_stack([linear, middle - linear @ [47.5, 47.5]]))

    chosen = points[[card["keypoints"].index(name) for name in card["frame_points"]]]
    rows = [row for x, y in chosen for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, dx, dy = np.linalg.lstsq(np.array(rows), np.ravel(card["frame"]), rcond=None)[0]
    aligned = np.linalg.inv([[a, -b, dx], [b, a, dy], [0, 0, 1]])[:2]
    logits = run["expression"](["fer2013"], {"crops": cut(aligned, 48)})[0][0]
    powers = np.exp(logits / card["temperature"]["fer2013"] + card["photo_bias"].get("fer2013", 0.0))
    return points, powers / powers.sum()


@pytest.mark.parametrize("angle", [0, 35])
def test_who_follows_the_card_gets_what_facekit_gives(tmp_path, angle):
    export_networks(tmp_path)
    picture = astronaut()[:256, 64:320]
    picture = cv2.warpAffine(picture, cv2.getRotationMatrix2D((160, 115), angle, 1), (256, 256))
    (face,) = FaceAnalyzer("cpu", "facekit", "fp32", backend="onnx", max_faces=1)(picture)
    points, scores = by_card(tmp_path, picture, face.box.astype(np.float64))
    np.testing.assert_allclose(points, face.keypoints.xy, atol=0.1)
    np.testing.assert_allclose(scores, list(face.expression.scores.values()), atol=0.02)


def test_the_backend_runs_an_export(weights, tmp_path):
    export_networks(tmp_path, weights)
    direct, exported = OnnxBackend(weights), OnnxBackend(tmp_path)
    given = np.random.default_rng(0).random((2, 1, 48, 48), np.float32)
    np.testing.assert_array_equal(
        exported.expression(given, ["ferplus"])["ferplus"], direct.expression(given, ["ferplus"])["ferplus"]
    )
    picture = made.picture(0)
    told = [
        FaceAnalyzer("cpu", "none", weights=str(at), backend="onnx")(picture).to_dict()
        for at in (weights, tmp_path)
    ]
    assert told[0] == told[1]


@LOADING
@pytest.mark.parametrize(("file_format", "suffix"), [("torchscript", ".pt"), ("torch.export", ".pt2")])
def test_programs_of_pytorch_take_any_number_of_crops(weights, detector, tmp_path, file_format, suffix):
    export_networks(tmp_path, weights, format=file_format, detector=detector)

    def load(task: str) -> torch.nn.Module:
        path = tmp_path / f"{task}{suffix}"
        return torch.jit.load(path) if suffix == ".pt" else torch.export.load(path).module()

    keypoints, expression, cells = (load(task) for task in ("keypoints", "expression", "detector"))
    network = load_weights(weights).network
    with torch.inference_mode():
        for count in (1, 3):
            given = torch.from_numpy(crops(count, 96))
            for found, expected in zip(keypoints(given), Branch(network, "keypoints")(given), strict=True):
                torch.testing.assert_close(found, expected)
            given = torch.from_numpy(crops(count, 48))
            torch.testing.assert_close(expression(given), Branch(network, "expression")(given))
            logits, boxes = cells(torch.rand(count, 3, 128, 64 * count))
            assert boxes.shape == (count, logits.shape[1], 4)
            assert logits.shape[1] == 128 * 64 * count * 21 / 1024  # of three levels: 1/64, 1/256, 1/1024


@LOADING
@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_half_precision_halves_the_files_and_stays_near(weights, tmp_path, file_format):
    export_networks(tmp_path / "fp32", weights, format=file_format)
    card = export_networks(tmp_path / "fp16", weights, format=file_format, precision="fp16")
    name = card["files"]["expression"]["file"]
    sizes = [(tmp_path / precision / name).stat().st_size for precision in ("fp16", "fp32")]
    assert sizes[0] < 0.65 * sizes[1]
    given = crops(4, 48)
    if file_format == "torchscript":
        with torch.inference_mode():
            found = torch.jit.load(tmp_path / "fp16" / name)(torch.from_numpy(given))["fer2013"].numpy()
    else:
        session = onnxruntime.InferenceSession(tmp_path / "fp16" / name, providers=["CPUExecutionProvider"])
        found = session.run(["fer2013"], {"crops": given})[0]
    with torch.inference_mode():
        expected = Branch(load_weights(weights).network, "expression")(torch.from_numpy(given))["fer2013"]
    np.testing.assert_allclose(found, expected, atol=0.02 * float(expected.abs().max()))
    assert found.dtype == np.float32


def test_integers_stay_near_and_make_files_a_quarter(faces, tmp_path):
    export_networks(tmp_path / "fp32")
    card = export_networks(tmp_path / "int8", precision="int8", calibrate=faces)
    model = onnx.load(tmp_path / "int8" / "expression.onnx")
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    for stage in ("keypoints", "expression"):
        file = card["files"][stage]["file"]
        sizes = [(tmp_path / kind / file).stat().st_size for kind in ("int8", "fp32")]
        assert sizes[0] < 0.3 * sizes[1]
    found = FaceAnalyzer("cpu", "haar", weights=str(tmp_path / "int8"), backend="onnx")(astronaut())[0]
    expected = FaceAnalyzer("cpu", "haar", "fp32", backend="onnx")(astronaut())[0]
    np.testing.assert_allclose(found.keypoints.xy, expected.keypoints.xy, atol=1)
    assert found.expression.label == expected.expression.label


def test_shipped_weights_hold_ranges(tmp_path):
    card = export_networks(tmp_path, precision="int8")
    assert card["precision"] == "int8"
    backends = OnnxBackend(precision="int8"), OnnxBackend(tmp_path)
    given = crops(2, 48)
    found = [backend.expression(given, ["fer2013"])["fer2013"] for backend in backends]
    np.testing.assert_array_equal(*found)


def test_maps_without_a_range_stay_as_they_are():
    stored = read_weights("default").doing("keypoints")
    whole = stored.header["ranges"]["keypoints"]
    given = crops(1, 96)

    def points(ranges):
        session = open_session(keypoints_graph(Graph(stored, ranges=ranges)))
        return session.run(["points"], {"crops": given})[0]

    exact, most = points(None), points({name: ends for name, ends in whole.items() if "trunk" not in name})
    assert 0 < abs(most - exact).max() < abs(points(whole) - exact).max()


def test_weights_of_one_task_are_exported_with_the_shipped_other_one(weights, tmp_path):
    network = load_weights(weights).network
    alone = SharedNetwork(replace(network.config, tasks=("expression",)))
    pixels = {"mean": PIXEL_MEAN, "std": PIXEL_STD, "model": model_record(alone.config)}
    header = of_its_task(load_weights(weights).header | pixels)
    save_weights(tmp_path / "alone.safetensors", alone, "shared", header)
    for precision in ("fp32", "fp16"):
        card = export_networks(tmp_path / precision, tmp_path / "alone.safetensors", precision=precision)
        assert {"keypoints", "expression"} <= card["files"].keys()
    given = crops(2, 96)
    exported, usual = OnnxBackend(tmp_path / "fp32"), OnnxBackend(precision="fp32")
    np.testing.assert_array_equal(exported.keypoints(given)[0], usual.keypoints(given)[0])
    assert exported.header["crop_factor"] == usual.header["crop_factor"]
    with pytest.raises(ConfigError, match="no ranges for int8"):
        export_networks(tmp_path / "int8", tmp_path / "alone.safetensors", precision="int8")


def test_ranges_need_faces(weights):
    analyzer = FaceAnalyzer("cpu", "haar", weights=weights, backend="onnx")
    scenes = made.expression_set(["happy", "sad"], whole_pictures=True)  # in which there is no face
    with pytest.raises(DatasetError, match="no face"):
        calibration_crops(scenes, analyzer)
    points = made.point_set(3)
    cut = calibration_crops(points, analyzer)
    assert (cut["keypoints"].shape, cut["expression"].shape) == ((3, 1, 96, 96), (3, 1, 48, 48))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, "expected onnx, torchscript, torch.export"),
        ({"precision": "int4"}, "expected fp32, fp16, int8"),
        ({"precision": "int8", "format": "torchscript", "calibrate": "faces"}, "for format onnx"),
        ({"calibrate": "faces"}, "int8"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        export_networks(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_integers_without_ranges_are_refused(weights, tmp_path):
    with pytest.raises(ConfigError, match="--calibrate"):
        export_networks(tmp_path / "out", weights, precision="int8")
    assert not (tmp_path / "out").exists()


def test_a_foreign_or_incomplete_export_is_refused(weights, detector, tmp_path):
    export_networks(tmp_path, weights, format="torchscript")
    with pytest.raises(WeightsError, match="format 'torchscript'"):
        OnnxBackend(tmp_path)
    export_networks(tmp_path, weights)
    with pytest.raises(ConfigError, match="its own"):
        OnnxBackend(tmp_path, precision="fp32")
    (tmp_path / "expression.onnx").unlink()
    with pytest.raises(WeightsError, match=r"expression\.onnx: missing"):
        OnnxBackend(tmp_path)


def test_the_command_tells_what_it_wrote(weights, tmp_path):
    done = CliRunner().invoke(app, ["export", "--out", str(tmp_path), "--weights", weights])
    assert done.exit_code == 0
    assert f"{tmp_path}/keypoints.onnx: keypoints, 0." in done.stdout
    refused = CliRunner().invoke(app, ["export", "--out", str(tmp_path), "--format", "tflite"])
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
