from __future__ import annotations

import json
from hashlib import sha256

import pytest
import torch
from safetensors.torch import save_file

from facekit import weights
from facekit.errors import WeightsError
from facekit.model import ModelConfig, SharedNetwork
from facekit.weights import load_weights, model_record, rows_held_out, save_weights, shipped
from facekit.writing import write_atomically

SMALL = ModelConfig(width=16, blocks=(1, 1, 1, 1))


@pytest.fixture
def stored(tmp_path):
    torch.manual_seed(0)
    network = SharedNetwork(SMALL)
    path = tmp_path / "small.safetensors"
    digest = save_weights(path, network, "shared", {"name": "small", "model": model_record(SMALL)})
    return path, network, digest


def test_weights_come_back_in_half_precision(stored):
    path, network, digest = stored
    loaded = load_weights(path)
    assert (loaded.name, loaded.sha256) == ("small", digest)
    assert loaded.network.config == SMALL
    assert not loaded.network.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name].float(), tensor.half().float())


def test_a_folder_of_a_run_stands_for_its_weights(stored):
    path, *_ = stored
    path.rename(path.with_name("weights.safetensors"))
    assert load_weights(path.parent).name == "small"


def test_every_shipped_file_has_the_sha256_of_the_manifest_and_all_fit_the_wheel():
    total = 0
    assert "default" in shipped()
    for name in shipped():
        _, path, expected = weights.find_weights(name)
        data = path.read_bytes()
        assert sha256(data).hexdigest() == expected
        total += len(data)
    assert total < 25e6


def test_the_name_in_results_finds_the_shipped_weights():
    for name in shipped():
        found = weights.find_weights(name)
        assert weights.find_weights(found[0]) == found


def test_the_shipped_header_says_where_the_weights_come_from():
    header = load_weights("default").header
    for key in (
        "model",
        "mean",
        "std",
        "crop_factor",
        "frame",
        "temperature",
        "sigma_factor",
        "data",
        "training",
    ):
        assert header[key], key
    assert len(rows_held_out(header["data"]["fer2013"])) >= 3000
    assert len(header["data"]["helen_train"]["held_out_rows"]) >= 100


def test_changed_shipped_weights_are_refused_with_both_digests(stored, monkeypatch):
    path, _, digest = stored
    monkeypatch.setattr(weights, "find_weights", lambda _: ("small", path, "0" * 64))
    with pytest.raises(WeightsError) as caught:
        load_weights("small")
    assert digest in str(caught.value)
    assert "0" * 64 in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"not weights"), "not a safetensors file"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "not a safetensors file"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), "expected kind"),
        (
            lambda path: save_file(
                {"a": torch.zeros(1)}, path, {"facekit": json.dumps({"version": 99, "kind": "shared"})}
            ),
            "version 99",
        ),
    ],
)
def test_damaged_or_foreign_files_are_refused(stored, damage, message):
    path, *_ = stored
    damage(path)
    with pytest.raises(WeightsError, match=message):
        load_weights(path)


def test_tensors_of_another_network_are_refused(stored, tmp_path):
    other = tmp_path / "other.safetensors"
    wider = ModelConfig(width=24, blocks=(1, 1, 1, 1))
    save_weights(other, SharedNetwork(SMALL), "shared", {"model": model_record(wider)})
    with pytest.raises(WeightsError, match="do not fit"):
        load_weights(other)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(WeightsError, match="default"):
        load_weights("enormous")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "file.bin"
    target.write_bytes(b"before")
    monkeypatch.setattr("pathlib.Path.replace", _fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
    assert target.read_bytes() == b"before"


def _fail(*_: object) -> None:
    raise OSError("disk full")
