"""Runs and their events: numbered without a gap, only added, and closed to whoever did not see the last one."""

import pytest

from deployments.learning import runs
from deployments.learning.runs import WrittenMeanwhile
from deployments.learning.steps import pairs
from deployments.learning.steps.pairs import Compared
from deployments.ledger.database import writing
from deployments.ledger.schema import fills

pytestmark = pytest.mark.slow


def begun(connection, now_s=100.0):
    return runs.begin(
        connection,
        kind="router",
        incumbent="",
        by="me",
        settings={"seed": 1},
        now_s=now_s,
        stage="training",
        numbers={"pairs": 400},
    )


def added(connection, run, number, stage="shadow", what="looked", **other):
    return runs.event(connection, run, number, stage=stage, what=what, by="me", now_s=101.0, **other)


def test_a_run_begins_with_event_0_and_is_found_again(engine):
    with writing(engine) as connection:
        run = begun(connection)
    with engine.connect() as connection:
        assert runs.latest(connection) == run == runs.one(connection, "run-1")
        (first,) = runs.events(connection, run.id)
    assert (first.number, first.what, first.stage, first.numbers, first.by) == (0, "began", "training", {"pairs": 400}, "me")
    assert not run.closed and run.settings == {"seed": 1}


def test_an_event_moves_its_run(engine):
    with writing(engine) as connection:
        run = begun(connection)
        added(connection, run, 1, what="trained", candidate="abc")
        added(connection, run, 2, stage="refused", what="refused")
    with engine.connect() as connection:
        found = runs.latest(connection)
        assert [event.number for event in runs.events(connection, run.id)] == [0, 1, 2]
    assert (found.stage, found.candidate, found.ended_s, found.closed) == ("refused", "abc", 101.0, True)


def test_who_did_not_see_the_last_event_writes_nothing(engine):
    with writing(engine) as connection:
        run = begun(connection)
        added(connection, run, 1)
    for number in (1, 3):  # another has written it; one is missing
        with pytest.raises(WrittenMeanwhile), writing(engine) as connection:
            added(connection, run, number, stage="done", what="lost")
    with engine.connect() as connection:
        assert runs.latest(connection).stage == "shadow" and len(runs.events(connection, run.id)) == 2


def test_a_second_run_waits_for_the_first_one_s_end(engine):
    with writing(engine) as connection:
        run = begun(connection)
    with pytest.raises(WrittenMeanwhile, match="run-1 is under way"), writing(engine) as connection:
        begun(connection, 200.0)
    with writing(engine) as connection:
        added(connection, run, 1, stage="undecided", what="undecided")
    with writing(engine) as connection:
        begun(connection, 200.0)
    with engine.connect() as connection:
        assert [run.id for run in runs.listed(connection)] == ["run-2", "run-1"]


# -- pairs -----------------------------------------------------------------------------------------------------------------


def drawn(connection, trace_id, at_s, done_s=None):
    state = "waiting" if done_s is None else "done"
    row = {"trace_id": trace_id, "drawn_s": at_s, "chance": 0.1, "state": state, "why": "", "changed_s": done_s or at_s}
    connection.execute(fills.insert().values(row))


def test_what_was_graded_since_is_looked_at_once_in_the_order_of_grading(engine):
    with writing(engine) as connection:
        drawn(connection, "before", 10, done_s=90)
        drawn(connection, "late", 95, done_s=130)
        drawn(connection, "early", 110, done_s=120)
        drawn(connection, "open", 115)
        assert pairs.waiting(connection, "run-1", 100.0, 10) == ["early", "late"]
        pairs.add(connection, "run-1", [Compared("early", "shadow", "c", -1.0, chance=0.1)], 121.0)
        pairs.add(connection, "run-1", [Compared("late", "shadow", "d", None, why="not graded")], 131.0)
        assert pairs.waiting(connection, "run-1", 100.0, 10) == []
        assert pairs.waiting(connection, "run-2", 100.0, 1) == ["early"]
        assert [(pair.trace_id, pair.d) for pair in pairs.listed(connection, "run-1")] == [("early", -1.0), ("late", None)]


def test_a_conversation_is_known_when_one_of_its_requests_counted(engine):
    with writing(engine) as connection:
        pairs.add(connection, "run-1", [Compared("a", "shadow", "c", 0.0), Compared("b", "shadow", "d", None)], 1.0)
        assert pairs.known(connection, "run-1", ["c", "d", "e"]) == {"c"}
