"""Training goes on from given weights: the network it begins with, and what stays true of the other task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from facekit.configuration import TrainConfig
from facekit.errors import ConfigError
from facekit.fitting import begin_with
from facekit.model import TASKS, SharedNetwork, Task
from facekit.weights import Weights, completed, model_record, seen_by


def go_on_with(given: Weights, config: TrainConfig) -> SharedNetwork:
    """Give the network that training goes on with.

    If the configuration's tasks are not all that the weights do, nothing is trained that another task uses.

    Raises
    ------
    ConfigError
        [model] describes another network, or one without batch norms of its own for the only task.
    """
    taught = config.model.tasks
    idle = set(given.network.config.tasks) - set(taught)
    if idle and not config.model.norm_per_task:
        raise ConfigError(f"start = {config.start!r}: {taught[0]} alone need batch norms of their own")
    model = replace(config.model, tasks=tuple(task for task in TASKS if task in (*taught, *idle)))
    torch.manual_seed(config.fit.seed)
    network = SharedNetwork(model)
    begin_with(network, given.network.state_dict(), config.start, _last_norm)
    if idle:
        network.requires_grad_(False)
        for parameter in network.own_parameters(taught[0]):
            parameter.requires_grad_(True)
    return network


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
