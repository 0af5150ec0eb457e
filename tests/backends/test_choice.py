from __future__ import annotations

import pytest
import torch

from facekit import backends
from facekit.backends import choose_backend
from facekit.errors import ConfigError, WeightsError


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with ONNX Runtime and without an accelerator, unless a test says otherwise."""
    monkeypatch.setattr(backends, "find_spec", lambda _name: object())
    monkeypatch.setattr(backends, "_has_accelerator", lambda: False)


def test_a_cpu_takes_onnx_runtime():
    assert choose_backend("auto", "default", "auto", "auto") == ("onnx", "auto")
    assert choose_backend("auto", "default", "cpu", "fp32") == ("onnx", "fp32")


def test_onnx_runtime_by_name_stays_exact():
    assert choose_backend("onnx", "default", "cpu", "auto") == ("onnx", "fp32")
    assert choose_backend("onnx", "default", "cpu", "int8") == ("onnx", "int8")


@pytest.mark.parametrize(("device", "precision"), [("cuda", "auto"), ("mps", "auto"), ("cpu", "bf16")])
def test_what_onnx_runtime_cannot_do_goes_to_pytorch(device, precision):
    assert choose_backend("auto", "default", device, precision) == ("torch", precision)


def test_an_accelerator_takes_pytorch_unless_the_cpu_is_asked_for(monkeypatch):
    monkeypatch.setattr(backends, "_has_accelerator", lambda: True)
    assert choose_backend("auto", "default", "auto", "auto") == ("torch", "auto")
    assert choose_backend("auto", "default", "cpu", "auto") == ("onnx", "auto")


def test_without_onnx_runtime_it_is_pytorch(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda _name: None)
    assert choose_backend("auto", "default", "cpu", "auto") == ("torch", "auto")


def test_an_export_is_for_onnx_runtime_alone(tmp_path):
    (tmp_path / "card.json").write_text("{}")
    assert choose_backend("auto", tmp_path, "auto", "auto") == ("onnx", "auto")


def test_a_name_is_taken_as_it_is_if_it_is_known():
    assert choose_backend("torch", "default", "cpu", "auto") == ("torch", "auto")
    with pytest.raises(ConfigError, match="expected auto, torch or onnx"):
        choose_backend("tensorflow", "default", "cpu", "auto")


def test_unknown_weights_are_named():
    with pytest.raises(WeightsError, match="no weights 'mine'"):
        choose_backend("auto", "mine", "cpu", "auto")


def test_an_unknown_precision_is_told_all_there_are():
    from facekit.backends.torch import choose_precision

    with pytest.raises(ConfigError, match="expected auto, fp32, bf16, fp16, or int8 with onnx"):
        choose_precision("x", torch.device("cpu"))
