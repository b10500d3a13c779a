"""The flywheel on a real database: a whole life, and the same one where the process dies between any two events."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))
sys.path.insert(0, str(Path(__file__).parent))

from life import Always, Clock, Killed, World, keep, ladder, served

from deployments.learning import runs
from deployments.learning.flywheel import LEASE_S, Flywheel, HeldElsewhere
from deployments.learning.live import bundles
from deployments.learning.live.bundles import Bundle
from deployments.learning.status import status
from deployments.learning.steps import by_hand
from deployments.ledger import certificate_audits
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.schema import fills, model_rows, models, run_events
from router import config
from router.decide.drift import Audited
from router.errors import BadInput, StepdownError
from router.flywheel.pairs import Faulty

pytestmark = pytest.mark.slow
WHOLE = [("training", "began"), ("shadow", "trained"), ("waiting", "passed"), ("waiting", "promotion asked")]
PROMOTED = [*WHOLE, ("canary", "approved"), ("promoted", "promoted")]


@pytest.fixture
def world(engine):
    return World(engine, ladder())


def made(engine, clock=None, parts=None, **other):
    return Flywheel(
        ladder(**other), engine, {}, Path(str(engine.url.database)).parent / "cache", clock or Clock(), parts=parts or Always()
    )


def until(one, stage, world=None):
    """Advance up to a stage. Returns what was found last."""
    for _ in range(60):
        found = one.advance()
        if found.stage == stage:
            return found
        if not found.did and world:
            world.goes_on(world.latest())
    raise AssertionError(f"not {stage}: {found}")


# -- a whole life ----------------------------------------------------------------------------------------------------------


def test_from_an_empty_log_to_a_promoted_router(world, tmp_path):
    run = world.live(tmp_path / "cache")
    assert (run.stage, run.incumbent) == ("done", "")
    assert world.history(run) == [*PROMOTED, ("done", "done")]
    assert world.slots() == {"promoted": (run.candidate, 1.0)}
    assert [row["digest"] for row in world.rows(models)] == [run.candidate]
    assert len(world.rows(model_rows)) == 120  # four rounds of thirty, of which a run needs a hundred


def test_what_turns_out_worse_is_taken_back(engine, tmp_path):
    world = World(engine, ladder(), ends_well=False)
    run = world.live(tmp_path / "cache")
    assert world.history(run) == [*PROMOTED, ("rolled back", "rolled back")]
    assert world.slots()["promoted"][0] == ""  # the largest tier, as before
    with engine.connect() as connection:
        last = runs.events(connection, run.id)[-1]
    assert "worse by more than 0.1" in last.numbers["why"] and last.numbers["tally"]["lost"] > 10


def test_every_request_is_compared_once_and_written_down(world, tmp_path):
    run = world.live(tmp_path / "cache")
    compared = world.compared(run)
    assert len({name for name, _, _ in compared}) == len(compared) >= 60
    with world.engine.connect() as connection:
        events = runs.events(connection, run.id)
    looks = [event for event in events if event.stage == "shadow" and "tally" in event.numbers]
    assert looks[-1].numbers["tally"]["not_worse"]["pairs"] <= 60
    assert [event.number for event in events] == list(range(len(events)))
    assert {event.by for event in events} == {"test", "a person"}


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_process_that_dies_after_any_event_changes_nothing(engine, tmp_path, ends_well):
    """Each life has a database of its own; each dies after another event."""

    def life(n, kill_at):
        own = connect(config.Ledger(url=f"sqlite:///{tmp_path / f'{n}.db'}?synchronous=OFF".replace("OFF", "NORMAL")))
        migrate(own)
        world = World(own, ladder(), kill_at, ends_well)
        run = world.live(tmp_path / f"cache{n}")
        found = (world.history(run), world.compared(run), world.slots(), run.stage, run.candidate)
        own.dispose()
        return found, world.written

    expected, events = life(0, None)
    assert events > 8
    for kill_at in range(1, events):
        found, _ = life(kill_at, kill_at)
        assert found[0] == expected[0] and found[2:] == expected[2:], kill_at
        assert [d for _, _, d in found[1]] == [d for _, _, d in expected[1]], kill_at


def test_a_process_that_dies_while_it_plays_counts_nothing_twice(world, tmp_path):
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())
    one = until_shadow(world, tmp_path)
    keep(world.engine, [f"b{n}" for n in range(40)], world.clock() + 1)
    plain, calls = one.work.parts.compare, []

    def dying(candidate, incumbent, share):
        def compare(row):
            calls.append(row.trace_id)
            if len(calls) == 20:
                raise Killed
            return plain(candidate, incumbent, share)(row)

        return compare

    one.work.parts.compare = dying
    world.clock.now_s += 11
    with pytest.raises(Killed):
        one.advance()
    assert world.compared(world.latest()) == []
    world.clock.now_s += 20
    del one.work.parts.compare
    world.flywheel(tmp_path / "cache").advance()
    assert len(world.compared(world.latest())) == 40


def until_shadow(world, tmp_path):
    one = world.flywheel(tmp_path / "cache")
    until(one, "shadow", world)
    return one


def test_training_that_kills_its_process_is_given_up(world, tmp_path):
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())

    class Deadly(Always):
        def train(self, asked):
            raise Killed

    world.parts = Deadly()
    one = world.flywheel(tmp_path / "cache")
    for _ in range(4):
        try:
            found = one.advance()
        except Killed:
            world.clock.now_s += 20
            one = world.flywheel(tmp_path / "cache")
    assert until(one, "failed").what == "failed" or found.stage == "failed"
    assert "cut short 3 times" in history(world.engine)[-1].numbers["why"]


def history(engine):
    with engine.connect() as connection:
        return runs.events(connection, runs.latest(connection).id)


def test_postgresql_does_the_same(learning_server, tmp_path):
    own = connect(config.Ledger(url=str(learning_server.database())))
    migrate(own)
    world = World(own, ladder(), kill_at=4)
    run = world.live(tmp_path / "cache")
    assert world.history(run) == [*PROMOTED, ("done", "done")] and len(world.compared(run)) >= 60
    found = status(own, ladder(), world.clock())
    assert (found["run"], found["runs"][0]["stage"], found["promotions"][0]["run_id"]) == (None, "done", "run-1")
    own.dispose()


# -- when a run begins -----------------------------------------------------------------------------------------------------


def test_too_few_requests_begin_nothing(engine):
    keep(engine, [f"a{n}" for n in range(99)], Clock()())
    found = made(engine).advance(asked="me")
    assert (found.stage, found.did) == ("collecting", False) and found.why == "99 of 100 graded requests that a run needs"


def test_a_refused_candidate_is_tried_again_with_a_quarter_more(engine):
    clock, parts = Clock(), Always(("saving: too little",))
    keep(engine, [f"a{n}" for n in range(100)], clock())
    one = made(engine, clock, parts)
    assert until(one, "refused").why == "saving: too little"
    clock.now_s += 60
    assert "25 more graded requests" in one.advance().why
    keep(engine, [f"b{n}" for n in range(25)], clock())
    assert one.advance().what == "began" and len(parts.asked) == 1
    one.advance()
    assert len(parts.asked[1].rows) == 125 and parts.asked[1].tried == {"data set of 100": "run-1"}


def test_a_data_set_that_failed_is_not_tried_again_even_if_asked(engine):
    clock = Clock()
    keep(engine, [f"a{n}" for n in range(100)], clock())
    one = made(engine, clock, Always(("saving: too little",)))
    until(one, "refused")
    clock.now_s += 60
    assert one.advance(asked="me").what == "began"
    assert one.advance().why == "run-1 failed with it"


def test_a_router_that_keeps_its_promise_is_left_alone_until_it_is_due(world, tmp_path):
    world.live(tmp_path / "cache")
    one = world.flywheel(tmp_path / "cache")
    world.clock.now_s += 60
    assert one.advance().why == "the router in use keeps its promise"
    assert not one.advance(every_s=86_400).did
    assert one.advance(every_s=1.0).what == "began"  # the requests of the shadow are new


def retire(world, monkeypatch):
    """Audits find that the promise of the router in use is broken, now."""
    monkeypatch.setattr(
        "deployments.learning.steps.in_use.certificate_digests", lambda manifest, target: ("abc",) if manifest else ()
    )
    with writing(world.engine) as connection:
        certificate_audits.add(connection, "abc", "balanced", lambda before: Audited(9, 7, "7 of 9 differed"))
        connection.exec_driver_sql(f"UPDATE certificates SET changed_s = {world.clock()}")


def test_a_retired_certificate_begins_a_run_once_there_are_enough_requests_since(world, tmp_path, monkeypatch):
    run = world.live(tmp_path / "cache")
    retire(world, monkeypatch)
    one = world.flywheel(tmp_path / "cache")
    assert "0 of 100 graded requests since the promise was broken" in one.advance().why
    keep(world.engine, [f"b{n}" for n in range(100)], world.clock() + 1)
    world.clock.now_s += 11
    found = one.advance()
    assert found.what == "began" and "7 of 9 differed" in found.why
    assert world.latest().incumbent == run.candidate
    one.advance()
    assert world.parts.asked[-1].since_certify_s == pytest.approx(world.clock() - 11)


def test_after_a_router_that_was_taken_back_with_its_promise_only_newer_requests_count(world, tmp_path, monkeypatch):
    run = world.live(tmp_path / "cache")
    retire(world, monkeypatch)
    with writing(world.engine) as connection:
        bundles.rollback(connection, "test", world.clock())
        connection.exec_driver_sql(f"UPDATE runs SET stage = 'rolled back' WHERE id = '{run.id}'")
    one = world.flywheel(tmp_path / "cache")
    assert one.advance().numbers["pairs"] == 0
    keep(world.engine, [f"b{n}" for n in range(100)], world.clock() + 1)
    world.clock.now_s += 11
    assert one.advance().what == "began"
    one.advance()
    assert world.parts.asked[-1].since_certify_s == pytest.approx(world.clock() - 11)


# -- one at a time ---------------------------------------------------------------------------------------------------------


def test_two_cannot_run_at_once_and_the_second_says_who_does(engine):
    clock = Clock()
    first, second = made(engine, clock), made(engine, clock)
    first.advance()
    with pytest.raises(HeldElsewhere, match=first.holder):
        second.advance()
    first.close()
    assert second.advance().stage == "collecting"
    clock.now_s += LEASE_S + 1
    assert first.advance().stage == "collecting"


def test_what_another_wrote_meanwhile_is_looked_at_first(world, tmp_path):
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())
    one = until_shadow(world, tmp_path)
    keep(world.engine, ["b1"], world.clock() + 1)
    plain = one.work.parts.compare

    def meanwhile(candidate, incumbent, share):
        def compare(row):
            by_hand.rollback(world.engine, world.config, "a person", world.clock())
            return plain(candidate, incumbent, share)(row)

        return compare

    one.work.parts.compare = meanwhile
    world.clock.now_s += 11
    one.players.clear()
    assert "looked at again" in one.advance().why
    assert world.latest().stage == "refused" and world.compared(world.latest()) == []


# -- people ----------------------------------------------------------------------------------------------------------------


def test_a_person_gives_up_a_run_that_nobody_gets_yet(world, tmp_path):
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())
    until_shadow(world, tmp_path)
    run, decides = by_hand.rollback(world.engine, world.config, "a person", world.clock())
    assert (world.latest().stage, decides) == ("refused", "") and history(world.engine)[-1].by == "a person"
    with pytest.raises(BadInput, match="nothing to take back"):
        by_hand.rollback(world.engine, world.config, "a person", world.clock())


@pytest.mark.parametrize("stage", ["canary", "promoted"])
def test_a_person_takes_back_what_somebody_gets(world, tmp_path, stage):
    until(world.flywheel(tmp_path / "cache"), stage, world)
    by_hand.rollback(world.engine, world.config, "a person", world.clock())
    assert world.latest().stage == "rolled back"
    assert {slot: digest for slot, (digest, _) in world.slots().items()} in ({}, {"promoted": ""})


def test_a_person_takes_back_what_was_promoted_long_ago(world, tmp_path):
    run = world.live(tmp_path / "cache")
    by_hand.rollback(world.engine, world.config, "a person", world.clock())
    assert world.slots() == {} and world.latest().id == run.id and world.latest().stage == "rolled back"


def test_only_a_run_that_waits_can_be_promoted(world, tmp_path):
    with pytest.raises(BadInput, match="no run 'run-1'"):
        by_hand.promote(world.engine, "run-1", "me", 0.0)
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())
    until_shadow(world, tmp_path)
    with pytest.raises(BadInput, match="run-1 is in stage shadow"):
        by_hand.promote(world.engine, "run-1", "me", 0.0)


def test_where_nobody_has_to_be_asked_it_goes_on(engine, tmp_path):
    world = World(engine, ladder(flywheel={"promote": "auto"}))
    run = world.live(tmp_path / "cache")
    assert run.stage == "done" and ("waiting", "passed") not in world.history(run)


# -- what gets in the way --------------------------------------------------------------------------------------------------


def test_a_run_ends_where_its_incumbent_is_replaced(world, tmp_path):
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())
    one = until_shadow(world, tmp_path)
    candidate = world.latest().candidate
    with writing(world.engine) as connection:
        bundles.put(connection, Bundle("promoted", candidate, by="somebody"))
    assert "no longer the one in use" in one.advance().why and world.latest().stage == "failed"


def test_a_canary_whose_requests_fail_is_taken_back(world, tmp_path):
    one = world.flywheel(tmp_path / "cache")
    until(one, "canary", world)
    candidate = world.latest().candidate
    served(world.engine, [f"x{n}" for n in range(40)], world.clock(), candidate, status=502)
    served(world.engine, [f"y{n}" for n in range(40)], world.clock(), "")
    world.clock.now_s += 11
    found = one.advance()
    assert found.stage == "rolled back" and "more errors: 40 of 40 requests" in found.why
    assert world.slots() == {}


def test_a_candidate_that_fails_on_requests_is_refused(world, tmp_path):
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())
    one = until_shadow(world, tmp_path)

    def failing(row):
        raise Faulty("the candidate fails (KeyError)")

    one.work.parts.compare = lambda *given: failing
    keep(world.engine, [f"b{n}" for n in range(10)], world.clock() + 1)
    world.clock.now_s += 11
    found = one.advance()
    assert found.stage == "refused" and "it failed on 3 of 3 requests" in found.why


def test_one_request_of_a_conversation_counts(world, tmp_path):
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())
    one = until_shadow(world, tmp_path)
    keep(world.engine, [f"b{n}" for n in range(10)], world.clock() + 1, conversation="c")
    world.clock.now_s += 11
    one.advance()
    keep(world.engine, ["b-late"], world.clock(), conversation="c")
    world.clock.now_s += 11
    one.advance()
    assert [d for _, _, d in world.compared(world.latest())] == [0.0] + 10 * [None]


def test_a_request_that_became_complete_late_is_counted_too(world, tmp_path):
    keep(world.engine, [f"a{n}" for n in range(100)], world.clock())
    one = until_shadow(world, tmp_path)
    keep(world.engine, ["late", "early"], world.clock() + 1)
    with writing(world.engine) as connection:
        connection.execute(fills.update().where(fills.c.trace_id == "late").values(state="waiting"))
    for state in ("waiting", "done"):
        with writing(world.engine) as connection:
            connection.execute(fills.update().where(fills.c.trace_id == "late").values(state=state, changed_s=world.clock() + 1))
        world.clock.now_s += 11
        one.advance()
    assert [name for name, _, _ in world.compared(world.latest())] == ["early", "late"]


def test_training_that_raises_closes_the_run_with_the_reason(engine):
    class Broken(Always):
        def train(self, asked):
            raise StepdownError("no row has two tiers")

    keep(engine, [f"a{n}" for n in range(100)], Clock()())
    assert until(made(engine, parts=Broken()), "refused").why == "no row has two tiers"
    assert len(World(engine, ladder()).rows(run_events)) == 3
