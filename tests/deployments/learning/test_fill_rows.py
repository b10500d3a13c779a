"""The filler's queries, on SQLite and on PostgreSQL."""

import pytest
from kept_table_rows import AT_S, feedback_row, fill_row, row, store
from sqlalchemy import insert, select

from deployments.learning.filling import fill_rows
from deployments.learning.kept import served_rows
from deployments.ledger import schema
from deployments.ledger.database import writing
from router.flywheel.grading.agreement import Told
from router.flywheel.served import Answer, Grade

pytestmark = pytest.mark.slow
TIERS = ("small", "large")


@pytest.fixture
def engine(either):
    return either


def test_everything_that_is_asked_of_the_database(engine):
    store(
        engine,
        completions=[row("a"), row("b", at_s=AT_S + 1), row("b", "audit", "large", at_s=AT_S + 1), row("c", at_s=AT_S + 2)],
        fills=[fill_row("a"), fill_row("c", at_s=AT_S + 2, why="large: tier_busy")],
        feedback=[feedback_row("b", 0.5), feedback_row("b", None, "43", AT_S + 1), feedback_row("a", 1.0)],
    )
    with engine.connect() as connection:
        assert fill_rows.waiting(connection, AT_S + 9, 9) == ["a", "c"] and fill_rows.waiting(connection, AT_S, 9) == ["a"]
        assert fill_rows.told_after(connection, 0.0, 9) == [(AT_S, "b"), (AT_S + 1, "b")]
        assert fill_rows.answered_by_all(connection, (0.0, ""), AT_S + 9, TIERS, 9) == (["b"], (AT_S + 9, ""))
        assert fill_rows.answered_by_all(connection, (0.0, ""), AT_S + 9, TIERS, 1) == (["b"], (AT_S + 1, "b/audit-large"))
        assert fill_rows.states(connection) == {"waiting": 2} and fill_rows.means(connection, "large", 9) == [-0.01]
        assert fill_rows.spent_since(connection, 0.0) == 0.0 and fill_rows.failures(connection, "a", ["tier_busy"]) == 0
        assert fill_rows.told(connection, "b") == Told(0.5, "43") and fill_rows.material(connection, "d") is None
        found = fill_rows.material(connection, "a")
    assert found and found.as_sent and found.tiers is None
    answer = Answer("large", "fill", {"role": "assistant", "content": "4\0\ud8002"}, signals={"mean_logprob": -1.0})
    with writing(engine) as connection:
        for _ in range(2):
            fill_rows.keep_answer(connection, found.asked, answer, "a/fill-large-1", "mit")
            fill_rows.done(connection, "a", {"small": Grade(1.0, "agreement", "so"), "large": Grade(1.0, "top")}, "", AT_S + 5)
        fill_rows.done(connection, "gone", {"small": Grade(1.0, "agreement", "so")}, "", AT_S)
    with engine.connect() as connection:
        (served,) = served_rows.read(connection, 0.0, AT_S + 9, limit=1)
        assert served.complete(TIERS) and served.answers["large"].text == "4\0\ufffd2"
        assert [one.trace_id for one in served_rows.read(connection, 0.0, AT_S + 9, after="a", key="key-1")] == ["b", "c"]
        assert served_rows.counts(connection, 0.0, TIERS)["complete"] == 1
        assert fill_rows.told_after(connection, 0.0, 9) == [(AT_S, "b"), (AT_S + 1, "b")]  # the grades of a know of its own


def test_failed_calls_of_a_request_are_counted_by_tier(engine):
    common = {
        "trace_id": "a",
        "key_id": "learning",
        "role": "fill",
        "began_s": AT_S,
        "took_s": 1,
        "estimated": False,
        "replica": "",
    }
    common |= {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "cost_usd": 0.25}
    failed = [("1", "large", "tier_busy"), ("2", "large", "tier_busy"), ("3", "small", "tier_busy"), ("4", "large", "answered")]
    with writing(engine) as connection:
        rows = [common | {"id": name, "tier": tier, "outcome": outcome} for name, tier, outcome in failed]
        connection.execute(insert(schema.calls), rows)
        assert fill_rows.failures(connection, "a", ["tier_busy"]) == 2
        assert fill_rows.spent_since(connection, AT_S) == 1.0 and fill_rows.spent_since(connection, AT_S + 1) == 0.0


def test_what_was_forgotten_meanwhile_is_not_kept_again(engine):
    store(engine, completions=row("a"))
    with engine.connect() as connection:
        found = fill_rows.material(connection, "a")
    with writing(engine) as connection:
        connection.execute(schema.completions.delete())
        fill_rows.keep_answer(connection, found.asked, Answer("large", "fill", {}), "a/1", "mit")
        fill_rows.grade(connection, "a", {"small": Grade(1.0, "top")}, AT_S)
    with engine.connect() as connection:
        assert not connection.scalars(select(schema.completions.c.id)).all()
        assert not connection.scalars(select(schema.grades.c.tier)).all()


@pytest.mark.parametrize("limits, tiers", [(None, None), ('["small"]', frozenset({"small"}))])
def test_the_keys_tiers_are_known(engine, limits, tiers):
    store(engine, completions=row("a"))
    key = {"id": "key-1", "name": "k", "hash": "h", "created_s": 0.0, "tiers": limits, "rights": "[]", "learning": "all"}
    with writing(engine) as connection:
        connection.execute(insert(schema.keys), key)
        assert fill_rows.material(connection, "a").tiers == tiers


def test_calls_to_learn_from_are_found_by_their_index(engine):
    query = str(select(schema.calls.c.cost_usd).where(schema.LEARNED, schema.calls.c.began_s >= 1.0).compile(engine))
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", (1.0,)).all())
        assert "calls_learned" in plan
