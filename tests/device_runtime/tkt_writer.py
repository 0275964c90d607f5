"""An independent writer of artifacts, made from export/FORMAT.md alone, so that a mistake in one writer cannot hide.

A `Net` is written as it stands, wrong or right: nothing is checked here. Layers hold dense matrices and a mask.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.golden import range_coder

Floats = NDArray[np.float32]

(LINEAR, RELU, RESHAPE, ADD, MUL, CONCAT, CONV, BATCH_NORM, LAYER_NORM, LEAKY_RELU, RELU6, HARDSWISH, SIGMOID, TANH) = (
    range(1, 15)
)
(GELU, MAX_POOL, AVG_POOL, GLOBAL_AVG_POOL, SOFTMAX, EMBEDDING, DROPOUT) = range(15, 22)
SGD, ADAM, ADAMW = 1, 2, 3
CROSS_ENTROPY, MSE, BCE = 1, 2, 3
CONSTANT, STEP, COSINE, LINEAR_DECAY = range(4)
ARTIFACT_MAGIC = bytes.fromhex("89544B540D0A1A0A")
CHECKPOINT_MAGIC = bytes.fromhex("89544B430D0A1A0A")
ENCODINGS = {1: 1, 4: 3, 8: 4}  # of blocks with u16 columns
MASKED = 5
CARD, RECIPE, INPUT, GRAPH, PARAMS, PATTERN, INIT, TRAINED, CLASS_WEIGHTS, ORIGIN = range(1, 11)
PACKED_PATTERN, PACKED_INIT, PACKED_TRAINED = range(11, 14)
PACKED_VALUES = {"float32": (1, "<f4"), "float16": (2, "<f2")}


@dataclass(frozen=True)
class Param:
    """A matrix (rows, cols); `mask` None writes it dense, else as CSR; with u32 columns if `wide`, else maybe in blocks.

    With `masked` all values are written, the pruned ones as 0, and a list of these.
    """

    values: Floats
    mask: NDArray[np.bool_] | None = None
    wide: bool = False
    block: int = 1  # 1, 4 or 8 rows that share their columns
    state: bool = False  # running statistics: no gradient
    masked: bool = False
    line: int = 0  # of a packed pattern

    @property
    def listed(self) -> NDArray[np.bool_] | None:
        """What PATTERN lists, a matrix (rows / block, cols)."""
        if self.mask is None:
            return None
        return ~self.mask if self.masked else self.mask[:: self.block]

    @property
    def live(self) -> Floats:
        """What a packed artifact keeps."""
        return self.values[self.mask] if self.mask is not None and self.masked else self.stored

    @property
    def stored(self) -> Floats:
        """What the artifact keeps, in its order."""
        return self.ordered(self.values)

    def ordered(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """The stored entries of a matrix of this shape, in the artifact's order: a block column by column."""
        if self.mask is None:
            return matrix.ravel()
        if self.masked:
            return np.where(self.mask, matrix, 0).astype(matrix.dtype).ravel()
        rows, cols = matrix.shape
        by_block = (rows // self.block, self.block, cols)
        return matrix.reshape(by_block).swapaxes(1, 2)[self.mask.reshape(by_block).swapaxes(1, 2)]


@dataclass(frozen=True)
class Node:
    op: int
    inputs: tuple[int, ...]
    params: tuple[int, ...] = ()
    attrs: tuple[int | float, ...] = ()


@dataclass(frozen=True)
class Recipe:
    optimizer: int = SGD
    batch: int = 8
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epochs: int = 3
    nesterov: bool = False
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    schedule: int = CONSTANT
    warmup_steps: int = 0
    schedule_steps: int = 0
    schedule_factor: float = 1.0


@dataclass(frozen=True)
class Net:
    """A network with its values. `shapes` are those of the buffers, the input first."""

    shapes: tuple[tuple[int, ...], ...]
    nodes: tuple[Node, ...]
    params: tuple[Param, ...]
    mean: tuple[float, ...] = (0.0,)
    inverse_std: tuple[float, ...] = (1.0,)
    recipe: Recipe = Recipe()
    card: dict[str, Any] = field(default_factory=lambda: {"task": "test"})
    trained: tuple[Floats, ...] | None = None
    ticket_hash: bytes = bytes(range(32))
    loss: int = CROSS_ENTROPY
    class_weights: tuple[float, ...] | None = None
    origin: tuple[int, int] | None = None

    @property
    def class_count(self) -> int:
        return self.shapes[-1][0]

    @property
    def input_elements(self) -> int:
        return int(np.prod(self.shapes[0]))

    @property
    def stored(self) -> Floats:
        return np.concatenate([param.stored for param in self.params])

    @property
    def trained_count(self) -> int:
        return sum(param.stored.size for param in self.params if not param.state)


def artifact(net: Net, **sections: bytes | None) -> bytes:
    """The artifact's bytes; a keyword such as `card=b"..."` replaces a section, None leaves it out."""
    return _artifact(net, {}, sections)


def packed_artifact(net: Net, values: str = "float32", **sections: bytes | None) -> bytes:
    """The same with pattern and initial values packed; trained ones stay plain."""
    packed = {"packed_pattern": packed_pattern(net.params), "packed_init": packed_values(net, values)}
    return _artifact(net, {"pattern": None, "init": None, **packed}, sections)


def packed_pattern(params: tuple[Param, ...]) -> bytes:
    sparse = [(param, param.listed) for param in params if param.listed is not None]
    rows = [param.block * int(listed.sum(axis=1).max()) for param, listed in sparse if not param.masked]
    head = struct.pack(f"<I{len(sparse)}H", max(rows, default=0), *(param.line for param, _ in sparse))
    return head + range_coder.encode([(listed.astype(int).ravel().tolist(), param.line) for param, listed in sparse])


def packed_values(net: Net, values: str) -> bytes:
    kind, width = PACKED_VALUES[values]
    return struct.pack("<2I", kind, 0) + np.concatenate([param.live for param in net.params]).astype(width).tobytes()


def _artifact(net: Net, forms: dict[str, bytes | None], sections: dict[str, bytes | None]) -> bytes:
    pattern, params = _pattern_and_params(net.params)
    content: dict[str, bytes | None] = {
        "card": json.dumps(net.card).encode(),
        "recipe": _recipe(net.recipe),
        "input": _input(net),
        "graph": _graph(net),
        "params": params,
        "pattern": pattern,
        "init": net.stored.astype("<f4").tobytes(),
        "trained": None if net.trained is None else np.concatenate(net.trained).astype("<f4").tobytes(),
        "class_weights": None if net.class_weights is None else np.array(net.class_weights, "<f4").tobytes(),
        "origin": None if net.origin is None else struct.pack("<2Q", *net.origin),
        "packed_pattern": None,
        "packed_init": None,
        "packed_trained": None,
    }
    content |= forms | sections
    kinds = {name: kind for kind, name in enumerate(content, start=1)}
    table = [(kinds[name], body) for name, body in content.items() if body is not None]
    return file(ARTIFACT_MAGIC, table, net.ticket_hash)


def file(
    magic: bytes, sections: list[tuple[int, bytes]], ticket_hash: bytes, version: tuple[int, int] = (1, 0)
) -> bytes:
    """Header, section table, padded sections, with every checksum right."""
    body, entries = b"", b""
    start = 64 + 16 * len(sections)
    for kind, content in sections:
        body += bytes(-(start + len(body)) % 64)
        entries += struct.pack("<4I", kind, start + len(body), len(content), zlib.crc32(content))
        body += content

    def header(crc: int) -> bytes:
        size = start + len(body)
        return struct.pack("<8sHHIII32s8x", magic, *version, size, len(sections), crc, ticket_hash) + entries

    return header(zlib.crc32(header(0))) + body


def seal(content: bytearray) -> bytes:
    """`content` with the checksums of its sections and header made right again, after a change to its bytes."""
    (count,) = struct.unpack_from("<I", content, 16)
    for entry in range(64, 64 + 16 * count, 16):
        _, offset, size = struct.unpack_from("<3I", content, entry)
        struct.pack_into("<I", content, entry + 12, zlib.crc32(content[offset : offset + size]))
    struct.pack_into("<I", content, 20, 0)
    struct.pack_into("<I", content, 20, zlib.crc32(content[: 64 + 16 * count]))
    return bytes(content)


def section(content: bytes, kind: int) -> tuple[int, int]:
    """Offset and size of a section."""
    (count,) = struct.unpack_from("<I", content, 16)
    for entry in range(64, 64 + 16 * count, 16):
        found, offset, size, _ = struct.unpack_from("<4I", content, entry)
        if found == kind:
            return offset, size
    raise KeyError(kind)


def _recipe(r: Recipe) -> bytes:
    floats = (r.learning_rate, r.momentum, r.weight_decay, r.beta1, r.beta2, r.epsilon)
    more = (r.nesterov, r.label_smoothing, r.clip_norm, r.schedule, r.warmup_steps, r.schedule_steps, r.schedule_factor)
    return struct.pack("<2I6f2I2f3If2I", r.optimizer, r.batch, *floats, r.epochs, *more, 0, 0)


def _record(shape: tuple[int, ...]) -> bytes:
    return struct.pack("<5I", len(shape), *shape, *[1] * (4 - len(shape)))


def _input(net: Net) -> bytes:
    channels = len(net.mean)
    return _record(net.shapes[0]) + struct.pack(f"<I{2 * channels}f", channels, *net.mean, *net.inverse_std)


def _graph(net: Net) -> bytes:
    content = struct.pack("<4I", len(net.shapes), len(net.nodes), net.loss, 0) + b"".join(map(_record, net.shapes))
    for node in net.nodes:
        words = (*node.inputs, *node.params)
        content += struct.pack("<4H", node.op, len(node.inputs), len(node.params), len(node.attrs))
        content += struct.pack(f"<{len(words)}I", *words)
        content += b"".join(struct.pack("<f" if isinstance(word, float) else "<I", word) for word in node.attrs)
    return content


def _pattern_and_params(params: tuple[Param, ...]) -> tuple[bytes, bytes]:
    pattern = b""
    records = struct.pack("<2I", len(params), 0)
    for param in params:
        rows, cols = param.values.shape
        if param.mask is None:
            records += struct.pack("<6I", 0, rows, cols, rows * cols, 0, 0)
            continue
        blocks = ~param.mask if param.masked else param.mask[:: param.block]
        row_ptr = np.concatenate([[0], np.cumsum(blocks.sum(axis=1))]).astype("<u4").tobytes()
        columns = np.nonzero(blocks)[1].astype("<u4" if param.wide else "<u2").tobytes()
        starts = []
        for words in (row_ptr, columns):
            pattern += bytes(-len(pattern) % 4)
            starts.append(len(pattern))
            pattern += words
        encoding = MASKED if param.masked else ENCODINGS[param.block] + param.wide
        records += struct.pack("<6I", encoding, rows, cols, int(param.mask.sum()), *starts)
    return pattern, records
