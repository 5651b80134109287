"""Byte offsets of rows, and what makes them invalid."""

from __future__ import annotations

import codecs
import gzip
import json
import os
from pathlib import Path

import pytest

from spotcli.errors import DataError, UserError
from spotcli.inspection.row_index import RowIndex, index_path
from tests.inspection.example_pairs import PAIRS, write_rows


def ids(path: Path) -> list[str]:
    with RowIndex.open(path) as index:
        return [index.row(row)["id"] for row in range(len(index))]


def test_rows_are_read_by_number_in_any_order(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [{"id": str(number), "text": "é" * number} for number in range(50)])
    with RowIndex.open(path) as index:
        assert len(index) == 50
        assert [index.row(row)["id"] for row in (49, 0, 7)] == ["49", "0", "7"]
        assert index.where(7) == f"{path}:8"


def test_the_index_is_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "data.jsonl", PAIRS)
    before = ids(path)
    assert index_path(path).name == "data.index"
    monkeypatch.setattr("spotcli.inspection.row_index._scan", None)  # a second pass over the file would fail
    assert ids(path) == before


def test_a_changed_file_is_indexed_again(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [{"id": "aa"}, {"id": "b"}])
    assert ids(path) == ["aa", "b"]
    stat = path.stat()
    write_rows(path, [{"id": "a"}, {"id": "bb"}])  # the same size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # and the same time
    assert ids(path) == ["a", "bb"]
    with path.open("a") as file:
        file.write('{"id": "c"}\n')
    assert ids(path) == ["a", "bb", "c"]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"[]\n", b'{"rows": -1}\n', b"\xff\xfe", b"[" * 4000])
def test_a_damaged_index_is_replaced(tmp_path: Path, damage: bytes) -> None:
    path = write_rows(tmp_path / "data.jsonl", PAIRS)
    ids(path)
    good = index_path(path).read_bytes()
    for content in (damage, good[:-8], good[:-16] + b"\xff" * 16, good + b"\0" * 8):
        index_path(path).write_bytes(content)
        assert ids(path) == [row["id"] for row in PAIRS]


def test_a_folder_that_cannot_be_written_has_no_index(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", PAIRS)
    index_path(path).mkdir()
    assert len(ids(path)) == 3


def test_blank_lines_a_byte_order_mark_and_a_missing_line_end(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + b'\n\n{"id": "a"}\r\n \n{"id": "b"}')
    with RowIndex.open(path) as index:
        assert [index.row(row)["id"] for row in range(len(index))] == ["a", "b"]
        assert (index.where(0), index.where(1)) == (f"{path}:3", f"{path}:5")


def test_damaged_rows_are_errors_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"id": "a"}\nnot json\n\xff\n[1]\n{"id": "b"}\n{"id": "torn')
    with RowIndex.open(path) as index:
        assert (len(index), index.row(4)["id"]) == (6, "b")
        for row, message in ((1, "invalid JSON"), (2, "UTF-8"), (3, "an array"), (5, "the last line is incomplete")):
            with pytest.raises(DataError, match=message):
                index.row(row)


@pytest.mark.parametrize("form", ["gzip", "array", "carriage returns"])
def test_files_without_one_row_per_line_are_copied(tmp_path: Path, form: str) -> None:
    lines = [json.dumps(row) for row in PAIRS]
    contents = {
        "gzip": gzip.compress("\n".join(lines).encode()),
        "array": json.dumps(PAIRS, indent=1).encode(),
        "carriage returns": "\r".join(lines).encode(),
    }
    path = tmp_path / "data.jsonl"
    path.write_bytes(contents[form])
    assert ids(path) == [row["id"] for row in PAIRS]
    assert not index_path(path).exists()


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"")
    assert ids(path) == []
    assert ids(path) == []


def test_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"PAR1abc")
    with pytest.raises(UserError, match="failed to read the Parquet file"):
        RowIndex.open(path)
    with pytest.raises(UserError, match="file not found"):
        RowIndex.open(tmp_path / "nowhere.jsonl")
