"""The ONNX backend computes what PyTorch does, and needs no torch for it."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import save
from skimage.data import astronaut
from torch import nn
from typer.testing import CliRunner

from facekit import ConfigError, FaceAnalyzer, WeightsError, load_dataset, processor
from facekit.backends import onnx as onnx_backend
from facekit.backends.onnx import INPUT_SIZE, OnnxBackend, OnnxDetector
from facekit.backends.onnx_graph import GRAPHS, Graph, detector_graph
from facekit.backends.torch import TorchBackend
from facekit.detection import FacekitDetector
from facekit.detector_network import DetectorConfig, DetectorNetwork, for_inference
from facekit.model import ModelConfig, SharedNetwork
from facekit.quantization import measure_ranges
from facekit.schema import ALIGNED_POINTS, EXPRESSIONS, FERPLUS, MEAN_FACE
from facekit.weights import load_detector, load_weights, model_record, read_weights, save_weights
from facekit_cli.main import app


def used(network: nn.Module) -> nn.Module:
    """Give batch norms the statistics that training would, all different."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
    return network


def stages(folder: Path, **changes: object) -> Path:
    torch.manual_seed(0)
    heads = {"fer2013": EXPRESSIONS, "ferplus": FERPLUS}
    config = ModelConfig(
        **({"width": 8, "blocks": (1, 1, 2, 1), "map_channels": 8, "heads": heads} | changes)
    )
    network = used(SharedNetwork(config))
    nn.init.normal_(network.keypoint_head.error_weight)
    header = {
        "name": "random",
        "model": model_record(config),
        "mean": 0.5,
        "std": 0.25,
        "crop_factor": 1.6,
        "frame": (np.array(MEAN_FACE)[list(ALIGNED_POINTS)] * 32 + 23.5).tolist(),
        "temperature": dict.fromkeys(heads, 0.8),
        "sigma_factor": 0.9,
    }
    save_weights(folder / "stages.safetensors", network, "shared", header)
    return folder / "stages.safetensors"


def detector(folder: Path, **changes: object) -> Path:
    torch.manual_seed(0)
    config = DetectorConfig(**({"stem": 8, "widths": (8, 16, 24), "head": 16} | changes))
    network = used(DetectorNetwork(config))
    for output in network.outputs:  # which would see a face in no cell
        nn.init.normal_(output.weight, 0, 0.3)
        nn.init.zeros_(output.bias)
    header = {"model": vars(config), "slope": 1.0, "offset": 0.0, "overlap": 0.3}
    save_weights(folder / "detector.safetensors", network, "detector", header)
    return folder / "detector.safetensors"


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def ranged(stored, tmp_path_factory) -> Path:
    """Give the same weights with the ranges that crops set."""
    weights = read_weights(stored)
    normalised = {task: ((crops(16, size) - 0.5) / 0.25) for task, size in INPUT_SIZE.items()}
    header = {**weights.header, "ranges": measure_ranges(weights, normalised)}
    path = tmp_path_factory.mktemp("ranged") / "stages.safetensors"
    path.write_bytes(save(weights.tensors, {"facekit": json.dumps(header)}))
    return path


@pytest.fixture(scope="module")
def own_detector(tmp_path_factory) -> Path:
    return detector(tmp_path_factory.mktemp("detector"))


def crops(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1, size, size), np.float32)


def check_parity(path: str | Path, count: int = 4) -> None:
    by_torch, by_onnx = TorchBackend(load_weights(path), "cpu", "fp32"), OnnxBackend(path, precision="fp32")
    assert by_onnx.name == by_torch.name
    points, sigma = by_torch.keypoints(torch.from_numpy(crops(count, 96)))
    found, found_sigma = by_onnx.keypoints(crops(count, 96))
    np.testing.assert_allclose(found, points, rtol=0, atol=5e-4)  # of 96 pixels
    np.testing.assert_allclose(found_sigma, sigma, rtol=0, atol=1e-4)
    heads = by_torch.header["model"]["heads"]
    expected = by_torch.expression(torch.from_numpy(crops(count, 48)), heads)
    for head, logits in by_onnx.expression(crops(count, 48), heads).items():
        np.testing.assert_allclose(logits, expected.pop(head), rtol=0, atol=1e-4)
    assert not expected


@pytest.mark.parametrize(
    "changes", [{}, {"norm_per_task": False}, {"blocks": (2, 1, 1, 1), "map_channels": 16}, {"members": 3}]
)
def test_both_stages_give_what_pytorch_gives(tmp_path, changes):
    check_parity(stages(tmp_path, **changes))


def test_the_shipped_weights_give_what_pytorch_gives():
    check_parity("default", count=2)


@pytest.mark.data
def test_500_real_faces_get_what_pytorch_gives(data_folder):
    faces = load_dataset(data_folder / "raf_db")
    grays = [faces.load(place) for place in range(0, 5000, 10)]
    grays = [gray if gray.ndim == 2 else gray[..., 0] for gray in grays]
    boxes = np.array([(0, 0, gray.shape[1], gray.shape[0]) for gray in grays], np.float32)
    found = [
        FaceAnalyzer("cpu", "none", "fp32", backend=backend).describe(grays, np.arange(500), boxes)
        for backend in ("torch", "onnx")
    ]
    assert np.abs(found[0].points_image - found[1].points_image).max() < 1e-3  # of 100 pixels
    assert np.abs(found[0].sigma - found[1].sigma).max() < 1e-3
    assert np.abs(found[0].scores["fer2013"] - found[1].scores["fer2013"]).max() < 1e-4


def test_a_batch_gives_what_single_faces_give_and_may_be_empty(stored):
    backend = OnnxBackend(stored)
    points, sigma = backend.keypoints(crops(3, 96))
    for place in range(3):
        alone, sigma_alone = backend.keypoints(crops(3, 96)[place : place + 1])
        np.testing.assert_allclose(alone[0], points[place], atol=1e-4)
        np.testing.assert_allclose(sigma_alone[0], sigma[place], atol=1e-4)
    assert [part.shape for part in backend.keypoints(crops(0, 96))] == [(0, 15, 2), (0, 15)]
    assert backend.expression(crops(0, 48), ["ferplus"])["ferplus"].shape == (0, 8)


def test_mirrored_views_are_taken_as_they_look(stored):
    backend, given = OnnxBackend(stored), crops(2, 96)
    as_view = backend.keypoints(given[..., ::-1])[0]
    np.testing.assert_array_equal(as_view, backend.keypoints(np.ascontiguousarray(given[..., ::-1]))[0])


def test_threads_share_a_backend(stored):
    backend, given = OnnxBackend(stored), crops(4, 48)
    expected = backend.expression(given, ["fer2013"])["fer2013"]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: backend.expression(given, ["fer2013"])["fer2013"], range(16)):
            np.testing.assert_array_equal(found, expected)


def test_crops_of_another_size_are_refused(stored):
    with pytest.raises(ValueError, match="expected \\(N, 1, 96, 96\\)"):
        OnnxBackend(stored).keypoints(crops(1, 48))


def test_integers_stay_near_whatever_the_batch(ranged):
    in_integers, in_floats = (OnnxBackend(ranged, precision=precision) for precision in ("int8", "fp32"))
    large, small = crops(8, 96), crops(8, 48)
    points, expected = (backend.keypoints(large)[0] for backend in (in_integers, in_floats))
    assert 1e-3 < np.abs(points - expected).mean() < 2  # of flat maps, of a network that was never trained
    logits, near = (backend.expression(small, ["ferplus"])["ferplus"] for backend in (in_integers, in_floats))
    np.testing.assert_allclose(logits, near, atol=0.05 * np.abs(near).max())
    one_by_one = np.concatenate(
        [in_integers.expression(crop[None], ["ferplus"])["ferplus"] for crop in small]
    )
    np.testing.assert_array_equal(one_by_one, logits)


def test_automatic_precision_goes_by_processor_and_weights(stored, ranged, monkeypatch):
    given = crops(2, 48)

    def logits(weights: Path, precision: str) -> np.ndarray:
        return OnnxBackend(weights, precision=precision).expression(given, ["fer2013"])["fer2013"]

    for able in (True, False):
        monkeypatch.setattr(onnx_backend, "multiplies_int8", lambda able=able: able)
        np.testing.assert_array_equal(logits(ranged, "auto"), logits(ranged, "int8" if able else "fp32"))
        np.testing.assert_array_equal(logits(stored, "auto"), logits(stored, "fp32"))
    with pytest.raises(ConfigError, match="no ranges for int8"):
        OnnxBackend(stored, precision="int8")


@pytest.mark.parametrize(
    ("told", "able"),
    [("flags : fpu avx512_vnni sse", True), ("Features : fp asimddp", True), ("flags : fpu", False)],
)
def test_the_processor_tells_whether_it_multiplies_integers(monkeypatch, told, able):
    monkeypatch.setattr(processor, "told", lambda: told)
    monkeypatch.setattr(onnx_backend.platform, "system", lambda: "Linux")
    assert onnx_backend.multiplies_int8() is able


def test_graphs_are_valid_onnx_of_stated_shapes(stored, ranged, own_detector):
    weights, in_integers = read_weights(stored), read_weights(ranged)
    models = [build(Graph(weights)) for build in GRAPHS.values()]
    models += [
        GRAPHS["keypoints"](Graph(weights, "fp16")),
        *(
            build(Graph(in_integers, ranges=in_integers.header["ranges"][task]))
            for task, build in GRAPHS.items()
        ),
        detector_graph(Graph(read_weights(own_detector, "detector"))),
    ]
    for model in models:
        onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    outputs = onnx.load_model_from_string(models[0]).graph.output
    assert [output.name for output in outputs] == ["points", "sigma"]
    dimensions = outputs[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dimensions] == ["batch", 15, 2]


@pytest.mark.parametrize("changes", [{}, {"head": 8, "blocks": (1, 0, 1, 2)}])
def test_the_detector_gives_what_pytorch_gives(tmp_path, changes):
    path = detector(tmp_path, **changes)
    picture = np.random.default_rng(0).integers(0, 256, (64, 90, 3), np.uint8)
    (found,) = OnnxDetector(path)([picture], -np.inf)
    padded = np.zeros((64, 96, 3), np.uint8)
    padded[:, :90] = picture
    with torch.inference_mode():
        cells = for_inference(load_detector(path)[0])(torch.from_numpy(padded).permute(2, 0, 1)[None].float())
    np.testing.assert_allclose(found[0], cells.boxes[0], atol=1e-3)
    np.testing.assert_allclose(found[1], cells.logits[0], atol=1e-4)


def test_detectors_of_both_backends_find_the_same_boxes(own_detector):
    pictures = [astronaut(), astronaut()[:200, :300], astronaut()[..., 0]]
    by_torch, by_onnx = (
        FacekitDetector(own_detector, min_score=0.8, device="cpu", backend=backend)(pictures)
        for backend in ("torch", "onnx")
    )
    assert sum(len(found) for found in by_torch) > 3
    for expected, found in zip(by_torch, by_onnx, strict=True):
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_the_whole_pipeline_gives_what_pytorch_gives():
    by_torch, by_onnx = (
        FaceAnalyzer("cpu", precision="fp32", backend=backend)(astronaut()).to_dict()
        for backend in ("torch", "onnx")
    )
    (expected,), (found,) = by_torch.pop("faces"), by_onnx.pop("faces")
    assert by_onnx == by_torch
    assert found["box"] == expected["box"]
    assert found["expression"]["label"] == "happy"
    for part in ("keypoints", "sigma"):
        for name, value in expected[part].items():
            assert found[part][name] == pytest.approx(value, abs=0.02)
    assert found["expression"]["scores"] == pytest.approx(expected["expression"]["scores"], abs=1e-4)


@pytest.mark.parametrize("chosen", ["haar", "none", "facekit"])
def test_predict_runs_without_torch(chosen, own_detector):
    portrait = Path(__file__).parents[2] / "docs" / "images" / "astronaut.jpg"
    arguments = ["predict", str(portrait), "--json", "-", "--backend", "onnx", "--detector", chosen]
    arguments += ["--detector-model", str(own_detector), "--max-faces", "1"] if chosen == "facekit" else []
    code = (
        "import sys\n"
        "from facekit_cli.main import app\n"
        "try:\n"
        f"    app({arguments!r})\n"
        "except SystemExit as exit:\n"
        "    assert exit.code == 0\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'skimage', 'scipy', 'onnx', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    (told,) = json.loads(done.stdout)
    assert len(told["faces"]) == 1
    if chosen == "haar":
        assert told["faces"][0]["expression"]["label"] == "happy"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda"}, "runs on the CPU"),
        ({"precision": "bf16"}, "facekit export"),
        ({"backend": "tensorflow"}, "expected auto, torch or onnx"),
    ],
)
def test_what_cannot_be_had_is_refused(stored, arguments, message):
    with pytest.raises(ConfigError, match=message):
        FaceAnalyzer(**({"backend": "onnx", "weights": str(stored), "detector": "none"} | arguments))


def test_weights_of_another_kind_or_without_a_tensor_are_refused(own_detector, tmp_path):
    with pytest.raises(WeightsError, match="expected kind 'shared'"):
        OnnxBackend(own_detector)
    wider = model_record(ModelConfig(width=8, blocks=(1, 1, 1, 2)))
    network = SharedNetwork(ModelConfig(width=8, blocks=(1, 1, 1, 1)))
    save_weights(tmp_path / "other.safetensors", network, "shared", {"name": "other", "model": wider})
    with pytest.raises(WeightsError, match=r"trunk\.stages\.3\.1\.conv1\.weight"):
        OnnxBackend(tmp_path / "other.safetensors")


def test_without_onnx_runtime_one_line_says_what_to_install(stored, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="with its extra `onnx`"):
        OnnxBackend(stored)


def test_doctor_tells_of_the_backend(monkeypatch):
    from facekit_cli import doctor

    assert "backend onnx: ONNX Runtime " in CliRunner().invoke(app, ["doctor"]).stdout
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    assert "backend onnx: not installed" in CliRunner().invoke(app, ["doctor"]).stdout
