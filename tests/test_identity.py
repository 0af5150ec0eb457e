from __future__ import annotations

import pytest

from facekit.analyzer import FaceAnalyzer
from facekit.errors import DetectorError, WeightsError
from facekit.identity import model_files
from facekit.weights import shipped


def test_shipped_models_are_told_by_the_manifest():
    manifest = shipped()
    default, detector = manifest["default"], manifest["detector"]
    assert model_files() == {
        f"weights/{default['file']}": default["sha256"],
        f"usual/{default['file']}": default["sha256"],
        f"detector/{detector['file']}": detector["sha256"],
    }
    assert FaceAnalyzer(device="cpu", backend="onnx").identity["files"] == model_files()


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("run/weights.safetensors", {"weights": "run"}),
        ("run/weights.safetensors", {"weights": "run/weights.safetensors"}),
        ("run/keypoints.onnx", {"weights": "run"}),
        ("found.safetensors", {"detector_model": "found.safetensors"}),
        ("yunet.onnx", {"detector": "yunet", "detector_model": "yunet.onnx"}),
        ("cache/face_detection_yunet_2023mar.onnx", {"detector": "yunet"}),
    ],
)
def test_another_content_is_another_model_wherever_it_stands(written, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", "cache")
    file = tmp_path / written
    file.parent.mkdir(exist_ok=True)
    if file.name == "keypoints.onnx":
        (file.parent / "card.json").write_text("{}")
    told = []
    for content in ("one", "two", "one"):
        file.write_text(content)
        told.append(model_files(**given))
    assert told[0] == told[2] != told[1]


@pytest.mark.parametrize("detector", ["none", "haar"])
def test_what_takes_no_model_has_none(detector):
    assert not any(name.startswith("detector/") for name in model_files("default", detector, "idle.onnx"))


def test_what_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="no weights"):
        model_files("nonsense")
    with pytest.raises(DetectorError, match="no YuNet model"):
        model_files(detector="yunet")
