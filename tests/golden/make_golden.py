"""Writes each `NAME.tkt` from the description `NAME.json` beside it, by FORMAT.md alone: no code of the product in it.

`python tests/golden/make_golden.py` rewrites the files; a test holds them against the exporter, byte for byte. Change
them only together with FORMAT.md.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
POOL = (*("kernel_h", "kernel_w", "stride_h", "stride_w"), "pad_h", "pad_w")
# Code, and the attributes in their order; f: is a float.
OPERATORS: dict[str, tuple[int, tuple[str, ...]]] = {
    "linear": (1, ()),
    "relu": (2, ()),
    "reshape": (3, ()),
    "add": (4, ()),
    "mul": (5, ()),
    "concat": (6, ()),
    "conv": (7, (*POOL, "dilation_h", "dilation_w", "groups")),
    "batch_norm": (8, ("f:epsilon", "f:momentum", "frozen")),
    "layer_norm": (9, ("f:epsilon", "dimensions")),
    "leaky_relu": (10, ("f:slope",)),
    "relu6": (11, ()),
    "hardswish": (12, ()),
    "sigmoid": (13, ()),
    "tanh": (14, ()),
    "gelu": (15, ("approximation",)),
    "max_pool": (16, POOL),
    "avg_pool": (17, (*POOL, "count_include_pad")),
    "global_avg_pool": (18, ()),
    "softmax": (19, ()),
    "embedding": (20, ()),
    "dropout": (21, ("f:probability",)),
}
LOSSES = {"cross_entropy": 1, "mse": 2, "bce": 3}
OPTIMIZERS = {"sgd": 1, "adam": 2, "adamw": 3}
SCHEDULES = {"constant": 0, "step": 1, "cosine": 2, "linear": 3}
Description = dict[str, Any]


def artifact(d: Description) -> bytes:
    """The whole file that FORMAT.md prescribes for a description."""
    sections = [
        (1, json.dumps(d["card"], sort_keys=True, separators=(",", ":")).encode("utf-8")),
        (2, recipe(d["card"]["recipe"])),
        (3, input_section(d)),
        (4, graph(d)),
        *zip((5, 6), params_and_pattern(d), strict=True),
        (7, values(d, "init")),
    ]
    if "trained" in d["parameters"][0]:
        sections.append((8, values(d, "trained")))
    if weights := d["card"]["recipe"].get("class_weights"):
        sections.append((9, struct.pack(f"<{len(weights)}f", *weights)))
    table, end = b"", 64 + 16 * len(sections)
    body = b""
    for kind, content in sections:
        while end % 64:
            body, end = body + b"\0", end + 1
        table += struct.pack("<4I", kind, end, len(content), zlib.crc32(content))
        body, end = body + content, end + len(content)
    magic = bytes([0x89, 0x54, 0x4B, 0x54, 0x0D, 0x0A, 0x1A, 0x0A])
    front = magic + struct.pack("<HHII", 1, 0, end, len(sections))
    back = bytes.fromhex(d["ticket_hash"]) + bytes(8) + table
    return front + struct.pack("<I", zlib.crc32(front + bytes(4) + back)) + back + body


def recipe(r: Description) -> bytes:
    floats = [r[key] for key in ("learning_rate", "momentum", "weight_decay", "beta1", "beta2", "epsilon")]
    out = struct.pack("<2I6fI", OPTIMIZERS[r["optimizer"]], r["batch"], *floats, r["epochs"])
    out += struct.pack("<I2f", r.get("nesterov", False), r.get("label_smoothing", 0.0), r.get("clip_norm", 0.0))
    out += struct.pack("<I", SCHEDULES[r.get("schedule", "constant")])
    out += struct.pack("<2If", r.get("warmup_steps", 0), r.get("schedule_steps", 0), r.get("schedule_factor", 1.0))
    return out + bytes(8)


def shape(dimensions: list[int]) -> bytes:
    return struct.pack("<5I", len(dimensions), *[*dimensions, 1, 1, 1][:4])


def input_section(d: Description) -> bytes:
    numbers = d["card"]["input"]["mean"] + d["card"]["input"]["inverse_std"]
    channels = len(numbers) // 2
    return shape(d["buffers"][0]) + struct.pack(f"<I{2 * channels}f", channels, *numbers)


def graph(d: Description) -> bytes:
    out = struct.pack("<4I", len(d["buffers"]), len(d["nodes"]), LOSSES[d["loss"]], 0)
    for dimensions in d["buffers"]:
        out += shape(dimensions)
    index = {parameter["name"]: number for number, parameter in enumerate(d["parameters"])}
    for node in d["nodes"]:
        params = [index[name] for name in node["params"]]
        words = node["inputs"] + params
        code, attrs = OPERATORS[node["op"]]
        out += struct.pack("<4H", code, len(node["inputs"]), len(params), len(attrs))
        out += struct.pack(f"<{len(words)}I", *words)
        for attr in attrs:
            value = node["attrs"][attr.removeprefix("f:")]
            out += struct.pack("<f" if attr.startswith("f:") else "<I", value)
    return out


def params_and_pattern(d: Description) -> tuple[bytes, bytes]:
    """A parameter with `live`, pairs of row and column in order, is CSR, or `masked`; one without is dense."""
    params, pattern = struct.pack("<2I", len(d["parameters"]), 0), b""
    for parameter in d["parameters"]:
        rows, cols = parameter["shape"][0], math.prod(parameter["shape"][1:])
        if "live" not in parameter:
            params += struct.pack("<6I", 0, rows, cols, rows * cols, 0, 0)
            continue
        live = listed = parameter["live"]
        encoding = 1 if cols <= 65536 else 2
        if parameter.get("masked"):
            encoding, listed = 5, [[r, c] for r in range(rows) for c in range(cols) if [r, c] not in live]
        starts = [sum(1 for r, _ in listed if r < row) for row in range(rows + 1)]
        columns = struct.pack(f"<{len(listed)}{'I' if encoding == 2 else 'H'}", *(c for _, c in listed))
        row_ptr = len(pattern) + -len(pattern) % 4
        pattern = pattern.ljust(row_ptr, b"\0") + struct.pack(f"<{rows + 1}I", *starts)
        params += struct.pack("<6I", encoding, rows, cols, len(live), row_ptr, len(pattern))
        pattern += columns
    return params, pattern


def values(d: Description, kind: str) -> bytes:
    return b"".join(struct.pack("<f", value) for p in d["parameters"] for value in stored(p, kind))


def stored(parameter: Description, kind: str) -> list[float]:
    """`masked`: 0 where nothing is live."""
    if not parameter.get("masked"):
        return list(parameter[kind])
    cols = math.prod(parameter["shape"][1:])
    found = [0.0] * (parameter["shape"][0] * cols)
    for (row, column), value in zip(parameter["live"], parameter[kind], strict=True):
        found[row * cols + column] = value
    return found


if __name__ == "__main__":
    for description in sorted(HERE.glob("*.json")):
        content = artifact(json.loads(description.read_text(encoding="utf-8")))
        description.with_suffix(".tkt").write_bytes(content)
        print(f"{description.stem}.tkt: {len(content)} bytes")
