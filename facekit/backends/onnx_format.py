"""The messages of ONNX files that graphs are made of, written as protobuf.

The package onnx can write them too, but importing it takes a tenth of a second, an eighth of what it takes to
start facekit and analyse a picture; tests read what is written here with it.

References
----------
.. [1] https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (the messages and the numbers of their fields)
.. [2] https://protobuf.dev/programming-guides/encoding (how they are written)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FLOAT, UINT8, INT8, INT32, INT64, FLOAT16 = 1, 2, 3, 6, 7, 10
"""Types of tensors, as ONNX numbers them."""

_TENSOR_TYPES: Final = {
    np.dtype(np.float32): FLOAT,
    np.dtype(np.uint8): UINT8,
    np.dtype(np.int8): INT8,
    np.dtype(np.int32): INT32,
    np.dtype(np.int64): INT64,
    np.dtype(np.float16): FLOAT16,
}
_ATTRIBUTE_INT, _ATTRIBUTE_STRING, _ATTRIBUTE_INTS = 2, 3, 7
_VARINT, _BYTES = 0, 2

Shape = Sequence[str | int]
"""Of an input or output; a name stands for a length that may change."""

Message = list[bytes | memoryview]
"""A message in pieces, which are put together once: models are of many megabytes."""

Field = tuple[int, int | str | Message]
"""Number and value."""


def message(*fields: Field) -> Message:
    """Write a protobuf message."""
    parts: Message = []
    for number, value in fields:
        if isinstance(value, int):
            parts += (_varint(number << 3 | _VARINT), _varint(value))
        else:
            pieces = [value.encode()] if isinstance(value, str) else value
            parts += (_varint(number << 3 | _BYTES), _varint(sum(map(len, pieces))), *pieces)
    return parts


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written as two's complement
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _each(number: int, values: Iterable[int | str | Message]) -> list[Field]:
    return [(number, value) for value in values]


def tensor(name: str, array: NDArray[Any]) -> Message:
    """Write a TensorProto."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    kind = _TENSOR_TYPES[array.dtype]
    return message(
        *_each(1, array.shape), (2, kind), (8, name), (9, [little.reshape(-1).view(np.uint8).data])
    )


def node(operator: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Any]) -> Message:
    """Write a NodeProto of one output, whose name it takes; attributes are int, str or lists of int."""
    written = [(5, _attribute(name, value)) for name, value in attributes.items()]
    return message(*_each(1, inputs), (2, output), (3, output), (4, operator), *written)


def _attribute(name: str, value: Any) -> Message:
    if isinstance(value, int):
        return message((1, name), (3, value), (20, _ATTRIBUTE_INT))
    if isinstance(value, str):
        return message((1, name), (4, value), (20, _ATTRIBUTE_STRING))
    return message((1, name), *_each(8, value), (20, _ATTRIBUTE_INTS))


def _declared(name: str, shape: Shape | None) -> Message:
    """Write the ValueInfoProto of a float32 input or output; None: its shape follows from the graph."""
    if shape is None:
        return message((1, name), (2, message((1, message((1, FLOAT))))))
    dimensions = [message((2, length) if isinstance(length, str) else (1, length)) for length in shape]
    of_tensor = message((1, FLOAT), (2, message(*_each(1, dimensions))))
    return message((1, name), (2, message((1, of_tensor))))


def model(
    name: str,
    nodes: Iterable[Message],
    constants: Iterable[Message],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape | None],
    *,
    opset: int,
    ir_version: int,
) -> bytes:
    """Write a ModelProto, which is what an ONNX file holds; inputs and outputs are float32."""
    graph = message(
        *_each(1, nodes),
        (2, name),
        *_each(5, constants),
        *((11, _declared(key, shape)) for key, shape in inputs.items()),
        *((12, _declared(key, shape)) for key, shape in outputs.items()),
    )
    return b"".join(message((1, ir_version), (2, "facekit"), (7, graph), (8, message((1, ""), (2, opset)))))
