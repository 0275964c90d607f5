"""Writes a ticket as the native artifact (`.tkt`) that the device runtime trains, plain or packed: FORMAT.md, byte for byte.

Deterministic: equal tickets give equal bytes. A pruned parameter is stored as CSR of its live weights (a kernel is a row
of its output channel, row-major), or whole where it is hardly pruned (layout.py), every other one dense; a value of 0.0 is never taken for a pruned weight. Refuses, by
name, what exceeds a limit of the format.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from export.card import Recipe, normalisation, recipe
from export.compact import Compaction
from export.layout import NARROW_COLUMNS, layouts, stored_values
from export.network import Network
from export.operators import OPERATORS, Node, Shape
from export.pack import PackedValues, packed_pattern, packed_seed, packed_values
from export.ticket import Bits, Floats, Ticket, TicketError

MAGIC = b"\x89TKT\r\n\x1a\n"
VERSION = (1, 0)
HEADER = struct.Struct("<8sHHIII32s8x")
HEADER_CRC_OFFSET = 20
SECTION_ALIGNMENT = 64

CARD, RECIPE, INPUT, GRAPH, PARAMS, PATTERN, INIT, TRAINED, CLASS_WEIGHTS, ORIGIN = range(1, 11)
PACKED_PATTERN, PACKED_INIT, PACKED_TRAINED = range(11, 14)
SLIM_CARD = ("task", "labels", "input", "recipe", "density", "densities")
RECIPE_LAYOUT = struct.Struct("<II6fIIffIIIf8x")
OPTIMIZER_CODES = {"sgd": 1, "adam": 2, "adamw": 3}
SCHEDULE_CODES = {"constant": 0, "step": 1, "cosine": 2, "linear": 3}
LOSS_CODES = {"cross_entropy": 1, "mse": 2, "bce": 3}
OPERATOR_CODES = {
    "linear": 1,
    "relu": 2,
    "reshape": 3,
    "add": 4,
    "mul": 5,
    "concat": 6,
    "conv": 7,
    "batch_norm": 8,
    "layer_norm": 9,
    "leaky_relu": 10,
    "relu6": 11,
    "hardswish": 12,
    "sigmoid": 13,
    "tanh": 14,
    "gelu": 15,
    "max_pool": 16,
    "avg_pool": 17,
    "global_avg_pool": 18,
    "softmax": 19,
    "embedding": 20,
    "dropout": 21,
}
DENSE, MASKED = 0, 5
ENCODINGS = {(1, 2): 1, (1, 4): 2, (4, 2): 3, (8, 2): 4}  # by rows of a block, bytes of a column

MAX_FILE_BYTES = 2**31 - 1
MAX_CARD_BYTES = 2**20
MAX_NODES = 1024
MAX_PARAMETERS = 4096
MAX_BUFFER_ELEMENTS = 2**24
MAX_PARAMETER_ELEMENTS = 2**28


def to_native_bytes(source: Ticket | Compaction) -> bytes:
    """The whole artifact, of a ticket as it is or without its dead units. Raises TicketError where the card lacks a part
    devices need, or a limit is exceeded."""
    ticket, original = _parts(source)
    params, pattern = params_and_pattern(ticket)
    sections = {CARD: _card(ticket.card), PATTERN: pattern, INIT: _values(ticket, ticket.init)}
    if ticket.trained is not None:
        sections[TRAINED] = _values(ticket, ticket.trained)
    return file_of(sections | _common(ticket, original, params), bytes.fromhex(original.hash))


def to_packed_bytes(
    source: Ticket | Compaction, values: PackedValues | Literal["seed"] = "float32", *, trained: bool = False
) -> bytes:
    """The smallest artifact: the pattern entropy-coded, of the values only what is live, the card without what no device reads.

    Holds the initial values, rounded to nearest for float16, or the seed alone that they are drawn from, and on demand the trained ones
    too, with a seed as float32. A device has the same
    arrays as of `to_native_bytes`, and for the unpacked pattern so much more memory. Raises TicketError as `to_native_bytes`
    does, for values that float16 cannot hold, and where trained ones or a seed are asked for but the ticket has none.
    """
    ticket, original = _parts(source)
    params, _ = params_and_pattern(ticket)
    sections = {
        CARD: _card({key: ticket.card[key] for key in SLIM_CARD if key in ticket.card}),
        PACKED_PATTERN: packed_pattern(ticket.network, ticket.masks),
        PACKED_INIT: _seed(ticket, original)
        if values == "seed"
        else packed_values(ticket.network, ticket.masks, ticket.init, values),
    }
    if trained:
        if ticket.trained is None:
            raise TicketError("the ticket holds no trained values; pack the initial ones alone")
        stored: PackedValues = "float32" if values == "seed" else values
        sections[PACKED_TRAINED] = packed_values(ticket.network, ticket.masks, ticket.trained, stored)
    return file_of(sections | _common(ticket, original, params), bytes.fromhex(original.hash))


def _seed(ticket: Ticket, original: Ticket) -> bytes:
    if original.drawn is None:
        raise TicketError(
            "the ticket's initial values have no seed; find one with --init-from-seed, or pack them as float32 or float16"
        )
    if ticket is not original:  # elements are drawn by their places in the whole network
        raise TicketError("a network without its dead units cannot be drawn from the seed; export with --no-compact")
    return packed_seed(original.drawn)


def _parts(source: Ticket | Compaction) -> tuple[Ticket, Ticket]:
    """What is written, and the ticket that it is of."""
    ticket, original = (source.ticket, source.original) if isinstance(source, Compaction) else (source, source)
    _check_limits(ticket)
    return ticket, original


def _common(ticket: Ticket, original: Ticket, params: bytes) -> dict[int, bytes]:
    """The sections that have no packed form."""
    r = recipe(ticket)
    sections = {RECIPE: _recipe(r), INPUT: _input(ticket), GRAPH: _graph(ticket.network), PARAMS: params}
    if r.class_weights is not None:
        sections[CLASS_WEIGHTS] = r.class_weights.astype("<f4").tobytes()
    if ticket is not original:
        sections[ORIGIN] = _origin(original)
    return sections


def file_of(sections: Mapping[int, bytes], ticket_hash: bytes, magic: bytes = MAGIC) -> bytes:
    """The file around sections (FORMAT.md, "File"). Raises TicketError where it would be too large."""
    header_bytes = HEADER.size + 16 * len(sections)
    table, body, end = bytearray(), bytearray(), header_bytes
    for kind, content in sorted(sections.items()):
        padding = -end % SECTION_ALIGNMENT
        table += struct.pack("<IIII", kind, end + padding, len(content), zlib.crc32(content))
        body += bytes(padding) + content
        end += padding + len(content)
    if end > MAX_FILE_BYTES:
        raise TicketError(f"the file would have {end} bytes, but at most {MAX_FILE_BYTES} fit; prune more")
    header = bytearray(HEADER.pack(magic, *VERSION, end, len(sections), 0, ticket_hash) + table)
    struct.pack_into("<I", header, HEADER_CRC_OFFSET, zlib.crc32(header))
    return bytes(header + body)


def _check_limits(ticket: Ticket) -> None:
    network = ticket.network
    counts = (("nodes", len(network.nodes), MAX_NODES), ("parameters", len(network.parameters), MAX_PARAMETERS))
    for what, count, limit in counts:
        if not 1 <= count <= limit:
            raise TicketError(f"the network has {count} {what}; the format holds 1 to {limit}")
    for index, shape in enumerate(network.shapes):
        _check_elements(f"buffer {index}", shape, MAX_BUFFER_ELEMENTS)
    for parameter in network.parameters:
        _check_elements(f"parameter '{parameter.name}'", parameter.shape, MAX_PARAMETER_ELEMENTS)


def _check_elements(what: str, shape: Shape, limit: int) -> None:
    elements = math.prod(shape)
    if elements > limit:
        raise TicketError(f"{what}: shape {shape} has {elements} elements; the format holds at most {limit}")


def _card(content: Mapping[str, Any]) -> bytes:
    card = json.dumps(dict(content), sort_keys=True, separators=(",", ":")).encode()
    if len(card) > MAX_CARD_BYTES:
        remedy = "shorten it" + (", or export with --no-compact" if "compaction" in content else "")
        raise TicketError(f"the card has {len(card)} bytes; the format holds at most {MAX_CARD_BYTES}; {remedy}")
    return card


def _origin(original: Ticket) -> bytes:
    """What densities are told of."""
    pruned = sum(mask.size for mask in original.masks.values())
    return struct.pack("<QQ", sum(parameter.size for parameter in original.network.parameters), pruned)


def _recipe(r: Recipe) -> bytes:
    return RECIPE_LAYOUT.pack(
        OPTIMIZER_CODES[r.optimizer],
        r.batch,
        *(r.learning_rate, r.momentum, r.weight_decay, r.beta1, r.beta2, r.epsilon),
        r.epochs,
        r.nesterov,
        r.label_smoothing,
        r.clip_norm,
        SCHEDULE_CODES[r.schedule],
        r.warmup_steps,
        r.schedule_steps,
        r.schedule_factor,
    )


def _input(ticket: Ticket) -> bytes:
    n = normalisation(ticket)
    head = _shape(ticket.network.input_shape) + struct.pack("<I", len(n.mean))
    return head + n.mean.astype("<f4").tobytes() + n.inverse_std.astype("<f4").tobytes()


def _graph(network: Network) -> bytes:
    number = {parameter.name: index for index, parameter in enumerate(network.parameters)}
    head = struct.pack("<IIII", len(network.shapes), len(network.nodes), LOSS_CODES[network.loss], 0)
    shapes = b"".join(_shape(shape) for shape in network.shapes)
    return head + shapes + b"".join(_node(node, number) for node in network.nodes)


def _node(node: Node, number: Mapping[str, int]) -> bytes:
    params = [number[node.params[role]] for role in OPERATORS[node.op].roles_of(node)]
    attrs = _attrs(node)
    head = struct.pack("<HHHH", OPERATOR_CODES[node.op], len(node.inputs), len(params), len(attrs) // 4)
    words = (*node.inputs, *params)
    return head + struct.pack(f"<{len(words)}I", *words) + attrs


def _attrs(node: Node) -> bytes:
    """A word each; a shape has none, the record of the node's buffer tells it."""
    formats = {int: "<I", float: "<f"}
    kinds = ((name, attribute.kind) for name, attribute in OPERATORS[node.op].attrs.items())
    return b"".join(struct.pack(formats[kind], node.attrs[name]) for name, kind in kinds if kind in formats)


def _shape(shape: Shape) -> bytes:
    return struct.pack("<5I", len(shape), *shape, *[1] * (4 - len(shape)))


def params_and_pattern(ticket: Ticket) -> tuple[bytes, bytes]:
    """The sections PARAMS and PATTERN."""
    records, pattern = bytearray(), bytearray()
    for layout in layouts(ticket.network, ticket.masks).values():
        rows, cols = layout.rows, layout.cols
        if layout.mask is None:
            records += struct.pack("<6I", DENSE, rows, cols, rows * cols, 0, 0)
            continue
        row_ptr, col_idx = _csr(~layout.mask if layout.masked else layout.mask[:: layout.block])
        offsets = [_append(pattern, row_ptr), _append(pattern, col_idx)]
        encoding = MASKED if layout.masked else ENCODINGS[layout.block, col_idx.itemsize]
        records += struct.pack("<6I", encoding, rows, cols, int(layout.mask.sum()), *offsets)
    return struct.pack("<II", len(ticket.network.parameters), 0) + records, bytes(pattern)


def _csr(mask: Bits) -> tuple[NDArray[np.uint32], NDArray[np.uint16] | NDArray[np.uint32]]:
    row_ptr = np.concatenate(([0], np.cumsum(mask.sum(axis=1)))).astype("<u4")
    columns = np.nonzero(mask)[1]
    return row_ptr, columns.astype("<u2" if mask.shape[1] <= NARROW_COLUMNS else "<u4")


def _append(pattern: bytearray, array: NDArray[np.uint16] | NDArray[np.uint32]) -> int:
    """The offset at which it starts, a multiple of 4."""
    pattern += bytes(-len(pattern) % 4)
    offset = len(pattern)
    pattern += array.tobytes()
    return offset


def _values(ticket: Ticket, values: Mapping[str, Floats]) -> bytes:
    return stored_values(ticket.network, ticket.masks, values).astype("<f4").tobytes()
