"""Training goes on from given weights: the network it begins with, and what stays true of the other task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from facekit.configuration import TrainConfig
from facekit.errors import ConfigError
from facekit.fitting import begin_with
from facekit.model import TASKS, SharedNetwork, Task, TaskBatchNorm
from facekit.schema import SHARED_STAGES
from facekit.weights import Weights, completed, load_weights, model_record, seen_by


def go_on_with(given: Weights, config: TrainConfig) -> SharedNetwork:
    """Give the network that training goes on with.

    If the configuration's tasks are not all that the weights do, nothing is trained that another task uses,
    and if expressions are to get further members, these alone. Otherwise convolutions before batch norms are
    scaled to the size of a fresh network's, which leaves answers as they were: training lets them grow, and
    large ones hardly move at a learning rate that is right for fresh ones [1]_. The configuration's
    `averaged` are scaled alike, and averaged with them [2]_.

    Raises
    ------
    ConfigError
        [model] describes another network, or one without batch norms of its own for the only task.

    References
    ----------
    .. [1] T. van Laarhoven, "L2 Regularization versus Batch and Weight Normalization", 2017.
    .. [2] M. Wortsman et al., "Model soups", ICML 2022.
    """
    taught = config.model.tasks
    idle = set(given.network.config.tasks) - set(taught)
    if idle and not config.model.norm_per_task:
        raise ConfigError(f"start = {config.start!r}: {taught[0]} alone need batch norms of their own")
    if idle and config.averaged:
        raise ConfigError(f"averaged changes the trunk; the data teach {taught[0]} alone")
    model = replace(config.model, tasks=tuple(task for task in TASKS if task in (*taught, *idle)))
    torch.manual_seed(config.fit.seed)
    network = SharedNetwork(model)
    sizes = {name: float(convolution.weight.detach().norm()) for name, convolution, _ in _normed(network)}
    members = _members(network, config.joined, given.network.config.members - 1)
    begin_with(network, members | given.network.state_dict(), config.start, _last_norm)
    if idle:
        network.requires_grad_(False)
        own = network.own_parameters(taught[0])
        if "expression" in taught:
            own = list(network.members[given.network.config.members - 1 :].parameters()) or own
        for parameter in own:
            parameter.requires_grad_(True)
        return network
    _scale_to(network, sizes)
    if config.averaged:
        network.load_state_dict(_mean(network, config.averaged, sizes))
    return network


def _members(network: SharedNetwork, joined: Sequence[str], first: int) -> dict[str, Tensor]:
    """Give what the ensemble's members from `first` on begin with: later stages and heads of others."""
    members = {name: part for name, part in network.state_dict().items() if name.startswith("members.")}
    for place, other in enumerate(joined, first):
        theirs = of_tasks(load_weights(other), ("expression",)).network
        trunk = {"stages": theirs.trunk.stages[SHARED_STAGES:], "heads": theirs.expression_heads}
        last = theirs.members[-1] if theirs.config.members > 1 else nn.ModuleDict(trunk)
        for name, tensor in last.state_dict(prefix=f"members.{place}.").items():
            if name not in members or members[name].shape != tensor.shape:
                raise ConfigError(f"joined: {other}: weights of another network than [model] describes")
            members[name] = tensor
    return members


def _mean(
    network: SharedNetwork, shares: Mapping[str, float], sizes: Mapping[str, float]
) -> dict[str, Tensor]:
    """Average a network with others, by their shares; one that lacks a task has none in what serves it."""
    rest = 1 - sum(shares.values())
    if not all(0 < share <= 1 for share in (*shares.values(), 1 - rest)):
        raise ConfigError(f"averaged: shares of {', '.join(map(str, shares.values()))}; expected parts of 1")
    mean = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights = dict.fromkeys(mean, rest)
    for other, share in shares.items():
        theirs = of_tasks(load_weights(other), network.config.tasks).network
        _scale_to(theirs, sizes)
        tasks, state = theirs.config.tasks, theirs.state_dict()
        names = {name.replace(f".norms.{tasks[0]}.", ".") if len(tasks) == 1 else name: name for name in mean}
        if any(name not in names or mean[names[name]].shape != state[name].shape for name in state):
            raise ConfigError(f"averaged: {other}: weights of another network than [model] describes")
        for name, tensor in state.items():
            weights[names[name]] += share
            if tensor.is_floating_point():
                mean[names[name]].lerp_(tensor, share / weights[names[name]])
    return mean


def of_tasks(given: Weights, tasks: tuple[Task, ...]) -> Weights:
    """Give what weights do for some of their tasks, all if none of theirs is left out."""
    config = given.network.config
    kept = tuple(task for task in config.tasks if task in tasks)
    if kept == config.tasks or not kept:
        return given
    network = SharedNetwork(replace(config, tasks=kept))
    state = {
        name.replace(f".norms.{kept[0]}.", "."): tensor for name, tensor in given.network.state_dict().items()
    }
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return replace(given, network=network)


def _normed(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d, list[nn.BatchNorm2d]]]:
    """Give each convolution before a batch norm, by name, and the norm of each task."""
    for name, module in network.named_modules():
        for (place, first), (_, then) in pairwise(module.named_children()):
            if isinstance(first, nn.Conv2d) and isinstance(then, nn.BatchNorm2d | TaskBatchNorm):
                norms = [norm for norm in then.modules() if isinstance(norm, nn.BatchNorm2d)]
                yield f"{name}.{place}", first, norms


@torch.no_grad()
def _scale_to(network: nn.Module, sizes: Mapping[str, float]) -> None:
    for name, convolution, norms in _normed(network):
        factor = sizes[name] / convolution.weight.norm()
        convolution.weight *= factor
        for norm in norms:
            norm.running_mean *= factor
            norm.running_var *= factor**2


def _last_norm(module: nn.Module) -> nn.Module | None:
    return module.bn2 if isinstance(module, BasicBlock) and module.downsample is None else None


def header_after(header: dict[str, Any], given: Weights, network: SharedNetwork) -> dict[str, Any]:
    """Add to a header what the weights before say of the task that was not trained."""
    if set(network.config.tasks) == set(header["model"]["tasks"]):
        return header
    whole = completed(replace(given, header=header), given) | {"model": model_record(network.config)}
    return whole | {part: given.header[part] | header[part] for part in ("data", "held_out_figures")}


def seen_before(start: str) -> set[bytes]:
    """Give the content hashes of the pictures that weights come from."""
    seen = seen_by(start)
    return set() if seen is None else set(seen.view("V8").tolist())
