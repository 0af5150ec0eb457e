"""The networks as ONNX models, built from stored weights by NumPy: PyTorch's modules without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from facekit.backends import onnx_format
from facekit.backends.onnx_format import FLOAT, FLOAT16, Message, Shape
from facekit.errors import WeightsError
from facekit.schema import KEYPOINTS, LONGEST_REACH, SHARED_STAGES
from facekit.weights import StoredWeights

OPSET, IR_VERSION = 17, 8
"""Of 2022, so that older runtimes on phones and in browsers read the files."""

BATCH_NORM_EPSILON = 1e-5
"""PyTorch's default, which the networks keep."""

GraphPrecision = Literal["fp32", "fp16"]

Ranges = Mapping[str, Sequence[float]]
"""Least and largest value of each of a graph's maps that 8-bit integers can hold, by the map's name."""


class Graph:
    """Collects the nodes and constants of an ONNX graph; values go by their names.

    Parameters
    ----------
    stored : StoredWeights
    precision : "fp32" or "fp16"
        Of the convolutions; inputs, outputs and what follows a softmax or makes boxes are float32.
    ranges : mapping, optional
        With them, convolutions and the sums of blocks take 8-bit integers [1]_; maps without one stay as
        they are.
    watched : bool
        The model also gives, after its outputs, the maps that 8-bit integers can hold.

    Attributes
    ----------
    maps : dict
        The values of these maps, by the maps' names.

    References
    ----------
    .. [1] B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
       Integer-Arithmetic-Only Inference", CVPR 2018.
    """

    def __init__(
        self,
        stored: StoredWeights,
        precision: GraphPrecision = "fp32",
        ranges: Ranges | None = None,
        *,
        watched: bool = False,
    ) -> None:
        self.stored, self.watched = stored, watched
        self.ranges: Ranges = ranges or {}
        self.half = precision == "fp16"
        self.maps: dict[str, str] = {}
        self._steps: dict[str, np.float32] = {}
        self._nodes: list[Message] = []
        self._constants: list[Message] = []

    def has(self, name: str) -> bool:
        """Tell whether the weights hold a tensor."""
        return name in self.stored.tensors

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Give a stored tensor in single precision."""
        if not self.has(name):
            raise WeightsError(f"{self.stored.path}: tensors do not fit the header's network: no {name}")
        return self.stored.tensors[name].astype(np.float32)

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node of one output and give the output's name."""
        output = name or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(onnx_format.node(operator, inputs, output, attributes))
        return output

    def constant(self, values: Any, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant and give its name."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(onnx_format.tensor(name, np.asarray(values, dtype)))
        return name

    def weight(self, values: NDArray[np.float32]) -> str:
        """Add a constant of the convolutions' precision and give its name."""
        return self.constant(values, np.float16 if self.half else np.float32)

    def lowered(self, x: str) -> str:
        """Bring float32 to the convolutions' precision."""
        return self.add("Cast", x, to=FLOAT16) if self.half else x

    def raised(self, x: str) -> str:
        """Bring the convolutions' precision to float32."""
        return self.add("Cast", x, to=FLOAT) if self.half else x

    def rounded(self, x: str, name: str) -> str:
        """Bring a map to 8 bits if it has a range; what is below the range, or above, is cut off."""
        self.maps[name] = x
        if name not in self.ranges:
            return x
        low, high = (float(end) for end in self.ranges[name])
        step = np.float32((high - low) / 255)
        told = self.constant(step), self.constant(round(-low / step), np.uint8)
        y = self.add("DequantizeLinear", self.add("QuantizeLinear", x, *told), *told)
        self._steps[y] = step
        return y

    def positive(self, x: str, name: str) -> str:
        """Bring what is negative to 0, and the map to 8 bits as `rounded` does."""
        if name not in self.ranges:
            x = self.add("Relu", x)
        return self.rounded(x, name)  # whose range begins at 0

    def convolution(
        self,
        x: str,
        name: str,
        norm: str | None = None,
        *,
        stride: int = 1,
        groups: int = 1,
        gain: float = 1.0,
    ) -> str:
        """Convolve by stored weights times `gain`, a stored batch norm folded in; odd sizes are padded.

        What comes from `rounded` is convolved in 8 bits.
        """
        weight = self.tensor(f"{name}.weight") * np.float32(gain)
        bias = self.tensor(f"{name}.bias") if self.has(f"{name}.bias") else np.zeros(len(weight), np.float32)
        if norm is not None:
            scale, shift = self.batch_norm(norm)
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        padding = [weight.shape[2] // 2 if weight.shape[2] % 2 else 0] * 4
        parts = (
            self._rounded_weights(weight, bias, self._steps[x])
            if x in self._steps
            else (self.weight(weight), self.weight(bias))
        )
        return self.add("Conv", x, *parts, strides=[stride, stride], pads=padding, group=groups)

    def _rounded_weights(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32], step: np.float32
    ) -> tuple[str, str]:
        """Give 8-bit weights, a scale for each output channel, and biases in the steps of their products."""
        scale = np.maximum(np.abs(weight).max((1, 2, 3)), 1e-12) / 127
        whole = np.rint(weight / scale[:, None, None, None])
        products = scale * step
        return (
            self.add("DequantizeLinear", self.constant(whole, np.int8), self.constant(scale), axis=0),
            self.add(
                "DequantizeLinear",
                self.constant(np.rint(bias / products), np.int32),
                self.constant(products),
                axis=0,
            ),
        )

    def batch_norm(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give what a stored batch norm multiplies its channels (C,) by and then adds to them."""
        deviation = np.sqrt(self.tensor(f"{name}.running_var") + BATCH_NORM_EPSILON)
        scale = self.tensor(f"{name}.weight") / deviation
        return scale, self.tensor(f"{name}.bias") - scale * self.tensor(f"{name}.running_mean")

    def resized(self, x: str, factor: float, **attributes: Any) -> str:
        """Enlarge maps (B, C, H, W)."""
        return self.add("Resize", x, "", self.constant([1, 1, factor, factor]), **attributes)

    def model(self, name: str, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> bytes:
        """Give the model of these inputs and outputs, all of float32."""
        maps = dict.fromkeys(self.maps.values()) if self.watched else {}
        parts = (name, self._nodes, self._constants, inputs, {**outputs, **maps})
        return onnx_format.model(*parts, opset=OPSET, ir_version=IR_VERSION)


def keypoints_graph(graph: Graph) -> bytes:
    """Give stage 1: normalised crops (B, 1, 96, 96) to points (B, 15, 2) and errors (B, 15), crop pixels."""
    side, head = 24, "keypoint_head"
    maps = _trunk(graph, "keypoints", stride=2)
    laterals = [f"{head}.laterals.{place}" for place in range(3)]
    fused, *coarser = (
        graph.rounded(graph.convolution(x, name), name) for x, name in zip(maps[1:], laterals, strict=True)
    )
    for place, lateral in enumerate(coarser, 1):
        fused = graph.add("Add", fused, graph.resized(lateral, 2.0**place, mode="linear"))
    scale, shift = (graph.weight(part[:, None, None]) for part in graph.batch_norm(f"{head}.fuse.0"))
    fused = graph.positive(graph.add("Add", graph.add("Mul", fused, scale), shift), f"{head}.fuse.0")
    fused = graph.positive(graph.convolution(fused, f"{head}.fuse.2", f"{head}.fuse.3"), f"{head}.fuse.2")
    # The softmax over places takes its scores finer than in 8 bits, and so do the points after it: with
    # these rounded too, NME grew by 24% (100 held-out Helen faces).
    flat = graph.constant([0, 0, side * side], np.int64)
    scores = graph.add("Reshape", graph.raised(graph.convolution(fused, f"{head}.maps")), flat)
    attention = graph.add("Softmax", scores, axis=-1)  # (B, 15, 576)
    centres = (np.arange(side) + 0.5) * (96 / side) - 0.5
    grid = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
    graph.add("MatMul", attention, graph.constant(grid), name="points")
    channels = graph.add("Reshape", graph.raised(fused), flat)
    seen = graph.add("MatMul", attention, graph.add("Transpose", channels, perm=[0, 2, 1]))
    weighed = graph.add("Mul", seen, graph.constant(graph.tensor(f"{head}.error_weight")))
    summed = graph.add("ReduceSum", weighed, graph.constant([-1], np.int64), keepdims=0)
    biased = graph.add("Add", summed, graph.constant(graph.tensor(f"{head}.error_bias")))
    graph.add("Add", graph.add("Softplus", biased), graph.constant(0.05), name="sigma")
    points = len(KEYPOINTS)
    outputs = {"points": ("batch", points, 2), "sigma": ("batch", points)}
    return graph.model("keypoints", {"crops": ("batch", 1, 96, 96)}, outputs)


def expression_graph(graph: Graph) -> bytes:
    """Give stage 2: normalised crops (B, 1, 48, 48) to the logits (B, C) of every head, by its name."""
    model = graph.stored.header["model"]
    maps = _trunk(graph, "expression", stride=1)
    members = [(maps[-1], "expression_heads")]
    for place in range(model.get("members", 1) - 1):
        member, last = f"members.{place}", maps[SHARED_STAGES - 1]
        for stage in range(SHARED_STAGES, len(model["blocks"])):
            last = _stage(graph, last, f"{member}.stages.{stage - SHARED_STAGES}", "expression", stage)
        members.append((last, f"{member}.heads"))
    pooled = [graph.add("GlobalAveragePool", last) for last, _ in members]
    features = graph.add("Flatten", graph.raised(graph.add("Concat", *pooled, axis=1)))
    outputs = {}
    for head, classes in model["heads"].items():
        weight = [graph.tensor(f"{heads}.{head}.weight") for _, heads in members]
        bias = [graph.tensor(f"{heads}.{head}.bias") for _, heads in members]
        # One product of all members' features gives the mean of their logits.
        parts = (np.concatenate(weight, 1) / len(weight), np.mean(bias, 0))
        graph.add("Gemm", features, *(graph.constant(part) for part in parts), transB=1, name=head)
        outputs[head] = ("batch", len(classes))
    return graph.model("expression", {"crops": ("batch", 1, 48, 48)}, outputs)


def _trunk(graph: Graph, task: str, stride: int) -> list[str]:
    """Add stem and trunk with a task's batch norms, and give the maps of every stage."""
    stem = f"stems.{task}"
    x = graph.rounded(graph.lowered("crops"), "crops")
    x = graph.positive(graph.convolution(x, f"{stem}.0", f"{stem}.1", stride=stride), stem)
    maps = []
    for stage in range(len(graph.stored.header["model"]["blocks"])):
        x = _stage(graph, x, f"trunk.stages.{stage}", task, stage)
        maps.append(x)
    return maps


def _stage(graph: Graph, x: str, name: str, task: str, stage: int) -> str:
    """Add the blocks of a stage with a task's batch norms."""

    def norm(name: str) -> str:
        per_task = f"{name}.norms.{task}"
        return per_task if graph.has(f"{per_task}.weight") else name

    for place in range(graph.stored.header["model"]["blocks"][stage]):
        block = f"{name}.{place}"
        step = 2 if stage and not place else 1
        first, second, skip = (f"{block}.{part}" for part in ("conv1", "conv2", "downsample"))
        y = graph.convolution(x, first, norm(f"{block}.bn1"), stride=step)
        y = graph.convolution(graph.positive(y, first), second, norm(f"{block}.bn2"))
        y = graph.rounded(y, second)
        if graph.has(f"{skip}.0.weight"):
            x = graph.convolution(x, f"{skip}.0", norm(f"{skip}.1"), stride=step)
            x = graph.rounded(x, skip)
        x = graph.positive(graph.add("Add", y, x), block)
    return x


def detector_graph(graph: Graph) -> bytes:
    """Give the detector: pictures (B, 3, H, W) of 0..255 to logits (B, A) and boxes (B, A, 4) of all cells.

    H and W are multiples of 32; boxes are edges, pixels; cells of the finest level come first.
    """
    config = graph.stored.header["model"]
    x = graph.convolution(graph.lowered("pictures"), "stem.0", "stem.1", stride=4, gain=1 / 255)
    x = graph.add("Relu", x)
    for block in range(config["blocks"][0]):
        x = _separable(graph, x, f"stem.{3 + block}")
    pyramid = []
    for stage, blocks in enumerate(config["blocks"][1:]):
        for block in range(blocks + 1):
            x = _separable(graph, x, f"stages.{stage}.{block}", stride=1 if block else 2)
        lateral = f"laterals.{stage}"
        pyramid.append(graph.convolution(x, lateral) if graph.has(f"{lateral}.weight") else x)
    for level in reversed(range(len(pyramid) - 1)):
        coarser = graph.resized(
            pyramid[level + 1],
            2.0,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        pyramid[level] = graph.add("Add", pyramid[level], coarser)
    cells = [
        _cells(
            graph, graph.convolution(_separable(graph, x, f"smooth.{level}"), f"outputs.{level}"), 8 << level
        )
        for level, x in enumerate(pyramid)
    ]
    told = graph.add("Concat", *cells, axis=2)  # (B, 5, A)
    graph.add("Gather", told, graph.constant(0, np.int64), axis=1, name="logits")
    edges = graph.add("Gather", told, graph.constant([1, 2, 3, 4], np.int64), axis=1)
    graph.add("Transpose", edges, perm=[0, 2, 1], name="boxes")
    outputs = {"logits": ("batch", "cells"), "boxes": ("batch", "cells", 4)}
    return graph.model("detector", {"pictures": ("batch", 3, "height", "width")}, outputs)


def _separable(graph: Graph, x: str, name: str, stride: int = 1) -> str:
    """Add a depthwise and a pointwise convolution, added to their input where shapes agree."""
    channels, width = (
        len(graph.tensor(f"{name}.depthwise.weight")),
        len(graph.tensor(f"{name}.pointwise.weight")),
    )
    y = graph.convolution(x, f"{name}.depthwise", f"{name}.norm", stride=stride, groups=channels)
    y = graph.convolution(y, f"{name}.pointwise", f"{name}.pointwise_norm")
    return graph.add("Relu", graph.add("Add", x, y) if stride == 1 and channels == width else y)


def _cells(graph: Graph, said: str, stride: int) -> str:
    """Bring what a level says, (B, 5, H, W), to logits and edges of its cells: (B, 5, H * W)."""
    said = graph.raised(said)

    def channel(x: str, *which: int) -> str:
        return graph.add("Gather", x, graph.constant(which, np.int64), axis=1)

    def centres(axis: int) -> str:
        """Give the places (S,) of the cells' centres, counted as edges are."""
        count = graph.add("Gather", graph.add("Shape", said), graph.constant(axis, np.int64))
        first, step = (graph.constant(value, np.int64) for value in (0, 1))
        cell = graph.add("Cast", graph.add("Range", first, count, step), to=FLOAT)
        return graph.add("Mul", graph.add("Add", cell, graph.constant(0.5)), graph.constant(stride))

    limited = graph.add("Min", channel(said, 1, 2, 3, 4), graph.constant(LONGEST_REACH))
    reach = graph.add("Mul", graph.add("Exp", limited), graph.constant(stride))
    x = centres(3)
    y = graph.add("Unsqueeze", centres(2), graph.constant([1], np.int64))
    edges = [
        graph.add(side, centre, channel(reach, place))
        for place, (side, centre) in enumerate((("Sub", x), ("Sub", y), ("Add", x), ("Add", y)))
    ]
    stacked = graph.add("Concat", channel(said, 0), *edges, axis=1)
    return graph.add("Reshape", stacked, graph.constant([0, 5, -1], np.int64))


GRAPHS: Final[Mapping[str, Callable[..., bytes]]] = MappingProxyType(
    {"keypoints": keypoints_graph, "expression": expression_graph}
)
"""What builds the model of each task of a shared network."""
