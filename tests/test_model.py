from __future__ import annotations

import pytest
import torch

from facekit import processor
from facekit.model import TASKS, Branch, ModelConfig, SharedNetwork, multiplies_bfloat16
from facekit.schema import EXPRESSIONS, FERPLUS, INPUT_SIZE


@pytest.fixture(scope="module")
def network() -> SharedNetwork:
    torch.manual_seed(0)
    config = ModelConfig(width=16, heads={"fer2013": EXPRESSIONS, "ferplus": FERPLUS}, members=2)
    network = SharedNetwork(config)
    network.train()
    for task in TASKS:  # so that every batch norm has statistics of its own
        for _ in range(3):
            network(torch.randn(4, 1, INPUT_SIZE[task], INPUT_SIZE[task]) + 1, task)
    return network.eval()


def test_the_default_has_the_size_that_the_design_names():
    assert 2.7e6 < sum(part.numel() for part in SharedNetwork(ModelConfig()).parameters()) < 3.0e6


def test_outputs_have_the_stated_shapes_and_ranges(network):
    points, sigma = network(torch.randn(3, 1, 96, 96), "keypoints")
    assert points.shape == (3, 15, 2)
    assert sigma.shape == (3, 15)
    assert points.min() >= 0
    assert points.max() <= 95
    assert sigma.min() > 0
    logits = network(torch.randn(3, 1, 48, 48), "expression")
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "fer2013": (3, 2, 7),
        "ferplus": (3, 2, 8),
    }


@torch.inference_mode()
def test_branches_give_what_the_network_gives(network):
    crops = {task: torch.randn(5, 1, INPUT_SIZE[task], INPUT_SIZE[task]) for task in TASKS}
    points, sigma = Branch(network, "keypoints")(crops["keypoints"])
    expected_points, expected_sigma = network(crops["keypoints"], "keypoints")
    torch.testing.assert_close(points, expected_points, atol=1e-3, rtol=0)
    torch.testing.assert_close(sigma, expected_sigma, atol=1e-3, rtol=0)
    logits = Branch(network, "expression")(crops["expression"])
    for head, expected in network(crops["expression"], "expression").items():
        torch.testing.assert_close(logits[head], expected.mean(1), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_batch_gives_what_single_crops_give(network):
    crops = torch.randn(6, 1, 96, 96)
    branch = Branch(network, "keypoints")
    together, _ = branch(crops)
    alone = torch.cat([branch(crop[None])[0] for crop in crops])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)


def test_each_task_moves_only_its_own_norms_and_both_move_the_trunk():
    torch.manual_seed(0)
    network = SharedNetwork(ModelConfig(width=16, blocks=(1, 1, 1, 1)))
    network(torch.randn(2, 1, 48, 48), "expression")["fer2013"].sum().backward()
    touched = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("trunk") and "norms" not in name for name in touched)
    assert not any("norms.keypoints" in name or name.startswith("keypoint_head") for name in touched)


def test_a_single_task_network_has_no_other_parts():
    names = SharedNetwork(ModelConfig(width=16, tasks=("keypoints",))).state_dict()
    assert not any("expression" in name or "norms" in name for name in names)


def test_soft_argmax_reads_the_place_of_a_peak():
    network = SharedNetwork(ModelConfig(width=16))
    head = network.keypoint_head
    peak = torch.full((1, 15, 24, 24), -50.0)
    peak[:, :, 5, 9] = 50.0
    head.laterals = torch.nn.ModuleList(_Constant(torch.zeros(1, 64, side, side)) for side in (24, 12, 6))
    head.maps = _Constant(peak)
    points, _ = head([torch.zeros(1, 1, side, side) for side in (48, 24, 12, 6)])
    torch.testing.assert_close(points[0, 0], torch.tensor([9 * 4 + 1.5, 5 * 4 + 1.5]))


class _Constant(torch.nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.value


@pytest.mark.parametrize(
    ("amx", "vectors", "vendor", "expected"),
    [
        (True, True, "GenuineIntel", True),
        (False, True, "GenuineIntel", False),
        (False, True, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, amx, vectors, vendor, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    monkeypatch.setattr(processor, "told", lambda: f"vendor_id : {vendor}")
    assert multiplies_bfloat16(torch.device("cpu")) is expected
