from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made import HEADS

from facekit.configuration import TrainConfig
from facekit.continuing import go_on_with, of_tasks
from facekit.errors import ConfigError
from facekit.model import ModelConfig, SharedNetwork
from facekit.weights import Weights, model_record, save_weights

MODEL = ModelConfig(width=8, blocks=(1, 1, 1, 1), map_channels=8, heads=HEADS)


def test_blocks_that_the_weights_lack_change_nothing_at_first():
    torch.manual_seed(1)
    first = SharedNetwork(MODEL).eval()
    deeper = TrainConfig(start="first", model=replace(MODEL, blocks=(1, 2, 1, 3)))
    grown = go_on_with(Weights("first", first, {}, ""), deeper).eval()
    crops = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        for before, after in zip(first.keypoints(crops), grown.keypoints(crops), strict=True):
            torch.testing.assert_close(after, before)
        answers = [network.expression(crops[..., ::2, ::2])["fer2013"] for network in (first, grown)]
    torch.testing.assert_close(*answers)


def grown_by(factor: float, network: SharedNetwork) -> SharedNetwork:
    """Make a convolution larger by so much, and what follows it as if it were not."""
    block = network.trunk.stages[1][0]
    with torch.no_grad():
        block.conv1.weight *= factor
        for norm in block.bn1.norms.values():
            norm.running_mean *= factor
            norm.running_var *= factor**2
    return network


def test_weights_that_have_grown_are_made_small_and_answer_as_before():
    torch.manual_seed(1)
    first = grown_by(20, SharedNetwork(MODEL).eval())
    size = first.trunk.stages[1][0].conv1.weight.norm()
    network = go_on_with(Weights("first", first, {}, ""), TrainConfig(start="first", model=MODEL)).eval()
    assert network.trunk.stages[1][0].conv1.weight.norm() < size / 10
    crops = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(network.keypoints(crops)[0], first.keypoints(crops)[0], atol=0.01, rtol=0)


@pytest.fixture
def stored(tmp_path):
    """Give two networks, the first with a large convolution, and where the second and its halves lie."""
    torch.manual_seed(1)
    first, second = grown_by(20, SharedNetwork(MODEL).eval()), SharedNetwork(MODEL).eval()
    places = {}
    for tasks in (("keypoints", "expression"), ("keypoints",), ("expression",)):
        network = of_tasks(Weights("second", second, {}, ""), tasks).network
        places[tasks] = str(tmp_path / f"{'-'.join(tasks)}.safetensors")
        save_weights(tmp_path / places[tasks], network, "shared", {"model": model_record(network.config)})
    return Weights("first", first, {}, ""), Weights("second", second, {}, ""), places


def test_weights_are_averaged_at_one_size(stored):
    first, second, places = stored
    config = TrainConfig(start="first", model=MODEL, averaged={places["keypoints", "expression"]: 0.25})
    mean, *ends = (
        dict(go_on_with(begun, replace(config, averaged=others)).named_parameters())
        for begun, others in ((first, config.averaged), (first, {}), (second, {}))
    )
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, ends[0][name].lerp(ends[1][name], 0.25), atol=1e-3, rtol=0)


@pytest.mark.parametrize("tasks", [("expression",), ("keypoints", "expression")])
def test_members_begin_as_other_weights_behind_the_shared_stages(stored, tasks):
    first, second, places = stored
    config = TrainConfig(start="first", model=replace(MODEL, members=2), joined=(places[tasks],))
    network = go_on_with(first, config).eval()
    spliced = second.network
    for stage in range(2):
        spliced.trunk.stages[stage] = first.network.trunk.stages[stage]
    spliced.stems = first.network.stems
    crops = torch.rand(2, 1, 48, 48)
    with torch.inference_mode():
        opinions = network.expression(crops)["fer2013"]
        for place, alone in enumerate((first.network, spliced.eval())):
            expected = alone.expression(crops)["fer2013"][:, 0]
            torch.testing.assert_close(opinions[:, place], expected, atol=1e-3, rtol=0)


def test_members_that_nothing_joins_are_fresh_and_those_that_are_there_stay(stored):
    first, _, places = stored
    config = TrainConfig(start="first", model=replace(MODEL, members=3), joined=(places["expression",],))
    network = go_on_with(first, config)
    state = network.state_dict()
    begun = network.members[0].state_dict(), network.members[1].state_dict()
    assert not any(torch.equal(begun[0][name], begun[1][name]) for name in begun[0] if "conv" in name)
    kept = go_on_with(Weights("grown", network, {}, ""), replace(config, joined=())).state_dict()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, state[name], atol=1e-3, rtol=1e-3)


def test_members_join_those_that_are_there(stored):
    first, second, places = stored
    config = TrainConfig(start="first", model=replace(MODEL, members=2))
    pair = Weights("pair", go_on_with(first, config), {}, "")
    grown = replace(config, model=replace(MODEL, members=3), joined=(places["expression",],))
    network = go_on_with(pair, grown)
    for place, expected in enumerate((pair.network.members[0].heads, second.network.expression_heads)):
        for name, tensor in network.members[place].heads.state_dict().items():
            torch.testing.assert_close(tensor, expected.state_dict()[name], atol=1e-3, rtol=0)


def test_an_ensemble_gives_its_last_member(stored, tmp_path):
    first, _, places = stored
    config = TrainConfig(start="first", model=replace(MODEL, members=3), joined=(places["expression",],))
    three = go_on_with(first, config)
    place = str(tmp_path / "three.safetensors")
    save_weights(tmp_path / place, three, "shared", {"model": model_record(three.config)})
    model = replace(MODEL, members=2, tasks=("expression",))
    pair = go_on_with(first, replace(config, model=model, joined=(place,)))
    for name, tensor in pair.members[0].state_dict().items():
        torch.testing.assert_close(tensor, three.members[1].state_dict()[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("tasks", [("expression",), ("keypoints", "expression")])
def test_new_members_learn_alone_where_one_task_is_taught(stored, tasks):
    first, _, places = stored
    model = replace(MODEL, members=3, tasks=tasks)
    network = go_on_with(first, TrainConfig(start="first", model=model, joined=(places[tasks],))).train()
    told = network.expression(torch.rand(4, 1, 48, 48))["fer2013"]
    assert told.shape == (4, 2 if tasks == ("expression",) else 3, 7)
    told.sum().backward()
    learn = {
        name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None
    }
    assert "members" in learn
    assert ("trunk" in learn) == (len(tasks) == 2)
    assert network.eval().expression(torch.rand(4, 1, 48, 48))["fer2013"].shape == (4, 3, 7)


def test_members_of_another_network_are_refused(stored):
    first, _, places = stored
    config = TrainConfig(start="first", model=MODEL, joined=(places["expression",],))
    with pytest.raises(ConfigError, match=r"expression.safetensors: weights of another network"):
        go_on_with(first, config)


@pytest.mark.parametrize("task", ["keypoints", "expression"])
def test_weights_of_one_task_leave_the_other_s_own_parts(stored, task):
    first, second, places = stored
    config = TrainConfig(start="first", model=MODEL)
    before, after, theirs = (
        go_on_with(begun, replace(config, averaged=others))
        for begun, others in ((first, {}), (first, {places[task,]: 1.0}), (second, {}))
    )
    for other in MODEL.tasks:
        source = theirs if other == task else before
        for own, expected in zip(after.own_parameters(other), source.own_parameters(other), strict=True):
            torch.testing.assert_close(own, expected, atol=1e-3, rtol=0)


def test_averages_that_cannot_be_taken_are_refused(stored, tmp_path):
    first, _, places = stored
    config = TrainConfig(start="first", model=MODEL)
    for shares in ({places["keypoints",]: 1.1}, {places["keypoints",]: 0.7, places["expression",]: 0.7}):
        with pytest.raises(ConfigError, match="expected parts of 1"):
            go_on_with(first, replace(config, averaged=shares))
    wide = SharedNetwork(replace(MODEL, width=16))
    place = tmp_path / "wide.safetensors"
    save_weights(place, wide, "shared", {"model": model_record(wide.config)})
    with pytest.raises(ConfigError, match=r"wide.safetensors: weights of another network"):
        go_on_with(first, replace(config, averaged={str(place): 0.5}))
    alone = replace(MODEL, tasks=("expression",))
    with pytest.raises(ConfigError, match="the data teach expression alone"):
        go_on_with(first, replace(config, model=alone, averaged={places["expression",]: 0.5}))


def test_one_task_of_two_is_taken_alone():
    torch.manual_seed(1)
    both = SharedNetwork(MODEL).eval()
    crops = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        both.expression(crops)
        alone = of_tasks(Weights("both", both, {}, ""), ("expression",)).network.eval()
        assert torch.equal(alone.expression(crops)["fer2013"], both.expression(crops)["fer2013"])
