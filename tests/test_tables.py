"""Own tables: encodings, texts that look like nothing, and rows that do not fit."""

import json

import pytest

from xai_utils import runtime, tables

WANTED = ("text", "label")


@pytest.fixture(autouse=True)
def record(monkeypatch):
    monkeypatch.setattr(runtime, "record", runtime.Record())


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8", None), ("utf-8-sig", None), ("utf-16", "UTF-16"), ("cp1252", "Windows-1252")],
)
def test_a_table_is_read_in_its_encoding_which_is_said(tmp_path, encoding, said):
    path = write(tmp_path / "own.csv", 'text,label\n"Ein schöner, „großer“ Film",gut\n', encoding)
    assert tables.rows_of(path, WANTED) == [{"text": "Ein schöner, „großer“ Film", "label": "gut"}]
    assert runtime.record.data.get("encoding of own.csv") == said


@pytest.mark.parametrize("content", [b"text,label\n\x81\x8d,1\n", b"\xff\xfea", b"text\0,label\n"])
def test_what_is_no_text_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"own\.csv is no text in UTF-8, UTF-16 with its mark, or Windows-1252"):
        tables.rows_of(write(tmp_path / "own.csv", content), WANTED)


def test_texts_that_look_like_nothing_are_texts(tmp_path):
    path = write(tmp_path / "own.csv", "text,label\nNA,1\nnull,0\n1999,yes\nNaN,\n")
    assert [row["text"] for row in tables.rows_of(path, WANTED)] == ["NA", "null", "1999", "NaN"]
    assert tables.rows_of(path, WANTED)[3]["label"] == ""


def test_lines_within_a_field_and_tabs(tmp_path):
    path = write(tmp_path / "own.csv", 'text,label\r\n"two\r\nlines",1\r\n')
    assert tables.rows_of(path, WANTED) == [{"text": "two\r\nlines", "label": "1"}]
    path = write(tmp_path / "own.tsv", "text\tlabel\na, b\t1\n")
    assert tables.rows_of(path, WANTED) == [{"text": "a, b", "label": "1"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("own.csv", "", r"own\.csv has no row; expected the columns text and label"),
        ("own.csv", "text,label\n", r"own\.csv has no row"),
        ("own.csv", "text,klass\na,1\n", r"own\.csv, line 2, lacks the column label; it has text, klass"),
        ("own.csv", "text,label\na,1\nb\n", r"own\.csv, line 3, does not have the 2 fields of the header"),
        ("own.csv", "text,label\na,1,2\n", r"own\.csv, line 2, does not have the 2 fields"),
        ("own.csv", 'text,label\n"a,1\n', r"own\.csv, line 1: unexpected end of data"),
        ("own.jsonl", '{"text": "a", "label": 1}\n{"text": ', r"own\.jsonl, line 2, is no JSON: Expecting value"),
        ("own.jsonl", "[1]\n", r"own\.jsonl, line 1, holds a list, expected an object"),
        ("own.jsonl", '{"text": "a"}\n', r"own\.jsonl, line 1, lacks the column label; it has text"),
        ("own.xlsx", "PK", r"own\.xlsx ends in '\.xlsx', expected \.csv, \.tsv, \.jsonl"),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_line(tmp_path, name, content, said):
    with pytest.raises(ValueError, match=said):
        tables.rows_of(write(tmp_path / name, content), WANTED)


def test_json_is_read_or_its_file_is_named(tmp_path):
    assert tables.json_of(write(tmp_path / "classes.json", json.dumps({"bär": [294]}), "cp1252")) == {"bär": [294]}
    with pytest.raises(ValueError, match=r"classes\.json is no JSON: .* in line 2"):
        tables.json_of(write(tmp_path / "classes.json", "{\n1: 2}"))
    with pytest.raises(FileNotFoundError, match=r"no file none\.json"):
        tables.json_of(tmp_path / "none.json")
