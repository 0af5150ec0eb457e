from __future__ import annotations

import hashlib
import platform

from facekit.weights import shipped
from facekit_cli import doctor


def test_a_sound_installation(facekit):
    import torch

    done = facekit("doctor")
    assert done.exit_code == 0, done.stderr
    assert platform.python_version() in done.stdout
    assert torch.__version__.split("+")[0] in done.stdout
    assert "device cpu: " in done.stdout
    assert "<- auto" in done.stdout
    assert "haar" in done.stdout
    assert "default" in shipped()
    for name in shipped():
        assert f"weights {name}: " in done.stdout


def test_weights_are_shown_with_the_sha256_of_their_file(facekit):
    from importlib import resources

    output = facekit("doctor").stdout
    for entry in shipped().values():
        data = (resources.files("facekit") / "pretrained" / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() in output


def test_a_missing_system_library_is_one_line(facekit, monkeypatch):
    real = doctor.import_module

    def without_libgl(name):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
        return real(name)

    monkeypatch.setattr(doctor, "import_module", without_libgl)
    done = facekit("doctor")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "libGL.so.1" in line
    assert "apt-get install libgl1 libglib2.0-0" in line


def test_predict_says_the_same_of_a_missing_system_library(facekit, monkeypatch):
    def without_libgl(_given):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("facekit_cli.predict.expand", without_libgl)
    done = facekit("predict", "a.jpg")
    assert done.exit_code == 2
    assert "apt-get install" in done.stderr
    assert done.stderr.count("\n") == 1


def test_damaged_weights_are_named(facekit, monkeypatch, tmp_path):
    damaged = tmp_path / "default-v9.safetensors"
    damaged.write_bytes(b"damaged")
    entry = {"default": {"file": str(damaged), "sha256": "0" * 64}}
    monkeypatch.setattr("facekit.weights.shipped", lambda: entry)
    done = facekit("doctor")
    assert done.exit_code == 1
    assert hashlib.sha256(b"damaged").hexdigest() in done.stderr
    assert "0" * 64 in done.stderr
