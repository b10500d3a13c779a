"""What the flywheel reads of kept requests: whole, in order, a page at a time, and never with an error."""

import json
import logging

import pytest
from kept_table_rows import AT_S, STATISTICS, feedback_row, fill_row, row, store, trace_row
from sqlalchemy import insert

from deployments.learning.kept import served_rows
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.schema import calls, grades, hourly
from router.config import Ledger
from router.flywheel.served import Grade

pytestmark = pytest.mark.slow
TIERS = ("small", "large")


@pytest.fixture
def engine(tmp_path):
    made = connect(Ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}"))
    migrate(made)
    yield made
    made.dispose()


def read(engine, since_s=0.0, until_s=AT_S + 1e6, **how):
    with engine.connect() as connection:
        return served_rows.read(connection, since_s, until_s, **how)


def put(engine, table, *rows):
    with writing(engine) as connection:
        connection.execute(insert(table), list(rows))


def grade(trace, tier, score, source="agreement", at_s=AT_S):
    return {"trace_id": trace, "tier": tier, "score": score, "source": source, "detail": "so", "at_s": at_s}


def test_a_request_comes_with_all_that_is_known_of_it(engine):
    own = row("a", tools=json.dumps([{"type": "function"}]), metadata=json.dumps({"app": "mail"}))
    store(engine, completions=[own, row("a", "audit", "large", "43")], fills=fill_row("a"), traces=trace_row("a"))
    put(engine, grades, grade("a", "large", 1.0, "top"), grade("a", "small", None))
    (found,) = read(engine)
    assert found.answers["small"].text == "42" and found.answers["large"].role == "audit"
    assert found.answers["small"].signals == STATISTICS and found.answers["small"].model == "small#1"
    assert found.grades == {"large": Grade(1.0, "top", "so"), "small": Grade(None, "agreement", "so")}
    assert (found.chance, found.drawn, found.router, found.flow, found.certificate) == (0.5, True, "abc", "cascade", "valid")
    assert found.metadata == {"app": "mail"} and found.answered_by == "small" and not found.degraded
    assert found.body["messages"][0]["content"].startswith("how much") and found.body["max_tokens"] == 9
    with engine.connect() as connection:
        assert served_rows.one(connection, "a") == found and served_rows.one(connection, "b") is None


def test_a_request_whose_trace_is_not_in_the_tables_yet_is_read_all_the_same(engine):
    store(engine, completions=row("a"))
    (found,) = read(engine)
    assert (found.flow, found.router, found.status, found.drawn, found.chance) == ("direct", "", 200, False, 1.0)


def test_of_several_answers_of_one_tier_the_clients_counts(engine):
    store(engine, completions=[row("a", "fill", text="40", at_s=AT_S - 9), row("a", "draft", text="41"), row("a", text="42")])
    assert read(engine)[0].answers["small"].text == "42"


@pytest.mark.parametrize("changed", [{"redaction": "hook:1"}, {"call_id": ""}])
def test_where_the_question_was_changed_or_the_answer_spliced_what_was_asked_afterwards_counts(engine, changed):
    store(engine, completions=[row("a", text="42", **changed), row("a", "fill", text="40", redaction="hook:1")])
    assert read(engine)[0].answers["small"].text == "40"


def test_a_request_for_which_a_tier_failed_is_marked(engine):
    store(engine, completions=[row("a"), row("b")])
    known = {"trace_id": "a", "key_id": "key-1", "tier": "large", "began_s": AT_S, "took_s": 1, "estimated": False, "replica": ""}
    known |= dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens", "cost_usd"), 0)
    put(engine, calls, known | {"id": "a/1", "role": "attempt", "outcome": "tier_unavailable"})
    put(engine, calls, known | {"id": "b/1", "trace_id": "b", "role": "audit", "outcome": "tier_unavailable"})
    assert {one.trace_id: one.degraded for one in read(engine)} == {"a": True, "b": False}


def test_pages_go_on_after_the_last_one(engine):
    names = [f"t{i:03}" for i in range(40)]
    store(engine, completions=[row(name, at_s=AT_S + i // 4) for i, name in enumerate(names)])
    seen, last = [], ""
    while page := read(engine, limit=7, after=last):
        seen += [one.trace_id for one in page]
        last = seen[-1]
    assert seen == names
    with engine.connect() as connection:
        pages = list(served_rows.pages(connection, AT_S + 2, AT_S + 5, limit=5))
    assert [one.trace_id for page in pages for one in page] == names[8:20] and len(pages) == 3
    assert not read(engine, after="nobody")


def test_a_page_of_large_requests_is_shorter(engine, monkeypatch):
    monkeypatch.setattr(served_rows, "PAGE_BYTES", 100)
    monkeypatch.setattr(served_rows, "PART", 2)
    store(engine, completions=[row(f"t{i}") for i in range(5)])
    assert [one.trace_id for one in read(engine)] == ["t0", "t1"]
    assert [one.trace_id for one in read(engine, after="t1")] == ["t2", "t3"]


def test_only_one_keys_or_only_drawn_requests(engine):
    store(engine, completions=[row("a"), row("b", key_id="key-2"), row("c", key_id="key-2")], fills=fill_row("c"))
    assert [one.trace_id for one in read(engine, key="key-2")] == ["b", "c"]
    assert [one.trace_id for one in read(engine, drawn_only=True)] == ["c"]
    assert [one.trace_id for one in read(engine, since_s=AT_S + 1)] == []


BROKEN = [{"messages": "[" * 3}, {"messages": "[]"}, {"messages": "null"}, {"messages": None}, {"messages": '["a"]'}]
BROKEN += [{"sampling": "[1]"}, {"tools": "{}"}, {"metadata": "7"}, {"messages": "[" * 100_000}]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_request_that_cannot_be_read_is_left_out_and_counted(engine, broken, caplog):
    store(engine, completions=[row("a", **broken), row("b")])
    with caplog.at_level(logging.WARNING):
        assert [one.trace_id for one in read(engine, limit=1)] == ["b"]
    assert "1 kept requests cannot be read" in caplog.text
    with engine.connect() as connection:
        assert served_rows.one(connection, "a") is None


@pytest.mark.parametrize("broken", [{"answer": "{"}, {"answer": "[]"}, {"signals": "oh"}])
def test_an_answer_that_cannot_be_read_is_left_out(engine, broken):
    store(engine, completions=[row("a"), row("a", "audit", "large", **broken)])
    assert list(read(engine)[0].answers) == ["small"]


def test_the_counts_say_how_far_it_is_and_what_the_truth_rests_on(engine):
    store(
        engine,
        completions=[row("a"), row("b"), row("c"), row("c", "audit", "large"), row("d", at_s=AT_S - 100)],
        fills=[fill_row("a", "done"), fill_row("b"), fill_row("c", "done"), fill_row("d", at_s=AT_S - 100)],
        feedback=feedback_row("a", 1.0),
    )
    put(engine, grades, grade("a", "small", 1.0, "feedback"), grade("a", "large", 1.0, "top"))
    put(engine, grades, grade("c", "small", None), grade("c", "large", 1.0, "top"))
    figures = {"calls": 1, "input_tokens": 1, "output_tokens": 1, "cached_tokens": 0, "busy_s": 0, "gpu_usd": 0}
    hour = int(AT_S // 3600 * 3600)
    for role, usd in (("fill", 0.5), ("judge", 0.25)):
        put(engine, hourly, {"hour": hour, "key_id": "learning", "tier": "large", "role": role, "cost_usd": usd, **figures})
    with engine.connect() as connection:
        found = served_rows.counts(connection, AT_S, TIERS)
        assert not served_rows.counts(connection, AT_S + 9_999, TIERS)["drawn"]
    assert found == {
        "kept": 3,
        "drawn": 3,
        "waiting": 1,
        "filled": 2,
        "failed": 0,
        "dropped": 0,
        "graded": 2,
        "complete": 1,
        "feedback": 1,
        "by_source": {"feedback": 1, "top": 2, "none": 1},
        "fill_usd": 0.5,
        "judge_usd": 0.25,
    }
