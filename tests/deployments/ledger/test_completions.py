"""What is kept of requests, on both databases: written once, and gone with all that belongs to it."""

import json

import pytest
from made import count, rows_of
from sqlalchemy import insert

from deployments.learning.kept import completion_store
from deployments.learning.kept.collected import Collecting, Item, Kept, Made, Said, asked_of, fill_row, metadata_rows, row_of
from deployments.learning.kept.completion_store import Batch
from deployments.ledger import schema
from deployments.ledger.database import connect, migrate, writing
from router.config import EchoTier, Ledger
from router.request.wire import parse
from router.types import Usage

TIER = EchoTier(name="small", engine="echo", context=100, price={"usd_per_1m_input": 1, "usd_per_1m_output": 1})
BODY = {"model": "auto", "messages": [{"role": "user", "content": "\0 a € \U0001f600"}], "metadata": {"a": "b"}}


@pytest.fixture
def engine(url):
    made = connect(Ledger(url=url))
    migrate(made)
    yield made
    made.dispose()


def batch(trace="t", at_s=1.0, role="answer", expires_s=None, text="x\0 \ud800"):
    asked = parse("chat/completions", json.dumps(BODY).encode())
    answer = Kept(role, "final", "small", Said(), Usage(1, 2), 0.5)
    item = Item(Collecting(trace, "key", asked, "all", ""), (answer,), at_s, chance=0.5)
    row = row_of(item, answer, Made({"role": "assistant", "content": text}, "stop", {}), TIER, "m" * 100, expires_s)
    if role != "answer":
        return Batch([row])
    row |= asked_of(asked, asked.body["messages"], redacted=False)
    return Batch([row], metadata_rows(row, asked.metadata), [fill_row(item)])


def write(engine, *batches):
    for one in batches:
        with writing(engine) as connection:
            completion_store.write(connection, one)


def test_a_row_is_written_once_as_both_databases_take_it(engine):
    write(engine, batch(), batch(), batch(role="audit"))
    answer, audit = sorted(rows_of(engine, schema.completions), key=lambda row: row["role"])
    assert json.loads(answer["messages"]) == BODY["messages"] and len(answer["model"]) == 64
    assert json.loads(answer["answer"])["content"].startswith("x\0 ") and audit["messages"] is None
    assert [(row["name"], row["value"]) for row in rows_of(engine, schema.completion_metadata)] == [("a", "b")]
    assert [row["chance"] for row in rows_of(engine, schema.fills)] == [0.5]


def test_what_is_forgotten_is_gone_with_all_that_belongs_to_it(engine):
    write(engine, batch("a"), batch("a", role="audit"), batch("b"))
    with writing(engine) as connection:
        connection.execute(insert(schema.grades).values(trace_id="a", tier="small", score=1.0, source="top", detail="", at_s=1.0))
        connection.execute(insert(schema.feedback).values(id="f", trace_id="a", key_id="key", at_s=1.0))
        assert completion_store.forget(connection, ["a"]) == 2 and completion_store.forget(connection, []) == 0
    write(engine, batch("a", role="audit"))
    tables = (schema.completions, schema.completion_metadata, schema.fills, schema.grades, schema.feedback)
    assert [count(engine, table) for table in tables] == [1, 1, 1, 0, 0]


def test_what_is_over_is_found_oldest_first(engine):
    write(engine, batch("a", 1.0, expires_s=10.0), batch("b", 2.0), batch("c", 30.0, expires_s=5.0))
    with engine.connect() as connection:
        assert completion_store.expired(connection, 20.0, None) == ["c", "a"]
        assert completion_store.expired(connection, 1.0, 2.5) == ["a", "b"]
        assert completion_store.oldest(connection, 2.0) == ["a", "b"]


def test_too_much_is_estimated_by_the_texts(engine):
    write(engine, *(batch(str(n), float(n), text="x" * 1_000) for n in range(20)))
    with engine.connect() as connection:
        each = completion_store.mean_bytes(connection)
        assert 1_400 < each < 1_800
        assert completion_store.too_many(connection, 100_000) is None
        assert completion_store.too_many(connection, int(each * 10)) == pytest.approx(10, abs=1)
