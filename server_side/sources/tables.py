"""`table:FILE`: a .csv (comma, header, UTF-8) or .parquet file with a column of classes and columns of numbers.

The classes are in the column `label`, or `?label=NAME`, as text or whole numbers; a column `split` says train or test.
Every other column is a feature, normalised by itself; samples are (features,) float32. Refuses gaps, text among numbers
and columns of the same name. Parquet needs pyarrow.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server_side.sources.source import Samples, Source, in_order, numbered

TABLE_OPTIONS = ("label",)
Features = NDArray[np.float64]
Table = tuple[Features, list[str], list[str] | None]  # features (rows, columns), the class and the part of each row


def read_table(source: Source) -> Samples:
    path = Path(source.path)
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise source.error(f"'{path.name}' ends in neither .csv nor .parquet; name a table of one of these kinds")
    x, labels, split = readers[path.suffix.lower()](source, path, source.options.get("label", "label"))
    name = f"table:{path.name}"
    if not len(x):
        raise source.error("no rows; expected one sample a row")
    _check_numbers(source, x)
    if split is None:
        order = in_order(labels)
        return Samples(name, x, numbered(labels, order), labels=tuple(order), by_feature=True)
    if wrong := sorted(set(split) - {"train", "test"}):
        raise source.error(f"column 'split' has '{wrong[0]}'; expected train or test")
    test = np.array([part == "test" for part in split])
    order = in_order([label for label, part in zip(labels, split, strict=True) if part == "train"])
    if unknown := sorted(set(labels) - set(order)):
        raise source.error(f"class '{unknown[0]}' is in the test part alone; give it samples to train")
    y = numbered(labels, order)
    return Samples(name, x[~test], y[~test], x[test], y[test], tuple(order), by_feature=True)


def _check_header(source: Source, columns: Sequence[str], label: str) -> list[int]:
    """The places of the features."""
    if label not in columns:
        raise source.error(f"no column '{label}'; it has {_shortened(columns)}; name the classes' by ?label=NAME")
    if label == "split":
        raise source.error("option label=split; that column says train or test")
    for place, name in enumerate(columns):
        if not name or name.startswith("__index_level_"):
            raise source.error(
                f"column {place + 1} has no name, as an index that pandas wrote; write it with index=False"
            )
        if columns.index(name) != place:
            raise source.error(f"two columns '{name}'; keep one of them")
    features = [place for place, name in enumerate(columns) if name not in (label, "split")]
    if not features:
        raise source.error(f"no column of numbers beside '{label}'")
    return features


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _check_numbers(source: Source, x: Features) -> None:
    wrong = np.argwhere(~np.isfinite(x))
    if len(wrong):
        row, column = (int(n) for n in wrong[0])
        raise source.error(f"row {row + 1}, feature {column + 1} is {x[row, column]}; fill gaps or leave such rows out")


def _read_csv(source: Source, path: Path, label: str) -> Table:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _csv_table(source, csv.reader(file, strict=True), label)
    except OSError as error:
        raise source.error(f"{error.strerror}; name a .csv file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise source.error(f"no CSV in UTF-8: {error}; save it with commas and in UTF-8") from error


def _csv_table(source: Source, reader: Any, label: str) -> Table:
    columns = [name.strip() for name in next(reader, [])]
    features = _check_header(source, columns, label)
    label_place = columns.index(label)
    split_place = columns.index("split") if "split" in columns else None
    values, labels, split = array("d"), list[str](), list[str]()
    for row in reader:
        if not row:
            continue  # an empty line, such as the last one
        if len(row) != len(columns):
            raise source.error(f"line {reader.line_num} has {len(row)} cells, but the header {len(columns)}")
        labels.append(_label(source, row[label_place].strip(), f"line {reader.line_num}"))
        if split_place is not None:
            split.append(row[split_place].strip())
        try:
            values.extend([float(row[place]) for place in features])
        except ValueError:
            place = next(place for place in features if not _is_number(row[place]))
            raise source.error(
                f"line {reader.line_num}, column '{columns[place]}': '{row[place][:40]}' is no number; features are numbers"
            ) from None
    x = np.frombuffer(values, np.float64).reshape(-1, len(features))
    return x, labels, None if split_place is None else split


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label(source: Source, text: str, where: str) -> str:
    if not text:
        raise source.error(f"{where} has no class; leave such rows out")
    return text


def _read_parquet(source: Source, path: Path, label: str) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise source.error("Parquet needs pyarrow; pip install 'pocket-ticket[data]'") from error
    try:
        with open(path, "rb") as file:
            table = parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise source.error(
            f"no whole Parquet file: {getattr(error, 'strerror', None) or error}; write it again"
        ) from error
    columns = table.column_names
    features = _check_header(source, columns, label)
    x = np.empty((table.num_rows, len(features)), np.float64)
    for place, number in enumerate(features):
        x[:, place] = _numbers(source, columns[number], table.column(number))
    labels = [_label(source, text, f"row {n + 1}") for n, text in enumerate(_texts(source, label, table.column(label)))]
    return x, labels, _texts(source, "split", table.column("split")) if "split" in columns else None


def _numbers(source: Source, name: str, column: Any) -> Any:
    import pyarrow

    kinds = pyarrow.types
    if not any(is_kind(column.type) for is_kind in (kinds.is_integer, kinds.is_floating, kinds.is_boolean)):
        raise source.error(f"column '{name}' is {column.type}; features are numbers")
    if column.null_count:
        raise source.error(f"column '{name}' has {column.null_count} gaps; fill them or leave such rows out")
    return column.to_numpy()


def _texts(source: Source, name: str, column: Any) -> list[str]:
    """Of text, also as categories, or whole numbers."""
    values = column.to_pylist()
    for row, value in enumerate(values):
        if type(value) not in (str, int):
            raise source.error(f"row {row + 1}, column '{name}': {value!r} is neither text nor a whole number")
    return [str(value) for value in values]
