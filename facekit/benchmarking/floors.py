"""The hardware's limit: what a computation must do at least, and how fast this device can do that.

The floor of a call is the longer of two times: its multiplications and additions at the rate of a large
matrix product, and its traffic at the rate of a large copy. Traffic counts what convolutions and matrix
products read and write, each operand once; what lies between them could be fused into them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from facekit.benchmarking.measuring import Call, Clock, Figure, rounded

_aten = torch.ops.aten
_HEAVY = {_aten.convolution, _aten.mm, _aten.addmm, _aten.bmm}


@dataclass(frozen=True)
class Work:
    """What a call does.

    Attributes
    ----------
    operations : int
        Multiplications and additions of convolutions and matrix products.
    traffic : int
        Bytes that these read and write.
    """

    operations: int
    traffic: int


@dataclass(frozen=True)
class Peaks:
    """What a device can do, a second.

    Attributes
    ----------
    operations : float
        Of a large matrix product.
    traffic : float
        Bytes read and written by a large copy.
    """

    operations: float
    traffic: float


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in _HEAVY:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


@torch.no_grad()
def count_work(call: Call) -> Work:
    """Count the work of a call, by running it twice."""
    with FlopCounterMode(display=False) as operations:
        call()
    with _Traffic() as traffic:
        call()
    return Work(int(operations.get_total_flops()), traffic.total)


@cache
def measure_peaks(device: torch.device, dtype: torch.dtype) -> Peaks:
    """Measure a device's rates, the best of some tries, with the threads that are set."""
    clock, before = Clock(device), torch.get_float32_matmul_precision()
    side, length = (8192, 1 << 28) if device.type == "cuda" else (1536, 1 << 25)
    if device.type == "cuda":  # where convolutions of float32 take the tensor cores, as TF32
        torch.set_float32_matmul_precision("high")
    with torch.no_grad():
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        fastest = min(clock.seconds(lambda: a @ b) for _ in range(8))
        source = torch.randn(length, device=device)
        target = torch.empty_like(source)
        copied = min(clock.seconds(lambda: target.copy_(source)) for _ in range(8))
    torch.set_float32_matmul_precision(before)
    return Peaks(2 * side**3 / fastest, 2 * length * source.element_size() / copied)


def with_floor(figure: Figure, work: Work, peaks: Peaks, items: int) -> Figure:
    """Put the floor beside a figure in items a second.

    Parameters
    ----------
    work : Work of one call
    items : int
        Done by one call.
    """
    by_operations, by_traffic = work.operations / peaks.operations, work.traffic / peaks.traffic
    rate = items / max(by_operations, by_traffic)
    floor = {
        "operations": work.operations,
        "bytes": work.traffic,
        "peak_operations_per_s": rounded(peaks.operations),
        "peak_bytes_per_s": rounded(peaks.traffic),
        "limit": "operations" if by_operations >= by_traffic else "bytes",
        "rate": rounded(rate),
        "share": rounded(figure["median"] / rate),
    }
    return {**figure, "floor": floor}
