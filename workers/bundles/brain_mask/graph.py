"""Reads the constants of a frozen TensorFlow graph without TensorFlow.

A GraphDef is a protocol buffer; the few messages on the way to a constant's values are read by their field numbers
(tensorflow/core/framework: graph.proto, node_def.proto, attr_value.proto, tensor.proto, tensor_shape.proto).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

GRAPH_NODE, NODE_NAME, NODE_OP, NODE_ATTR = 1, 1, 2, 5
ENTRY_KEY, ENTRY_VALUE, ATTR_TENSOR = 1, 2, 8
TENSOR_DTYPE, TENSOR_SHAPE, TENSOR_CONTENT, TENSOR_FLOATS = 1, 2, 4, 5
SHAPE_DIM, DIM_SIZE = 2, 1
DT_FLOAT = 1


def float_constants(graph: bytes) -> dict[str, NDArray[np.float32]]:
    """Every float32 constant of a serialized GraphDef by node name; raises ValueError where it is none."""
    found = {}
    for node in _all(graph, GRAPH_NODE):
        if _first(node, NODE_OP) != b"Const":
            continue
        attributes = {_first(entry, ENTRY_KEY): entry for entry in _all(node, NODE_ATTR)}
        tensor = _first(_first(attributes[b"value"], ENTRY_VALUE), ATTR_TENSOR)
        if DT_FLOAT in (value for number, value in _fields(tensor) if number == TENSOR_DTYPE):
            found[_first(node, NODE_NAME).decode()] = _array(tensor)
    return found


def _array(tensor: bytes) -> NDArray[np.float32]:
    dimensions = [
        value
        for shape in _all(tensor, TENSOR_SHAPE)
        for dimension in _all(shape, SHAPE_DIM)
        for number, value in _fields(dimension)
        if number == DIM_SIZE and isinstance(value, int)
    ]
    data = b"".join(_all(tensor, TENSOR_CONTENT)) or b"".join(_all(tensor, TENSOR_FLOATS))
    return np.frombuffer(data, dtype="<f4").reshape(dimensions)


def _all(message: bytes, wanted: int) -> Iterator[bytes]:
    return (value for number, value in _fields(message) if number == wanted and isinstance(value, bytes))


def _first(message: bytes, wanted: int) -> bytes:
    return next(_all(message, wanted), b"")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of one message; strings, messages and packed numbers come as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + length > len(message):
            raise ValueError("the message ends too early")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    raise ValueError("the message ends too early")
