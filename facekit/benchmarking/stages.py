"""Both stages on crops that lie on the device as uint8, in every arithmetic and way of running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from facekit.backends.torch import choose_precision
from facekit.benchmarking.measuring import UnavailableError
from facekit.mirror import mirror_image
from facekit.model import TASKS, Branch
from facekit.schema import INPUT_SIZE
from facekit.weights import load_weights

Running = Literal["eager", "compiled", "graph", "compiled graph"]

_SHORT: dict[torch.dtype, str] = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Variant:
    """How the networks are run.

    Attributes
    ----------
    dtype : torch.dtype
    layout : str
        channels_last or contiguous.
    running : str
        Call by call, compiled by torch.compile, as a replayed CUDA graph, or both.
    """

    dtype: torch.dtype
    layout: str = "channels_last"
    running: Running = "eager"

    @property
    def name(self) -> str:
        """Such as "bf16 channels_last eager"."""
        return f"{_SHORT[self.dtype]} {self.layout} {self.running}"

    @property
    def setting(self) -> dict[str, str]:
        """Give what a figure says of it."""
        return {"precision": _SHORT[self.dtype], "layout": self.layout, "running": self.running}


def automatic(device: torch.device) -> Variant:
    """Give what FaceAnalyzer runs with ``precision="auto"``."""
    return Variant(choose_precision("auto", device))


def arithmetics(device: torch.device) -> list[Variant]:
    """Give every number type and layout of a device, run call by call."""
    dtypes = [torch.float32, torch.bfloat16] + [torch.float16] * (device.type != "cpu")
    return [Variant(dtype, layout) for dtype in dtypes for layout in _LAYOUTS]


def resident(batch: int, size: int, device: torch.device) -> Tensor:
    """Give a batch of noise as crops: (B, 1, size, size) uint8 on the device."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 1, size, size), dtype=torch.uint8, generator=generator).to(device)


def stage_calls(
    weights: str, variant: Variant, batch: int, device: torch.device
) -> dict[str, Callable[[], Any]]:
    """Give each stage, and both, as a call on resident crops.

    Stage 1 sees each crop and its mirror, as find_keypoints does.

    Raises
    ------
    UnavailableError
        The variant does not run here.
    """
    stored = load_weights(weights)
    mean, std = stored.header["mean"], stored.header["std"]
    branches = {
        task: Branch(stored.network, task)
        .to(device, variant.dtype)
        .to(memory_format=_LAYOUTS[variant.layout])
        .requires_grad_(False)
        for task in TASKS
    }
    crops = {task: resident(batch, INPUT_SIZE[task], device) for task in TASKS}

    def normalised(pixels: Tensor) -> Tensor:
        ready = ((pixels.float() / 255 - mean) / std).to(variant.dtype)
        laid_out: Tensor = ready.contiguous(memory_format=_LAYOUTS[variant.layout])
        return laid_out

    def keypoints(pixels: Tensor) -> Any:
        return branches["keypoints"](normalised(pixels)), branches["keypoints"](
            normalised(mirror_image(pixels))
        )

    def expression(pixels: Tensor) -> Any:
        return branches["expression"](normalised(pixels))

    first = _prepared(keypoints, crops["keypoints"], variant.running)
    second = _prepared(expression, crops["expression"], variant.running)
    return {"keypoints": first, "expression": second, "both": lambda: (first(), second())}


def _prepared(function: Callable[[Tensor], Any], pixels: Tensor, running: Running) -> Callable[[], Any]:
    """Give a call of a function on these pixels that is compiled and recorded already."""
    called: Callable[[Tensor], Any] = function
    if running.startswith("compiled"):
        called = torch.compile(function, dynamic=False)

    def run() -> Any:
        with torch.no_grad():
            return called(pixels)

    try:
        for _ in range(2):
            run()
    except torch.OutOfMemoryError as error:
        raise UnavailableError(f"the batch does not fit into the device's memory: {error}") from error
    except Exception as error:  # a compiler's errors have no common class
        if not running.startswith("compiled"):
            raise
        raise UnavailableError(f"torch.compile fails here: {str(error).splitlines()[0]}") from error
    return _recorded(run) if running.endswith("graph") else run


def _recorded(run: Callable[[], Any]) -> Callable[[], Any]:
    """Record a call's kernels as a CUDA graph and give its replay."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
