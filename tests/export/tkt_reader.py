"""Reads a native artifact, plain or packed, by FORMAT.md into plain lists: the other way round than the exporter, for tests alone.

It asserts the invariants of the format as it goes; it is a check on the writer, not a model of how a device reads.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

from tests.golden import range_coder

POOL = "I kernel_h, I kernel_w, I stride_h, I stride_w, I pad_h, I pad_w"
# Code: name, and the attributes as struct's format and name.
OPERATORS = {
    1: ("linear", ""),
    2: ("relu", ""),
    3: ("reshape", ""),
    4: ("add", ""),
    5: ("mul", ""),
    6: ("concat", ""),
    7: ("conv", f"{POOL}, I dilation_h, I dilation_w, I groups"),
    8: ("batch_norm", "f epsilon, f momentum, I frozen"),
    9: ("layer_norm", "f epsilon, I dimensions"),
    10: ("leaky_relu", "f slope"),
    11: ("relu6", ""),
    12: ("hardswish", ""),
    13: ("sigmoid", ""),
    14: ("tanh", ""),
    15: ("gelu", "I approximation"),
    16: ("max_pool", POOL),
    17: ("avg_pool", f"{POOL}, I count_include_pad"),
    18: ("global_avg_pool", ""),
    19: ("softmax", ""),
    20: ("embedding", ""),
    21: ("dropout", "f probability"),
}
LOSSES = {1: "cross_entropy", 2: "mse", 3: "bce"}
OPTIMIZERS = {1: "sgd", 2: "adam", 3: "adamw"}
SCHEDULES = ("constant", "step", "cosine", "linear")


def read(content: bytes) -> dict[str, Any]:
    """ticket_hash, card, recipe, class_weights, channels, loss, buffers, nodes, and parameters with `live` pairs where they
    are pruned, and the values of these alone."""
    sections, ticket_hash = _sections(content)
    assert set(sections) <= set(range(1, 14))
    _unpack(sections)
    loss, buffers, nodes = _graph(sections[4])
    assert sections[3][:20] == sections[4][16:36], "INPUT and buffer 0 differ"
    parameters = _parameters(sections[5], sections[6])
    _check_use(nodes, len(parameters))
    for kind, section in (("init", 7), ("trained", 8)):
        if section in sections:
            _values(parameters, kind, sections[section])
    (channels,) = struct.unpack_from("<I", sections[3], 20)
    numbers = struct.unpack(f"<{2 * channels}f", sections[3][24:])
    return {
        "ticket_hash": ticket_hash,
        "card": json.loads(sections[1]),
        "recipe": _recipe(sections[2]),
        "class_weights": _class_weights(sections, loss, buffers[-1][0]),
        "loss": loss,
        "mean": list(numbers[:channels]),
        "inverse_std": list(numbers[channels:]),
        "buffers": buffers,
        "nodes": nodes,
        "parameters": parameters,
        "origin": struct.unpack("<QQ", sections[10]) if 10 in sections else None,
    }


def _unpack(sections: dict[int, bytes]) -> None:
    """PATTERN, INIT and TRAINED out of their packed forms."""
    (count,) = struct.unpack_from("<I", sections[5])
    records = [struct.unpack_from("<6I", sections[5], 8 + 24 * index) for index in range(count)]
    assert (6 in sections) != (11 in sections)
    assert (7 in sections) != (12 in sections)
    if 11 in sections:
        sections[6] = _pattern(records, sections[11])
    for kind in (7, 8):
        if kind + 5 in sections:
            assert kind not in sections
            sections[kind] = _all_values(records, sections[6], sections[kind + 5])


def _pattern(records: list[tuple[int, ...]], packed: bytes) -> bytes:
    """Each list of columns where its record says that it lies."""
    sparse = [record for record in records if record[0]]
    longest, *lines = struct.unpack_from(f"<I{len(sparse)}H", packed)
    assert all(line == 0 or 2 <= line <= 1023 for line in lines)
    shapes = []
    for (encoding, rows, cols, nnz, _, _), line in zip(sparse, lines, strict=True):
        block = (1, 1, 4, 8, 1)[encoding - 1]
        shapes.append((rows // block * cols, rows * cols - nnz if encoding == 5 else nnz // block, line))
    pattern, rows_of_values = b"", [0]
    found = range_coder.decode(packed[4 + 2 * len(sparse) :], shapes)
    for (encoding, _, cols, _, row_ptr, col_idx), bits in zip(sparse, found, strict=True):
        matrix = [bits[start : start + cols] for start in range(0, len(bits), cols)]
        starts = [sum(bits[: row * cols]) for row in range(len(matrix) + 1)]
        columns = [column for row in matrix for column, bit in enumerate(row) if bit]
        pattern = pattern.ljust(row_ptr, b"\0") + struct.pack(f"<{len(starts)}I", *starts)
        assert len(pattern) == col_idx
        pattern += struct.pack(f"<{len(columns)}{'I' if encoding == 2 else 'H'}", *columns)
        rows_of_values += [] if encoding == 5 else [(1, 1, 4, 8)[encoding - 1] * sum(row) for row in matrix]
    assert longest == max(rows_of_values)
    return pattern


def _all_values(records: list[tuple[int, ...]], pattern: bytes, packed: bytes) -> bytes:
    """With the zeros of what is masked, as f32."""
    kind, reserved = struct.unpack_from("<II", packed)
    assert reserved == 0
    values = list(struct.unpack(f"<{(len(packed) - 8) // (4, 2)[kind - 1]}{'fe'[kind - 1]}", packed[8:]))
    found: list[float] = []
    for encoding, rows, cols, nnz, row_ptr, col_idx in records:
        pruned = set()
        if encoding == 5:
            starts = struct.unpack_from(f"<{rows + 1}I", pattern, row_ptr)
            columns = struct.unpack_from(f"<{starts[-1]}H", pattern, col_idx)
            pruned = {row * cols + c for row in range(rows) for c in columns[starts[row] : starts[row + 1]]}
        found += [0.0 if place in pruned else values.pop(0) for place in range(nnz + len(pruned))]
    assert not values
    return struct.pack(f"<{len(found)}f", *found)


def _recipe(section: bytes) -> dict[str, Any]:
    assert len(section) == 72
    names = ("optimizer", "batch", "learning_rate", "momentum", "weight_decay", "beta1", "beta2", "epsilon", "epochs")
    more = ("nesterov", "label_smoothing", "clip_norm", "schedule", "warmup_steps", "schedule_steps", "schedule_factor")
    *words, zero1, zero2 = struct.unpack("<IIffffffIIffIIIfII", section)
    assert (zero1, zero2) == (0, 0)
    found: dict[str, Any] = dict(zip((*names, *more), words, strict=True))
    found["optimizer"] = OPTIMIZERS[found["optimizer"]]
    found["schedule"] = SCHEDULES[found["schedule"]]
    assert found["nesterov"] in (0, 1)
    assert (found["schedule_steps"] == 0) == (found["schedule"] == "constant")
    return found


def _class_weights(sections: dict[int, bytes], loss: str, classes: int) -> list[float] | None:
    if 9 not in sections:
        return None
    assert loss == "cross_entropy"
    weights = list(struct.unpack(f"<{classes}f", sections[9]))
    assert min(weights) >= 0
    assert any(weights)
    return weights


def _check_use(nodes: list[dict[str, Any]], count: int) -> None:
    """Each parameter once, and the running statistics of batch norms after all others."""
    state = [p for node in nodes if node["op"] == "batch_norm" for p in node["params"][2:]]
    assert sorted(p for node in nodes for p in node["params"]) == list(range(count))
    assert sorted(state) == list(range(count - len(state), count))


def _sections(content: bytes) -> tuple[dict[int, bytes], str]:
    magic, major, minor, file_bytes, count, crc, ticket_hash, reserved = struct.unpack_from("<8sHHIII32s8s", content)
    assert (magic, major, minor, reserved) == (b"\x89TKT\r\n\x1a\n", 1, 0, bytes(8))
    assert file_bytes == len(content)
    end = 64 + 16 * count
    assert crc == zlib.crc32(content[:20] + bytes(4) + content[24:end])
    sections: dict[int, bytes] = {}
    for index in range(count):
        kind, offset, length, section_crc = struct.unpack_from("<4I", content, 64 + 16 * index)
        assert kind > max(sections, default=0)
        assert offset == (end + 63) // 64 * 64
        assert not any(content[end:offset]), "padding"
        sections[kind], end = content[offset : offset + length], offset + length
        assert section_crc == zlib.crc32(sections[kind])
    assert end == len(content)
    return sections, ticket_hash.hex()


def _graph(section: bytes) -> tuple[str, list[list[int]], list[dict[str, Any]]]:
    buffer_count, node_count, loss, reserved = struct.unpack_from("<4I", section)
    assert (buffer_count, reserved) == (node_count + 1, 0)
    buffers = []
    for index in range(buffer_count):
        rank, *shape = struct.unpack_from("<5I", section, 16 + 20 * index)
        assert set(shape[rank:]) <= {1}
        buffers.append(shape[:rank])
    nodes, at = [], 16 + 20 * buffer_count
    for _ in range(node_count):
        op, inputs, params, attrs = struct.unpack_from("<4H", section, at)
        words = struct.unpack_from(f"<{inputs + params}I", section, at + 8)
        at += 8 + 4 * len(words)
        name, layout = OPERATORS[op]
        settings = [field.split() for field in layout.split(", ") if field]
        assert attrs == len(settings), name
        values = struct.unpack_from("<" + "".join(kind for kind, _ in settings), section, at)
        at += 4 * attrs
        node = {"op": name, "inputs": list(words[:inputs]), "params": list(words[inputs:])}
        nodes.append(node | {"attrs": {key: value for (_, key), value in zip(settings, values, strict=True)}})
    assert at == len(section)
    return LOSSES[loss], buffers, nodes


def _parameters(params: bytes, pattern: bytes) -> list[dict[str, Any]]:
    count, reserved = struct.unpack_from("<II", params)
    assert (len(params), reserved) == (8 + 24 * count, 0)
    parameters, end = [], 0
    for index in range(count):
        encoding, rows, cols, nnz, row_ptr, col_idx = struct.unpack_from("<6I", params, 8 + 24 * index)
        parameter: dict[str, Any] = {"rows": rows, "cols": cols, "nnz": nnz, "encoding": encoding}
        if encoding:
            block, width = ((1, 2), (1, 4), (4, 2), (8, 2), (1, 2))[encoding - 1]
            assert rows % block == 0
            blocks = rows // block
            assert (row_ptr, col_idx) == ((end + 3) // 4 * 4, row_ptr + 4 * (blocks + 1))
            assert not any(pattern[end:row_ptr]), "padding"
            starts = struct.unpack_from(f"<{blocks + 1}I", pattern, row_ptr)
            columns = struct.unpack_from(f"<{starts[-1]}{'H' if width == 2 else 'I'}", pattern, col_idx)
            listed = [
                [b * block + i, c]
                for b in range(blocks)
                for c in columns[starts[b] : starts[b + 1]]
                for i in range(block)
            ]
            assert (starts[0], starts[-1] * block) == (0, len(listed))
            if encoding == 5:
                parameter["pruned"] = pruned = {(row, column) for row, column in listed}
                listed = [[r, c] for r in range(rows) for c in range(cols) if (r, c) not in pruned]
            parameter["live"] = listed
            assert len(listed) == nnz
            end = col_idx + starts[-1] * width
        else:
            assert (nnz, row_ptr, col_idx) == (rows * cols, 0, 0)
        parameters.append(parameter)
    assert end == len(pattern)
    return parameters


def _values(parameters: list[dict[str, Any]], kind: str, section: bytes) -> None:
    at = 0
    for parameter in parameters:
        pruned = parameter.get("pruned", set())
        stored = struct.unpack_from(f"<{parameter['nnz'] + len(pruned)}f", section, at)
        at += 4 * len(stored)
        zeros = [row * parameter["cols"] + column for row, column in pruned]
        assert all(struct.pack("<f", stored[place]) == bytes(4) for place in zeros), "a pruned weight is +0"
        parameter[kind] = [value for place, value in enumerate(stored) if place not in set(zeros)]
    assert at == len(section)
