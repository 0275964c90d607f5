"""Reads a native artifact by FORMAT.md into plain lists: the other way round than the exporter, for tests alone.

It asserts the invariants of the format as it goes; it is a check on the writer, not a model of how a device reads.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

OPERATORS = {1: "linear", 2: "relu", 3: "flatten", 4: "add"}


def read(content: bytes) -> dict[str, Any]:
    """ticket_hash, card, recipe, channels, buffers, nodes, and parameters with `live` pairs where they are CSR."""
    sections, ticket_hash = _sections(content)
    buffers, nodes = _graph(sections[4])
    assert sections[3][:20] == sections[4][16:36], "INPUT and buffer 0 differ"
    parameters = _parameters(sections[5], sections[6])
    for kind, section in (("init", 7), ("trained", 8)):
        if section in sections:
            _values(parameters, kind, sections[section])
    (channels,) = struct.unpack_from("<I", sections[3], 20)
    numbers = struct.unpack(f"<{2 * channels}f", sections[3][24:])
    return {
        "ticket_hash": ticket_hash,
        "card": json.loads(sections[1]),
        "recipe": struct.unpack("<II6fII", sections[2]),
        "mean": list(numbers[:channels]),
        "inverse_std": list(numbers[channels:]),
        "buffers": buffers,
        "nodes": nodes,
        "parameters": parameters,
    }


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


def _graph(section: bytes) -> tuple[list[list[int]], list[dict[str, Any]]]:
    buffer_count, node_count, loss, reserved = struct.unpack_from("<4I", section)
    assert (buffer_count, loss, reserved) == (node_count + 1, 1, 0)
    buffers = []
    for index in range(buffer_count):
        rank, *shape = struct.unpack_from("<5I", section, 16 + 20 * index)
        assert set(shape[rank:]) <= {1}
        buffers.append(shape[:rank])
    nodes, at = [], 16 + 20 * buffer_count
    for _ in range(node_count):
        op, inputs, params, attrs = struct.unpack_from("<4H", section, at)
        words = struct.unpack_from(f"<{inputs + params + attrs}I", section, at + 8)
        assert attrs == 0
        nodes.append({"op": OPERATORS[op], "inputs": list(words[:inputs]), "params": list(words[inputs:])})
        at += 8 + 4 * len(words)
    assert at == len(section)
    return buffers, nodes


def _parameters(params: bytes, pattern: bytes) -> list[dict[str, Any]]:
    count, reserved = struct.unpack_from("<II", params)
    assert (len(params), reserved) == (8 + 24 * count, 0)
    parameters, end = [], 0
    for index in range(count):
        encoding, rows, cols, nnz, row_ptr, col_idx = struct.unpack_from("<6I", params, 8 + 24 * index)
        parameter: dict[str, Any] = {"rows": rows, "cols": cols, "nnz": nnz, "encoding": encoding}
        if encoding:
            assert (row_ptr, col_idx) == ((end + 3) // 4 * 4, row_ptr + 4 * (rows + 1))
            assert not any(pattern[end:row_ptr]), "padding"
            starts = struct.unpack_from(f"<{rows + 1}I", pattern, row_ptr)
            columns = struct.unpack_from(f"<{nnz}{'_HI'[encoding]}", pattern, col_idx)
            parameter["live"] = [[r, c] for r in range(rows) for c in columns[starts[r] : starts[r + 1]]]
            assert (starts[0], starts[-1], len(parameter["live"])) == (0, nnz, nnz)
            end = col_idx + nnz * 2 * encoding
        else:
            assert (nnz, row_ptr, col_idx) == (rows * cols, 0, 0)
        parameters.append(parameter)
    assert end == len(pattern)
    return parameters


def _values(parameters: list[dict[str, Any]], kind: str, section: bytes) -> None:
    at = 0
    for parameter in parameters:
        parameter[kind] = list(struct.unpack_from(f"<{parameter['nnz']}f", section, at))
        at += 4 * parameter["nnz"]
    assert at == len(section)
