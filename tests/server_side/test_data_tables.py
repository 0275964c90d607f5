"""Tables: CSV and Parquet give the same samples; the classes' order; gaps, text and doubled columns are named."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.data import load_data, split
from tests.server_side.sources import refusal

RANDOM = np.random.default_rng(1)
Columns = dict[str, Any]  # a list or an array each


def columns(rows: int = 40) -> Columns:
    return {
        "width": RANDOM.normal(1000, 30, rows).tolist(),
        "label": ["ham" if row % 3 else "egg" for row in range(rows)],
        "count": RANDOM.integers(0, 9, rows).tolist(),
    }


def write_csv(path: Path, table: Columns) -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return f"table:{path}"


def write_parquet(path: Path, table: Columns) -> str:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the `data` extra")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(table), path)
    return f"table:{path}"


def write(folder: Path, kind: str, table: Columns) -> str:
    return {"csv": write_csv, "parquet": write_parquet}[kind](folder / f"food.{kind}", table)


KINDS = pytest.mark.parametrize("kind", ["csv", "parquet"])


@KINDS
def test_columns_become_features_and_classes(kind: str, tmp_path: Path) -> None:
    table = columns() | {"split": ["test" if row % 4 == 1 else "train" for row in range(40)]}
    data = load_data(write(tmp_path, kind, table))
    x = np.array([table["width"], table["count"]]).T.astype(np.float32)
    y = np.array([["egg", "ham"].index(label) for label in table["label"]])
    test = np.arange(40) % 4 == 1
    assert (data.name, data.labels) == (f"table:food.{kind}", ("egg", "ham"))
    assert data.x_train.dtype == np.float32
    assert np.array_equal(data.x_train, x[~test])
    assert np.array_equal(data.x_test, x[test])
    assert np.array_equal(data.y_train, y[~test])
    assert np.array_equal(data.y_test, y[test])


def test_both_kinds_are_the_same_data(tmp_path: Path) -> None:
    table = columns()
    prints = {load_data(write(tmp_path, kind, table)).fingerprint for kind in ("csv", "parquet")}
    assert len(prints) == 1


@KINDS
def test_whole_numbers_as_classes_are_in_their_order(kind: str, tmp_path: Path) -> None:
    table = columns() | {"label": [10 if row % 2 else 9 for row in range(40)]}
    assert load_data(write(tmp_path, kind, table)).labels == ("9", "10")


@KINDS
def test_the_classes_may_be_in_another_column(kind: str, tmp_path: Path) -> None:
    table = columns()
    other = {"food": table["label"], "width": table["width"], "count": table["count"]}
    named = load_data(write(tmp_path, kind, other) + "?label=food")
    assert named.fingerprint == load_data(write(tmp_path, kind, table)).fingerprint
    assert "no column 'label'; it has food, width, count; name the classes' by ?label=NAME" in refusal(
        write(tmp_path, kind, other)
    )


@KINDS
def test_every_feature_is_normalised_by_itself(kind: str, tmp_path: Path) -> None:
    parts = split(load_data(write(tmp_path, kind, columns(200))), 0.2, 0)
    assert parts.mean.shape == parts.inverse_std.shape == (2,)
    assert parts.mean[0] == pytest.approx(1000, abs=10)
    np.testing.assert_allclose(parts.x_train.std(axis=0), 1, atol=1e-5)


def test_categories_and_truth_values_of_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the `data` extra")
    table = columns()
    plain = load_data(write_parquet(tmp_path / "a.parquet", table | {"count": [n > 4 for n in table["count"]]}))
    coded = table | {
        "label": pyarrow.array(table["label"]).dictionary_encode(),
        "count": [n > 4 for n in table["count"]],
    }
    assert load_data(write_parquet(tmp_path / "a.parquet", coded)).fingerprint == plain.fingerprint
    assert set(plain.x_train[:, 1]) == {0.0, 1.0}


@KINDS
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"split": ["test"] * 20 + ["valid"] * 20}, "column 'split' has 'valid'; expected train or test"),
        ({"label": ["a"] * 39 + ["b"], "split": ["train"] * 39 + ["test"]}, "class 'b' is in the test part alone"),
        ({"split": ["train"] * 40}, "test part: x has shape (0, 2)"),
        ({"label": ["a"] * 40}, "1 classes for 40 samples"),
        ({"label": ["a", *["b"] * 39]}, "class 'a' has a single sample"),
        ({"count": [*range(39), float("nan")]}, "row 40, feature 2 is nan; fill gaps"),
        ({"count": [float("inf"), *range(39)]}, "row 1, feature 2 is inf"),
        ({"count": [*range(39), 1e300]}, "holds 1e+300, beyond float32"),
        ({"": list(range(40))}, "column 4 has no name, as an index that pandas wrote"),
        ({"__index_level_0__": list(range(40))}, "column 4 has no name"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(kind: str, change: Columns, text: str, tmp_path: Path) -> None:
    assert text in refusal(write(tmp_path, kind, columns() | change))


@KINDS
def test_a_table_of_classes_alone_or_of_no_rows_is_refused(kind: str, tmp_path: Path) -> None:
    assert "no column of numbers beside 'label'" in refusal(write(tmp_path, kind, {"label": ["a", "b"]}))
    no_rows: Columns = {"label": np.array([], str), "x": np.array([], float)}
    assert "no rows" in refusal(write(tmp_path, kind, no_rows))
    assert "option label=split" in refusal(
        write(tmp_path, kind, columns() | {"split": ["train"] * 40}) + "?label=split"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no column 'label'; it has ; name"),
        (b"x;label\n1;a\n", "no column 'label'; it has x;label; name"),
        (b"x,x,label\n1,2,a\n", "two columns 'x'"),
        (b"x,label\n1,a\n2\n", "line 3 has 1 cells, but the header 2"),
        (b"x,label\n1,a\n2,b,c\n", "line 3 has 3 cells"),
        (b"x,label\n1,a\n,b\n", "line 3, column 'x': '' is no number"),
        (b'x,label\n1,a\n"two",b\n', "line 3, column 'x': 'two' is no number"),
        (b"x,label\n1,a\n2,\n", "line 3 has no class"),
        (b"x,label\n1,\xff\n", "no CSV in UTF-8"),
        (b'x,label\n1,"a\n', "no CSV in UTF-8: unexpected end of data"),
        (b"x,label\n1,a\n2,a\n3,\x00\n4,\x00\n", "classes without a printable name"),
    ],
)
def test_damaged_csv_is_named(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "food.csv").write_bytes(content)
    line = refusal(f"table:{tmp_path / 'food.csv'}")
    assert text in line


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    text = '\ufeffx, label \r\n1,a\r\n 2 ,"a"\r\n3e0,b\r\n4, b\r\n\r\n'
    (tmp_path / "food.csv").write_text(text, encoding="utf-8", newline="")
    data = load_data(f"table:{tmp_path / 'food.csv'}")
    assert data.labels == ("a", "b")
    assert sorted(np.concatenate([data.x_train, data.x_test])[:, 0]) == [1, 2, 3, 4]


def test_parquet_with_gaps_or_text_among_its_numbers_is_named(tmp_path: Path) -> None:
    table, path = columns(), tmp_path / "food.parquet"
    gaps = table | {"count": [None, *table["count"][1:]]}
    assert "column 'count' has 1 gaps" in refusal(write_parquet(path, gaps))
    assert "column 'count' is string; features are numbers" in refusal(
        write_parquet(path, table | {"count": ["1"] * 40})
    )
    assert "row 2, column 'label': None is neither text" in refusal(
        write_parquet(path, table | {"label": ["a", None] * 20})
    )
    assert "row 1, column 'label': 0.5 is neither text" in refusal(write_parquet(path, table | {"label": [0.5] * 40}))
    path.write_bytes(path.read_bytes()[:-9])
    assert "no whole Parquet file" in refusal(f"table:{path}")


def test_other_or_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ends in neither .csv nor .parquet" in refusal("table:food.xlsx")
    assert "No such file or directory; name a .csv file" in refusal("table:nowhere.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "Parquet needs pyarrow; pip install 'pocket-ticket[data]'" in refusal("table:food.parquet")
