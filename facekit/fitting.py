"""The one training loop: steps over objectives, averaged weights, a checkpoint and a record each epoch."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from facekit.distributed import ALONE, Processes
from facekit.errors import ConfigError, WeightsError
from facekit.model import multiplies_bfloat16
from facekit.objectives import Objective
from facekit.plots import training_curves
from facekit.writing import write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitConfig:
    """How weights are fitted.

    Attributes
    ----------
    epochs : int
    optimizer : str
        sgd (Nesterov momentum .9) or adamw.
    cycles : int
        How often the learning rate rises and falls; the epochs are shared out evenly [1]_.
    learning_rate : float
        A cycle's peak, reached after the warm-up; then a cosine down to nothing.
    weight_decay : float
        On weights of convolutions and linear layers.
    warmup : float
        Share of a cycle's steps.
    average : float
        Decay a step of the exponential moving average of the weights, which is what is evaluated and kept.
    clip : float
        Largest norm of the gradient.
    early_share : float
        Share of a cycle's epochs that belong to its early phase, see the objectives; 0: there is none.
    seed : int
    precision : str
        auto (mixed with bfloat16 where the device multiplies it natively) or float32.
    compiled : bool
        Compile the network (torch.compile); pays on accelerators after some minutes.
    ends : int
        The last so many cycles whose ends are averaged into the weights that are kept [2]_.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    .. [2] P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
    """

    epochs: int = 30
    cycles: int = 1
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    warmup: float = 0.05
    average: float = 0.999
    clip: float = 5.0
    early_share: float = 0.0
    seed: int = 0
    precision: str = "auto"
    compiled: bool = False
    ends: int = 1


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch brought.

    Attributes
    ----------
    epoch : int
        From 1.
    epochs : int
        Of the whole run.
    seconds : float
        Training and validation of this epoch.
    losses : dict
        Mean loss of each objective.
    figures : dict
        What the objectives' `validate` gave for the averaged weights.
    """

    epoch: int
    epochs: int
    seconds: float
    losses: dict[str, float]
    figures: dict[str, float]

    def row(self) -> dict[str, float]:
        """Give the line of history.csv."""
        losses = {f"{name}_loss": round(loss, 5) for name, loss in self.losses.items()}
        figures = {name: round(figure, 5) for name, figure in self.figures.items()}
        return {"epoch": self.epoch, "seconds": round(self.seconds, 2), **losses, **figures}


class Average:
    """Exponential moving average of a network's weights and batch statistics."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        current = network.state_dict()
        self.state = {key: tensor.clone() for key, tensor in current.items()}
        names = [key for key, tensor in current.items() if tensor.is_floating_point()]
        self.ends: list[dict[str, Tensor]] = []
        # The network's own tensors, which training changes in place.
        self._theirs = [current[key] for key in names]
        self._mine = [self.state[key] for key in names]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network's weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._mine, self._theirs, 1 - decay)

    def end_cycle(self, kept: int) -> None:
        """Remember the average at the end of a cycle, and no more than so many of them."""
        self.ends.append({key: tensor.clone() for key, tensor in self.state.items()})
        del self.ends[: max(0, len(self.ends) - kept)]

    def over_cycles(self, count: int) -> dict[str, Tensor]:
        """Give the mean of the averages at the ends of the last so many cycles, this one's the last."""
        every = [*self.ends, self.state][-count:]
        return {
            key: sum(state[key] for state in every) / len(every) if tensor.is_floating_point() else tensor
            for key, tensor in self.state.items()
        }

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Take over a stored average."""
        self.steps = steps
        for key, tensor in state.items():
            self.state[key].copy_(tensor)


def fit(
    network: nn.Module,
    objectives: Sequence[Objective],
    config: FitConfig,
    out: Path,
    *,
    resume: bool = False,
    processes: Processes = ALONE,
) -> Iterator[EpochRecord]:
    """Train a network in place; when the iterator ends it holds the averaged weights.

    Each epoch's random numbers follow from the seed and the epoch alone, so a resumed run continues as an
    unbroken one.

    Parameters
    ----------
    network : nn.Module on the device, called as ``network(crops, task)``
    objectives : sequence of Objective
        The first one's batches make an epoch.
    config : FitConfig
    out : Path
        Folder of checkpoint.safetensors, history.csv and history.png, written each epoch.
    resume : bool
        Go on from the folder's checkpoint, if there is one; False: it is removed.
    processes : Processes
        Those that call this alike and share the work; the first one reads and writes the files and yields.

    Raises
    ------
    ConfigError
        Unknown optimizer or precision.
    WeightsError
        The checkpoint is of another network.
    ProcessError
        Another process has ended.
    """
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)
    optimizer = _optimizer(network, config)
    average = Average(network, config.average)
    history: list[dict[str, float]] = []
    checkpoint = out / "checkpoint.safetensors"
    if not resume and processes.leads and checkpoint.is_file():
        _log.warning("%s: removed, for this run begins anew; with resume it would have gone on", checkpoint)
        checkpoint.unlink()
    if resume and (stored := processes.from_leader(lambda: _read(checkpoint))):
        history = _restore(checkpoint, stored, network, average, optimizer)
    steps = objectives[0].batches()
    if config.precision not in ("auto", "float32"):
        raise ConfigError(f"unknown precision {config.precision!r}: expected auto or float32")
    native = config.precision == "auto" and multiplies_bfloat16(device)
    running = processes.shared(Mixed(torch.compile(network) if config.compiled else network, native))
    for epoch in range(len(history), config.epochs):
        started = time.perf_counter()
        seed = config.seed * 100_003 + epoch
        torch.manual_seed(seed)
        generator = torch.Generator(device).manual_seed(seed)
        if epoch and epoch * config.cycles % config.epochs == 0:
            average.end_cycle(config.ends - 1)
        cycle, done = divmod(epoch * config.cycles / config.epochs, 1)
        for objective in objectives:
            objective.start_epoch(int(cycle), done, generator)
        _train(network)
        sums = {objective.name: torch.zeros((), device=device) for objective in objectives}
        for step in range(steps):
            done = (epoch * steps + step) * config.cycles / (config.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _shape(done % 1, config.warmup)
            total = torch.zeros((), device=device)
            for objective in objectives:
                if step % objective.every == 0:
                    loss = objective.loss(running, step, generator)
                    sums[objective.name] += loss.detach() * objective.every
                    total = total + loss
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            processes.add_gradients(network)
            nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimizer.step()
            average.update()
        figures = _validate(network, average, objectives, processes.shared(Mixed(network, native)))
        losses = {name: float(total) / steps for name, total in sums.items()}
        record = EpochRecord(epoch + 1, config.epochs, time.perf_counter() - started, losses, figures)
        history.append(record.row())
        if processes.leads:
            _save(checkpoint, network, average, optimizer, history)
            _write_history(out, history)
            yield record
    network.load_state_dict(average.over_cycles(config.ends))
    network.eval()


class Mixed(nn.Module):
    """Runs the network alone in bfloat16: the coordinates of crops and points need float32."""

    def __init__(self, network: Any, native: bool) -> None:
        super().__init__()
        self.network, self.native = network, native

    def forward(self, crops: Tensor, *task: str) -> Any:
        """Give what the network gives for crops, and for the task that is named."""
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=self.native):
            return self.network(crops, *task)


def begin_with(
    network: nn.Module,
    state: Mapping[str, Tensor],
    start: str,
    last_norm: Callable[[nn.Module], nn.Module | None],
) -> None:
    """Take over weights; residual blocks that they lack give what they get.

    Parameters
    ----------
    network : nn.Module
    state : mapping of name to tensor
        The weights.
    start : str
        Where they come from.
    last_norm : callable
        Gives the batch norm before the sum of a residual block that keeps its input's shape, None for other
        modules.

    Raises
    ------
    ConfigError
        They are of another network.
    """
    own = network.state_dict()
    lacking = own.keys() - state.keys()
    alike = all(name in own and tensor.shape == own[name].shape for name, tensor in state.items())
    silent = []
    for name, block in network.named_modules():
        parts = {f"{name}.{part}" for part in block.state_dict()}
        if (norm := last_norm(block)) is not None and parts <= lacking:
            silent.append(norm)
            lacking -= parts
    if not alike or lacking:
        raise ConfigError(f"start = {start!r}: weights of another network than [model] describes")
    network.load_state_dict(own | dict(state))
    for norm in silent:
        for name, parameter in norm.named_parameters():
            if name.endswith("weight"):
                nn.init.zeros_(parameter)


def _shape(done: float, warmup: float) -> float:
    """Give the share of the peak learning rate after a share `done` of a cycle's steps."""
    if done < warmup:
        return done / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (done - warmup) / (1 - warmup))


def _optimizer(network: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    plain = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=0.9, nesterov=True, fused=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.learning_rate, fused=True)
    raise ConfigError(f"unknown optimizer {config.optimizer!r}: expected sgd or adamw")


def _train(network: nn.Module) -> None:
    """Set training mode; batch norms that are not trained keep their statistics."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def _validate(
    network: nn.Module, average: Average, objectives: Sequence[Objective], running: nn.Module
) -> dict[str, float]:
    kept = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.load_state_dict(average.state)
    network.eval()
    figures: dict[str, float] = {}
    for objective in objectives:
        figures |= objective.validate(running)
    network.load_state_dict(kept)
    return figures


def _save(
    path: Path,
    network: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, float]],
) -> None:
    tensors = {f"network.{key}": tensor for key, tensor in network.state_dict().items()}
    tensors |= {f"average.{key}": tensor for key, tensor in average.state.items()}
    for place, end in enumerate(average.ends):
        tensors |= {f"end.{place}.{key}": tensor for key, tensor in end.items()}
    for place, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{place}.{key}": torch.as_tensor(value) for key, value in state.items()}
    # Cloned, because safetensors refuses tensors that share memory.
    stored = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    record = {"history": json.dumps(history), "average_steps": str(average.steps)}
    write_atomically(path, save(stored, record))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]] | None:
    """Give a checkpoint's header and tensors, or None if there is no checkpoint."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)


def _restore(
    path: Path,
    stored: tuple[dict[str, str], dict[str, Tensor]],
    network: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
) -> list[dict[str, float]]:
    record, tensors = stored

    def part(prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}

    try:
        network.load_state_dict(part("network."))
    except RuntimeError as error:
        raise WeightsError(
            f"{path}: a checkpoint of another network; choose another --out: {error}"
        ) from error
    average.restore(part("average."), int(record["average_steps"]))
    while end := part(f"end.{len(average.ends)}."):
        average.ends.append({key: tensor.to(average.state[key].device) for key, tensor in end.items()})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in part("optimizer.").items():
        place, name = key.split(".", 1)
        parameter = parameters[int(place)]
        # Fused optimizers take for granted that states lie in memory as their parameters do.
        alike = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(place), {})[name] = alike
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    history: list[dict[str, float]] = json.loads(record["history"])
    _log.info("%s: resumed after epoch %d", path, len(history))
    return history


def _write_history(out: Path, history: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(out / "history.csv", text.getvalue().encode())
    picture = io.BytesIO()
    training_curves({name: [row[name] for row in history] for name in history[-1]}).savefig(picture, dpi=110)
    write_atomically(out / "history.png", picture.getvalue())
