"""Files of rows in every format that is read, and what is said of those that are not."""

import gzip
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from router.errors import BadInput
from router.learn.outcomes import read_outcomes
from router.learn.tables import each_row, read_table, text_of

ROWS = [{"id": "1", "prompt": "one, two"}, {"id": "2", "prompt": "caf\u00e9 \U0001f642"}]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
WRITTEN = {
    "jsonl": ("a.jsonl", JSONL),
    "empty lines": ("a.jsonl", b"\n" + JSONL.replace(b"\n", b"\n\n  \n")),
    "Windows lines": ("a.jsonl", JSONL.replace(b"\n", b"\r\n")),
    "no end of line": ("a.jsonl", JSONL.rstrip()),
    "byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + JSONL),
    "raw UTF-8": ("a.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()),
    "gzip": ("a.jsonl.gz", gzip.compress(JSONL)),
    "gzip by content": ("a", gzip.compress(JSONL)),
    "list": ("a.json", json.dumps(ROWS).encode()),
    "list over lines": ("a.json", b"\xef\xbb\xbf \n" + json.dumps(ROWS, indent=2).encode()),
    "csv": ("a.csv", 'id,prompt\n1,"one, two"\n2,caf\u00e9 \U0001f642\n'.encode()),
    "csv of Excel": ("a.csv", "\ufeffid;prompt\r\n1;one, two\r\n\r\n2;caf\u00e9 \U0001f642\r\n".encode()),
    "tabs": ("a.tsv", "id\tprompt\n1\tone, two\n2\tcaf\u00e9 \U0001f642\n".encode()),
    "gzipped csv": ("a.csv.gz", gzip.compress('id,prompt\n1,"one, two"\n2,caf\u00e9 \U0001f642\n'.encode())),
}


@pytest.mark.parametrize("name, content", WRITTEN.values(), ids=WRITTEN.keys())
def test_all_formats_hold_the_same_rows(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert [row for _, row in each_row(path)] == ROWS
    assert text_of(read_table(path), path) == [row["prompt"] for row in ROWS]


def test_parquet_is_read_as_rows_too(tmp_path):
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a")
    assert list(each_row(tmp_path / "a")) == list(enumerate(ROWS, 1))


REFUSED = {
    "a number in a list": (b'[{"a": 1}, 5]', "its row 2 is a number"),
    "a list in two": (b'[{"a": 1}]\n[{"a": 2}]', "line 2: not JSON .Extra data"),
    "a text": (b'"a"', "line 1: a text, expected a JSON object"),
    "null": (b"null", "line 1: null, expected a JSON object"),
    "UTF-16": ("{}".encode("utf-16"), "UTF-16 text, not UTF-8; convert it"),
    "zstd": (b"(\xb5/\xfd....", "compressed with zstd"),
    "NUL": (b'{"a": 1}\n\0\n', "line 2: holds NUL bytes"),
    "cut gzip": (gzip.compress(JSONL)[:30], "damaged gzip"),
    "wrong gzip": (b"\x1f\x8b\x08" + b"x" * 40, "damaged gzip"),
    "gzipped Parquet": (gzip.compress(b"PAR1"), "unpack it"),
    "endless": (b'{"a": Infinity}', "line 1: not JSON .Infinity is not a JSON number"),
    "outcomes a list": (b'{"outcomes": [1]}', "line 1: outcomes is .1., expected"),
    "an outcome a number": (b'{"outcomes": {"small": 1}}', "line 1: outcomes is"),
}


@pytest.mark.parametrize("content, said", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_table_is_named(tmp_path, content, said):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        read_table(path)


CSV = {
    "a cell too few": ("a,b\n1\n", "line 2: 1 cells, expected 2"),
    "a cell too many": ('a,b\n"1\n2",3\n1,2,3\n', "line 4: 3 cells, expected 2"),
    "columns alike": ("a,a\n1,2\n", "columns must differ"),
    "a column without name": ("a,\n1,2\n", "columns must differ and not be empty"),
    "a quote that never ends": ('a,b\n1,"2\n', "not CSV"),
    "Latin-1": ("a,b\n1,caf\u00e9\n", "not UTF-8"),
}


@pytest.mark.parametrize("text, said", CSV.values(), ids=CSV.keys())
def test_csv_that_is_none_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("latin-1" if "Latin" in said or "UTF" in said else "utf-8"))
    with pytest.raises(BadInput, match=said):
        list(each_row(path))


def test_numbers_and_empty_cells_of_csv_are_scores(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,score|s,score|l,cost|s,cost|l\na,0.5,1,0.1,0.2\nb,,0,0.1,0.2\n")
    table = read_outcomes(path, {"small": "s", "large": "l"})
    assert table.scores[0].tolist() == [0.5, 1] and table.scores[1, 1] == 0 and table.scores[1, 0] != table.scores[1, 0]


CHATS = {
    "ShareGPT": {"conversations": [{"from": "human", "value": "hello"}]},
    "ShareGPT in messages": {"messages": [{"from": "human", "value": "hello"}]},
    "OpenAI": {"messages": [{"role": "user", "content": "hello"}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
    "prompt": {"prompt": "hello", "messages": None},
    "prompt as messages": {"prompt": [{"role": "user", "content": "hello"}]},
}


@pytest.mark.parametrize("row", CHATS.values(), ids=CHATS.keys())
def test_every_known_shape_gives_its_text(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    assert text_of(read_table(path), path) == ["hello"]


NO_CHATS = {
    "another ShareGPT": ({"conversations": [{"speaker": "human", "text": "hello"}]}, "role None and the fields speaker, text"),
    "a part without text": ({"messages": [{"role": "user", "content": [{"type": "text", "value": "hello"}]}]}, "content is"),
    "a message of texts": ({"messages": ["hello"]}, "expected a text or a list of messages"),
    "Alpaca": ({"instruction": "hello"}, "no column `prompt` or `messages`; found instruction"),
    "none": ({"messages": None, "prompt": None}, "no `messages` or `prompt`"),
}


@pytest.mark.parametrize("row, said", NO_CHATS.values(), ids=NO_CHATS.keys())
def test_an_unknown_shape_is_never_an_empty_text(tmp_path, row, said):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(BadInput, match=said):
        text_of(read_table(path), path)
