"""Training by several processes: each runs the network on its share of a batch and sees all answers.

Every process draws the same batches from the same random numbers and computes the same loss of the whole
batch. Only the network's own work is shared out, and with it the statistics of batch norms, the draws of
dropout and the gradients. Several processes therefore compute what one does, up to the order of sums.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from facekit.errors import ConfigError, ProcessError

PATIENCE = timedelta(days=2)
"""How long processes wait for the first one to prepare the data; torchrun ends them all when one dies."""

R = TypeVar("R")
Y = TypeVar("Y")


@dataclass(frozen=True)
class Processes:
    """The processes of one training.

    Attributes
    ----------
    rank : int
        Place of this process, from 0.
    count : int
    """

    rank: int
    count: int

    @property
    def leads(self) -> bool:
        """Tell whether this is the process that prepares the data, writes files and reports."""
        return self.rank == 0

    def shared(self, network: nn.Module) -> nn.Module:
        """Give a network that runs each process's share of a batch and answers for the whole batch."""
        return network if self.count == 1 else Shared(network, self)

    def add_gradients(self, network: nn.Module) -> None:
        """Add up all processes' gradients, each of which comes from the process's own share."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = _added(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def from_leader(self, function: Callable[[], R]) -> R:
        """Give what the function gives in the leading process; it is not called in the others."""
        if self.count == 1:
            return function()
        return self._spread(function() if self.leads else None)

    def led(self, steps: Generator[Y, None, R]) -> Generator[Y, None, R]:
        """Go through the steps in the leading process alone, and return their result in all of them."""
        if self.count == 1:
            return (yield from steps)
        return self._spread((yield from steps) if self.leads else None)

    def _spread(self, value: R | None) -> R:
        box: list[Any] = [value]
        with _company():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        value_of_leader: R = box[0]
        return value_of_leader


ALONE = Processes(0, 1)


def join_processes(device: torch.device) -> tuple[Processes, torch.device]:
    """Meet the processes that torchrun has started, if it has, and give this one's device.

    They speak by NCCL about what lies on GPUs, one a process, and by gloo about the rest.

    Raises
    ------
    ConfigError
        There is no device for this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, device
    if device.type == "cuda":
        place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= gpus:
            raise ConfigError(f"no GPU for process {place}: {gpus} here; --nproc-per-node is at most that")
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise ConfigError(f"several processes train on CUDA or the CPU, not on {device.type}")
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return Processes(dist.get_rank(), dist.get_world_size()), device


class Batch(NamedTuple):
    """The batch that is under way: the rows of this process, and how many there are in all."""

    rows: slice
    size: int


class Shared(nn.Module):
    """Runs a network on this process's rows of each batch and gathers the answers of all.

    The loss of the gathered answers is the same in each process, and its gradient reaches the process's own
    rows only. Batch norms and dropout act as they would on the whole batch.

    Parameters
    ----------
    network : nn.Module
        Called with a batch (B, ...) and more arguments, answers in tensors (B, ...).
    processes : Processes
    """

    def __init__(self, network: nn.Module, processes: Processes) -> None:
        super().__init__()
        self.network, self.processes = network, processes
        for module in network.modules():
            module.__class__ = WHOLE.get(type(module), type(module))
        self._layers = [
            module for module in network.modules() if isinstance(module, WholeBatchNorm | WholeDropout)
        ]

    def forward(self, crops: Tensor, *task: str) -> Any:
        """Give the network's answers for the whole batch (B, ...)."""
        size, rank, count = len(crops), self.processes.rank, self.processes.count
        if size < count:
            if torch.is_grad_enabled():
                raise ConfigError(f"a batch of {size} is too small for {count} processes; start fewer")
            return self.network(crops, *task)
        batch = Batch(slice(rank * size // count, (rank + 1) * size // count), size)
        for layer in self._layers:
            layer.batch = batch
        return tree_map(lambda own: _Gather.apply(own, *batch), self.network(crops[batch.rows], *task))


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch norm by the statistics of the whole batch; torch's SyncBatchNorm is for GPUs only."""

    batch: Batch

    def forward(self, x: Tensor) -> Tensor:
        """Normalise this process's rows (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        count = self.batch.size * x[0, 0].numel()
        with torch.no_grad():
            mean, variance = _statistics(x, count)
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, self.eps, count)  # type: ignore[no-any-return]


class WholeDropout(nn.Dropout):
    """Dropout that draws for the whole batch and keeps to this process's rows."""

    batch: Batch

    def forward(self, x: Tensor) -> Tensor:
        """Drop some of this process's rows (B, ...)."""
        if not self.training:
            return x
        return x * super().forward(x.new_ones(self.batch.size, *x.shape[1:]))[self.batch.rows]


WHOLE: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: WholeBatchNorm,
    nn.Dropout: WholeDropout,
}
"""What each layer that mixes rows, or draws for them, becomes."""


class _Gather(torch.autograd.Function):
    """From each process's rows to all rows; the gradient of all rows is the same in each process."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: slice, size: int) -> Tensor:
        ctx.rows = rows
        whole = own.new_zeros(size, *own.shape[1:])
        whole[rows] = own
        return _added(whole)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.rows], None, None


def _statistics(own: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Give mean and variance (C,) of the whole batch, `count` values a channel, of each process's rows."""
    nothing = torch.zeros(own.shape[1], device=own.device)
    mean, variance = torch.batch_norm_update_stats(own, nothing, nothing.clone(), 0.0)
    share = own[:, 0].numel() / count
    whole = _added(mean * share)
    return whole, _added((variance + (mean - whole).square()) * share)


class _Normalise(torch.autograd.Function):
    """Batch norm by the mean and variance of the whole batch, on which all processes' rows bear."""

    @staticmethod
    def forward(
        ctx: Any,
        own: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        count: int,
    ) -> Tensor:
        ctx.save_for_backward(own, weight, mean, variance)
        ctx.eps, ctx.count = eps, count
        return F.batch_norm(own, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        own, weight, mean, variance = ctx.saved_tensors
        # As if mean and variance were given; what they bring back is a line in `own` for each channel.
        direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, own, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        both = _added(torch.stack([of_weight, of_bias])) * (weight * (variance + ctx.eps).rsqrt() / ctx.count)
        through = F.batch_norm(own, mean, variance, both[0], both[1], eps=ctx.eps)
        return direct - through, of_weight, of_bias, None, None, None, None


def _added(tensor: Tensor) -> Tensor:
    """Add up a contiguous tensor over the processes, in place."""
    with _company():
        dist.all_reduce(tensor)
    return tensor


@contextmanager
def _company() -> Iterator[None]:
    """Say it plainly when another process has left."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ProcessError(
            "another process of this training has ended, torchrun tells which; start again with --resume to "
            f"go on after the last finished epoch ({reason})"
        ) from error
