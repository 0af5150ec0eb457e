"""Networks as programs that PyTorch runs without facekit: TorchScript, and what torch.export makes."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from facekit.backends.torch import PRECISIONS
from facekit.detector_network import STRIDES, for_inference
from facekit.model import Branch, Task
from facekit.schema import INPUT_SIZE
from facekit.weights import load_detector, load_weights


class Portable(nn.Module):
    """A network in its own precision between inputs and outputs of float32."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.dtype = PRECISIONS[precision]
        self.network = network.to(self.dtype).requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        """Give what the network gives: a dict of logits, or a tuple."""
        given = self.network(x.to(self.dtype))
        if isinstance(given, dict):
            return {name: value.float() for name, value in given.items()}
        return tuple(value.float() for value in given)


def stage_program(weights: str, task: Task, format: str, precision: str) -> bytes:
    """Give the file of one stage; crops (B, 1, S, S) of any number."""
    network = Portable(Branch(load_weights(weights).network, task), precision)
    size = INPUT_SIZE[task]
    return _saved(network, torch.zeros(2, 1, size, size), format, {0: torch.export.Dim("batch")})


def detector_program(weights: str, format: str, precision: str) -> bytes:
    """Give the file of a detector; pictures (B, 3, H, W) of any number, and sizes that its strides divide."""
    network = Portable(for_inference(load_detector(weights)[0]), precision)
    step = STRIDES[-1]
    height, width = (step * torch.export.Dim(name) for name in ("rows", "columns"))
    dynamic = {0: torch.export.Dim("batch"), 2: height, 3: width}
    return _saved(network, torch.zeros(2, 3, 2 * step, 3 * step), format, dynamic)


def _saved(network: nn.Module, example: Tensor, format: str, dynamic: dict[int, Any]) -> bytes:
    stream = io.BytesIO()
    with torch.no_grad():
        if format == "torch.export":
            torch.export.save(
                torch.export.export(network.eval(), (example,), dynamic_shapes=(dynamic,)), stream
            )
        else:
            with warnings.catch_warnings():
                # PyTorch points to torch.export, which is there too; phones and C++ still run TorchScript.
                warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
                warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
                trace: Any = torch.jit.trace
                torch.jit.save(trace(network.eval(), example, strict=False), stream)
    return stream.getvalue()
