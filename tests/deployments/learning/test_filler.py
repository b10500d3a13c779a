"""Filling in, on a real database with scripted tiers: who is asked, when, for how much, and what is kept of it."""

import asyncio
import json
import random
import time

import pytest
import waiting
from kept_table_rows import AT_S, feedback_row, fill_row, row, store
from live import OneFlow, ladder
from scripted_tier import Said, ScriptedTier
from sqlalchemy import insert, select
from starlette.testclient import TestClient

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.learning.filling import filler as module
from deployments.learning.filling import idleness
from deployments.learning.filling.filler import Filler
from deployments.learning.kept import served_rows
from deployments.ledger import schema
from deployments.ledger.database import writing
from deployments.ledger.ledger import Ledger
from deployments.traffic.watched_tier import Watched
from router.config import Ledger as Settings
from router.config import VllmTier
from router.decide.abilities import Abilities
from router.errors import NoReplica, TierFailed
from router.traffic.breaker import Breaker

pytestmark = pytest.mark.slow
CHAT = {"messages": [{"role": "user", "content": "how much is six times seven"}], "max_tokens": 9}
PROSE = "Six times seven.\nThat is forty-two."
OTHER = "It is a number between forty and fifty.\nI think."


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for name, value in (
        ("LOOK_EVERY_S", 0.01),
        ("READY_S", 0.01),
        ("EMPTY_S", 0.02),
        ("COUNT_EVERY_S", 0.0),
        ("SETTLED_S", 0.0),
        ("RETRY_S", 0.0),
    ):
        monkeypatch.setattr(module, name, value)


class Place:
    """A filler over two scripted tiers, which say a text or what a function of the body says."""

    def __init__(self, folder, small="42", large="42", check=None, config=None, **learning):
        names = ("small", "large")
        self.config = config or ladder(names, learning={"collect": "consented", **learning})
        self.settings = Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}")
        said = {"small": small, "large": large}
        self.tiers = {n: ScriptedTier(n, s if callable(s) else lambda body, s=s: Said(s)) for n, s in said.items()}
        breaker = Breaker(time.monotonic, random.random)
        self.watched = {name: Watched(tier, breaker) for name, tier in self.tiers.items()}
        self.small, self.large, self.check, self.called = *self.tiers.values(), check, []
        self.now_s = AT_S + 100
        self.ledgers = []

    async def filler(self, **more):
        ledger = Ledger(self.settings)
        await ledger.open()
        self.ledgers.append(ledger)
        prices = {name: (1e-6 * usd, 1e-6 * usd, 1e-6 * usd) for name, usd in (("small", 1.0), ("large", 20.0))}
        prints = {"models": {"small": "small#2", "large": "large#2"}}
        counts = dict.fromkeys(self.tiers, lambda text: len(text.split()))
        how = {"called": self.called.append, "clock": lambda: self.now_s, **more}
        return Filler(ledger, self.watched, self.config, Abilities(self.config.tiers), prices, prints, self.check, counts, **how)

    @property
    def engine(self):
        return self.ledgers[0].engine

    def rows(self, table, *where):
        with self.engine.connect() as connection:
            return [dict(found) for found in connection.execute(select(table).where(*where)).mappings()]

    def served(self, trace="a"):
        with self.engine.connect() as connection:
            return served_rows.one(connection, trace)

    def grades(self, trace="a"):
        return {tier: (grade.score, grade.source) for tier, grade in self.served(trace).grades.items()}

    def fills(self):
        return {found["trace_id"]: (found["state"], found["why"]) for found in self.rows(schema.fills)}

    def calls(self):
        return self.rows(schema.calls)

    def run(self, rows, *then, **more):
        """Start a filler on these rows, wait for each condition, and close it."""

        async def scenario():
            filler = await self.filler(**more)
            store(self.engine, **rows)
            filler.start()
            try:
                for step in then or (self.over,):
                    await until(lambda step=step: step(filler))
            finally:
                await filler.close()
                self.state = filler.state()
                for ledger in self.ledgers:
                    await ledger.close()

        asyncio.run(scenario())

    def over(self, filler):
        return all(state not in ("waiting",) for state, _ in self.fills().values()) and not unfinished(filler)


def unfinished(filler):
    return [task for task in filler.tasks if not task.done()]


async def until(true, patience_s=20.0):
    async with asyncio.timeout(patience_s):
        while not true():
            await asyncio.sleep(0.01)


def drawn(*names, **other):
    """Requests that were drawn and are answered by `small`."""
    return {
        "completions": [row(name, **other) for name in names],
        "fills": [fill_row(name, at_s=AT_S + i) for i, name in enumerate(names)],
    }


def test_the_tier_that_was_not_asked_is_asked_as_the_client_asked_and_all_are_graded(tmp_path):
    place = Place(tmp_path)
    sampling = json.dumps({"max_tokens": 9, "temperature": 0.5, "stream": True})
    place.run(drawn("a", sampling=sampling))
    asked = {**CHAT, "temperature": 0.5, "model": "large", "stream": False, "logprobs": True, "top_logprobs": 2}
    assert place.large.bodies[0] == asked and not place.small.bodies
    served = place.served()
    assert served.answers["large"].role == "fill" and served.answers["large"].model == "large#2"
    assert served.answers["large"].signals["mean_logprob"] == pytest.approx(-0.01)
    assert place.grades() == {"small": (1.0, "agreement"), "large": (1.0, "top")} and served.complete(("small", "large"))
    (kept,) = place.rows(schema.completions, schema.completions.c.role == "fill")
    assert kept["key_id"] == "key-1" and kept["consent"] == "all" and kept["messages"] is None and kept["licence"] == "unknown"


def test_each_call_is_in_the_ledger_with_its_cost_and_belongs_to_no_key(tmp_path):
    place = Place(tmp_path)
    place.run(drawn("a"))
    calls = place.calls()
    assert [(c["role"], c["key_id"], c["tier"], c["model"], c["outcome"]) for c in calls] == [
        ("fill", "learning", "large", "large#2", "answered")
    ] * 2  # the second sample, since nothing is known yet of how sure it usually is
    assert all(c["cost_usd"] == pytest.approx(20e-6 * (c["input_tokens"] + c["output_tokens"])) for c in calls)
    assert place.state["spent_usd"] == pytest.approx(sum(c["cost_usd"] for c in calls)) and len(place.called) == 2
    assert kept_call(place) == next(c for c in calls if c["id"] == kept_call(place)["id"])


def kept_call(place):
    (kept,) = place.rows(schema.completions, schema.completions.c.role == "fill")
    (call,) = place.rows(schema.calls, schema.calls.c.id == kept["call_id"])
    return call


def test_a_top_tier_that_is_sure_is_not_asked_again(tmp_path):
    place = Place(tmp_path)
    known = [row(f"k{i}", tier="large") for i in range(30)]
    place.run({"completions": [*known, row("a", text="41")], "fills": fill_row("a")})
    assert len(place.large.bodies) == 1 and place.grades()["small"] == (0.0, "agreement")


def test_a_second_sample_that_differs_leaves_the_request_without_a_grade(tmp_path):
    said = iter([Said("42"), Said("43")])
    place = Place(tmp_path, large=lambda body: next(said))
    place.run(drawn("a", text="41"))
    assert place.grades() == {"small": (None, "agreement"), "large": (1.0, "top")}
    assert place.large.bodies[1]["temperature"] == 0.7
    assert place.fills()["a"] == ("done", "small: the top tier's two samples differ")


def test_free_text_is_judged_by_the_top_tier_in_both_orders(tmp_path):
    verdicts = iter(["Yes", "no"])
    place = Place(tmp_path, large=lambda body: Said(next(verdicts) if "judged" in str(body["messages"][0]) else OTHER))
    place.run(drawn("a", text=PROSE))
    assert place.grades() == {"small": (0.5, "judge"), "large": (1.0, "top")}
    assert sorted(c["role"] for c in place.calls()) == ["fill", "judge", "judge"]
    assert all("logprobs" not in body for body in place.large.bodies[1:])


@pytest.mark.parametrize("judge, verdict", [("none", "yes"), ("top", "well")])
def test_without_a_clear_judge_free_text_stays_without_a_grade(tmp_path, judge, verdict):
    place = Place(tmp_path, large=lambda body: Said(verdict if "judged" in str(body["messages"][0]) else OTHER), judge=judge)
    place.run(drawn("a", text=PROSE))
    assert place.grades()["small"] == (None, "judge") and len(place.large.bodies) == (3 if judge == "top" else 1)


def test_what_the_client_said_goes_first(tmp_path):
    place = Place(tmp_path)
    place.run({**drawn("a", text="41"), "feedback": [feedback_row("a", 0.0), feedback_row("a", None, "41", AT_S + 1)]})
    assert place.grades() == {"small": (0.0, "feedback"), "large": (0.0, "feedback")}
    assert len(place.large.bodies) == 1


def test_tests_that_came_with_the_request_are_run(tmp_path):
    place = Place(tmp_path, check=lambda text, tests: text == tests)
    place.run(drawn("a", text="41", sampling=json.dumps({"stepdown": {"tests": "41"}})))
    assert place.grades() == {"small": (1.0, "tests"), "large": (0.0, "tests")}
    assert "stepdown" not in place.large.bodies[0]


def test_where_the_conversation_was_redacted_all_tiers_are_asked_again(tmp_path):
    place = Place(tmp_path, small="redacted", large="redacted")
    place.run(drawn("a", redaction="hook:1"))
    assert len(place.small.bodies) == 1 and place.served().answers["small"].text == "redacted"
    assert place.grades() == {"small": (1.0, "agreement"), "large": (1.0, "top")}
    assert {c["redaction"] for c in place.rows(schema.completions)} == {"hook:1"}


def test_a_tier_that_the_key_may_not_use_is_not_asked(tmp_path):
    place = Place(tmp_path)

    async def scenario():
        filler = await place.filler()
        key = {"id": "key-1", "name": "k", "hash": "h", "created_s": 0, "tiers": '["small"]', "rights": "[]", "learning": "all"}
        with writing(place.engine) as connection:
            connection.execute(insert(schema.keys), key)
        store(place.engine, **drawn("a"))
        filler.start()
        await until(lambda: place.over(filler))
        await filler.close()
        await place.ledgers[0].close()

    asyncio.run(scenario())
    assert not place.large.bodies and place.grades() == {"small": (None, "agreement"), "large": (None, "top")}
    assert "not allowed for this key" in place.fills()["a"][1]


def test_a_tier_whose_window_is_too_small_is_not_asked(tmp_path):
    place = Place(tmp_path)
    long = json.dumps([{"role": "user", "content": "word " * 200_000}])
    place.run(drawn("a", "b", tier="large", messages=long))
    assert not place.small.bodies and place.fills()["a"][0] == "done"
    assert place.grades() == {"small": (None, "agreement"), "large": (1.0, "top")}


def test_a_limit_is_cut_to_the_room_that_the_window_has(tmp_path):
    place = Place(tmp_path)
    place.run(drawn("a", sampling=json.dumps({"max_tokens": 900_000})))
    assert place.large.bodies[0]["max_tokens"] < 200_000


def test_a_tier_that_refuses_the_request_has_no_answer(tmp_path):
    place = Place(tmp_path, small=lambda body: Said(error=TierFailed("small", "no", 400)))
    place.run(drawn("a", tier="large"))
    assert place.fills()["a"] == ("done", "small: it refused the request: request_refused")
    assert [c["outcome"] for c in place.calls() if c["tier"] == "small"] == ["request_refused"]


def test_a_tier_that_does_not_answer_is_asked_three_times_and_then_given_up(tmp_path):
    place = Place(tmp_path, small=lambda body: Said(error=NoReplica("small", "it is down")))
    place.watched["small"].breaker = Breaker(lambda: 1e4 * time.monotonic(), random.random)  # it rests for a moment only
    place.run(drawn("a", tier="large"))
    assert place.fills()["a"] == ("failed", "small: tier_unavailable")
    assert [c["outcome"] for c in place.calls()] == ["tier_unavailable"] * 3


def test_it_waits_before_it_asks_a_failed_tier_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 600.0)
    answers = iter([Said(error=NoReplica("small", "it is down")), Said("42")])
    place = Place(tmp_path, small=lambda body: next(answers))
    noted = lambda filler: place.fills()["a"] == ("waiting", "small: tier_unavailable") and not unfinished(filler)  # noqa: E731

    def later(filler):
        place.now_s += 601
        return True

    place.run(drawn("a", tier="large"), noted, later, place.over)
    assert place.grades()["small"] == (1.0, "agreement") and len(place.small.bodies) == 2


def test_it_asks_nobody_while_a_client_is_served(tmp_path):
    place = Place(tmp_path)

    def busy(filler):
        place.watched["large"].running += 1
        return True

    def rested(filler):
        return filler.rests == "large is not idle"

    def idle(filler):
        assert not place.large.bodies
        place.watched["large"].running -= 1
        return True

    async def scenario():
        filler = await place.filler()
        store(place.engine, **drawn("a", "b"))
        busy(filler)
        filler.start()
        await until(lambda: rested(filler) and len(filler.tasks) == 2)
        await asyncio.sleep(0.1)
        idle(filler)
        await until(lambda: place.over(filler))
        await filler.close()
        await place.ledgers[0].close()

    asyncio.run(scenario())
    assert len(place.large.bodies) == 4


def test_audits_go_first(tmp_path):
    place, waiting = Place(tmp_path), [True]

    def begins(filler):
        assert not place.large.bodies
        waiting.clear()
        return True

    place.run(drawn("a"), lambda filler: filler.rests == "audits go first", begins, place.over, first=lambda: bool(waiting))
    assert place.large.bodies


def test_a_few_requests_are_worked_on_side_by_side(tmp_path):
    place = Place(tmp_path, large=lambda body: Said("42", wait_s=0.05))
    place.run(drawn(*"abcdefgh"))
    assert 2 <= place.large.most_running <= module.AT_ONCE
    assert set(place.fills().values()) == {("done", "")}


def test_it_stops_at_the_days_budget_and_goes_on_the_next_day(tmp_path):
    place = Place(tmp_path, fill_usd_day=7 * 20e-6 * 2.5)  # of calls with six words and an answer of one
    stopped = lambda filler: filler.rests == "the day's budget is spent" and not unfinished(filler)  # noqa: E731
    seen = []

    def tomorrow(filler):
        seen.append((len(place.large.bodies), filler.state()["spent_usd"]))
        place.now_s += 86_400
        return True

    place.run(drawn("a", "b", "c"), stopped, tomorrow, lambda filler: len(place.large.bodies) > 2)
    assert seen == [(2, pytest.approx(2 * 7 * 20e-6))]


def test_while_the_budget_is_spent_what_costs_nothing_is_still_graded(tmp_path):
    place = Place(tmp_path, fill_usd_day=7 * 20e-6 * 1.5)

    def told(filler):
        store(place.engine, completions=row("b"), feedback=feedback_row("b", 1.0))
        return filler.rests == "the day's budget is spent"

    place.run(
        drawn("a"), lambda filler: filler.rests == "the day's budget is spent", told, lambda filler: bool(place.grades("b"))
    )
    assert place.grades("b") == {"small": (1.0, "feedback")} and len(place.large.bodies) == 1


def test_what_calls_under_way_may_cost_is_set_aside(tmp_path):
    place = Place(tmp_path, large=lambda body: Said("42", wait_s=0.03), fill_usd_day=7 * 20e-6 * 8.5)
    place.run(drawn("a", "b", "c", "d"))
    assert set(place.fills().values()) == {("done", "")} and place.state["spent_usd"] == pytest.approx(8 * 7 * 20e-6)


def test_what_was_spent_before_a_restart_counts(tmp_path):
    place = Place(tmp_path, fill_usd_day=7 * 20e-6 * 2.5)

    async def scenario():
        for _ in range(2):
            filler = await place.filler()
            if len(place.ledgers) == 1:
                store(place.engine, **drawn("a", "b"))
            filler.start()
            await until(lambda filler=filler: filler.rests == "the day's budget is spent" and not unfinished(filler))
            await filler.close()
        for ledger in place.ledgers:
            await ledger.close()

    asyncio.run(scenario())
    assert len(place.large.bodies) == 2


def test_a_request_that_costs_more_than_a_day_may_is_dropped(tmp_path):
    place = Place(tmp_path, fill_usd_day=1e-6)
    place.run(drawn("a"))
    state, why = place.fills()["a"]
    assert state == "dropped" and "learning.fill_usd_day allows 1e-06 a day" in why and not place.large.bodies


def test_one_of_two_ingresses_fills_in_and_the_other_takes_over(tmp_path):
    place = Place(tmp_path)

    async def scenario():
        one, other = await place.filler(), await place.filler()
        store(place.engine, **drawn("a"))
        one.start()
        await until(lambda: place.over(one))
        other.start()
        await until(lambda: other.rests == "another ingress fills in")
        store(place.engine, **drawn("b"))
        await until(lambda: place.over(one))
        assert not other.tasks and other.rests == "another ingress fills in"
        await one.close()
        store(place.engine, **drawn("c"))
        await until(lambda: place.over(other))
        await other.close()
        for ledger in place.ledgers:
            await ledger.close()

    asyncio.run(scenario())
    assert {state for state, _ in place.fills().values()} == {"done"}


def test_a_restart_asks_only_what_was_not_answered(tmp_path):
    def large(body):
        return Said("42", wait_s=30.0 if len(place.large.bodies) == 2 else 0.0)

    place = Place(tmp_path, large=large)

    async def scenario():
        filler = await place.filler()
        store(place.engine, **drawn("a", redaction="hook:1"))
        filler.start()
        await until(lambda: len(place.large.bodies) == 2)  # the second sample is under way
        await filler.close()
        assert place.fills()["a"] == ("waiting", "") and len(place.small.bodies) == 1
        again = await place.filler()
        again.start()
        await until(lambda: place.over(again))
        await again.close()
        for ledger in place.ledgers:
            await ledger.close()

    asyncio.run(scenario())
    assert len(place.small.bodies) == 1 and len(place.large.bodies) == 3
    assert sorted(c["outcome"] for c in place.calls()) == ["answered", "answered", "answered", "cancelled"]
    assert place.fills()["a"] == ("done", "")


def test_a_forgotten_request_is_dropped_and_what_was_asked_for_it_is_not_kept(tmp_path):
    place = Place(tmp_path)
    place.run({"completions": row("b"), "fills": fill_row("a")})
    assert place.fills()["a"] == ("dropped", "it is not kept any more")


@pytest.mark.parametrize(
    "broken", [{"messages": "["}, {"messages": '[{"role": 7, "content": 8}]'}, {"sampling": '{"response_format": 3}'}]
)
def test_a_row_that_cannot_be_read_stops_nothing(tmp_path, broken):
    place = Place(tmp_path)
    place.run({"completions": [row("a", **broken), row("b")], "fills": [fill_row("a"), fill_row("b", at_s=AT_S + 1)]})
    assert place.fills()["b"] == ("done", "") and place.fills()["a"][0] in ("failed", "done")


def test_an_answer_that_was_not_drawn_is_graded_where_all_tiers_have_answered_and_nobody_is_asked(tmp_path):
    place = Place(tmp_path)
    rows = [row("a"), row("a", "audit", "large"), row("b"), row("b", "draft", "small", "41", id="b/d")]
    place.run({"completions": rows}, lambda filler: bool(place.rows(schema.grades)))
    assert not place.large.bodies and place.grades() == {"small": (None, "agreement"), "large": (1.0, "top")}
    assert not place.served().drawn and not place.grades("b")


def test_feedback_that_comes_later_replaces_the_grades(tmp_path):
    place = Place(tmp_path)

    def told(filler):
        store(place.engine, feedback=feedback_row("a", 0.0, at_s=place.now_s + 1))
        return True

    place.run({**drawn("a")}, place.over, told, lambda filler: place.grades()["small"][1] == "feedback")
    assert place.grades() == {"small": (0.0, "feedback"), "large": (0.0, "feedback")} and place.fills()["a"] == ("done", "")


def test_feedback_on_a_request_that_was_not_drawn_grades_the_answer_that_was_given(tmp_path):
    place = Place(tmp_path)
    place.run({"completions": row("a"), "feedback": feedback_row("a", 1.0)}, lambda filler: bool(place.grades()))
    assert place.grades() == {"small": (1.0, "feedback")} and not place.large.bodies


def test_a_database_that_fails_is_waited_for(tmp_path, monkeypatch):
    place = Place(tmp_path)

    async def scenario():
        filler = await place.filler()
        store(place.engine, **drawn("a"))
        real = filler.store.transact

        def down(action):
            raise module.LedgerDown("it is down")

        monkeypatch.setattr(filler.store, "transact", down)
        filler.lease.transact = down
        filler.start()
        await until(lambda: filler.rests == module.OUT)
        monkeypatch.setattr(filler.store, "transact", real)
        filler.lease.transact = real
        await until(lambda: place.over(filler))
        await filler.close()
        await place.ledgers[0].close()

    asyncio.run(scenario())
    assert place.fills()["a"] == ("done", "")


def test_an_answer_whose_call_cannot_be_written_down_is_not_kept_and_asked_for_again(tmp_path):
    place = Place(tmp_path)

    async def scenario():
        filler = await place.filler()
        store(place.engine, **drawn("a"))
        real, refused = filler.ledger.add, []

        async def refusing(rows):
            if len(refused) < 5:
                refused.append(rows)
                raise module.LedgerDown("the disk is full")
            await real(rows)

        filler.ledger.add = refusing
        filler.start()
        await until(lambda: place.over(filler))
        await filler.close()
        await place.ledgers[0].close()
        assert len(refused) == 5

    asyncio.run(scenario())
    assert place.fills()["a"] == ("done", "") and len(place.rows(schema.completions, schema.completions.c.role == "fill")) == 1


def test_the_state_says_how_far_it_is(tmp_path):
    place = Place(tmp_path)
    place.run(drawn("a", "b"), place.over, lambda filler: filler.state()["done"] == 2 and filler.state()["rests"])
    assert {name: place.state[name] for name in ("waiting", "done", "failed", "usd_day", "running")} == {
        "waiting": 0,
        "done": 2,
        "failed": 0,
        "usd_day": 1.0,
        "running": 0,
    }
    assert place.state["rests"] == "there is nothing to fill in" and place.state["spent_usd"] > 0


# -- when tiers are idle -----------------------------------------------------------------------------------------------------


def watched(*names, **settings):
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    tiers = {n: VllmTier(name=n, engine="vllm", source="x", context=9, price=price, **settings) for n in names}
    breaker = Breaker(time.monotonic, random.random)
    return {n: Watched(ScriptedTier(n, lambda body: Said()), breaker) for n in names}, tiers


@pytest.mark.parametrize("accelerator, waits", [(None, "the processors are not idle"), ("H100", "")])
def test_tiers_that_share_processors_are_idle_together_and_only_after_a_moment(accelerator, waits):
    now, (tiers, settings) = [100.0], watched("small", "large", accelerator=accelerator)
    idle = idleness.Idleness(tiers, settings, idleness.OwnCalls(), lambda name: 0.0, lambda: now[0])
    assert idle.waits("large") == ""
    tiers["small"].running = 1
    assert idle.waits("large") == waits
    tiers["small"].running, tiers["small"].finished = 0, 1
    assert idle.waits("large") == waits
    now[0] += idleness.QUIET_S
    assert idle.waits("large") == ""
    with idle.own.call("small"):
        tiers["small"].running += 1
        assert idle.waits("large") == ""
        tiers["small"].running, tiers["small"].finished = 0, 2
    assert idle.waits("large") == ""  # it was our own


def test_a_tier_that_sleeps_or_is_busy_elsewhere_is_not_asked():
    tiers, settings = watched("small", "large", replicas=0, max_replicas=1)
    elsewhere = {"small": 1.0, "large": 0.0}
    idle = idleness.Idleness(tiers, settings, idleness.OwnCalls(), elsewhere.__getitem__)
    tiers["small"].count = 1
    tiers["large"].count = 0
    assert (idle.waits("small"), idle.waits("large")) == ("small is not idle", "large sleeps")


# -- in an ingress -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collect, fills", [("off", False), ("consented", True)])
def test_an_ingress_that_keeps_requests_fills_them_in(tmp_path, collect, fills):
    place = Place(tmp_path)
    config = ladder(("small", "large"), learning={"collect": collect})
    ledger = Ledger(place.settings)
    place.ledgers.append(ledger)
    router = OneFlow(config, lambda *_: None)
    accounts = Accounts(Keys(None, insecure=True), ledger, tiers={tier.name: tier for tier in config.tiers})
    ingress = Ingress(router, place.tiers, accounts, 1_000_000)
    with TestClient(ingress.app()):
        store(place.engine, **drawn("a"))
        if fills:
            waiting.until(lambda: place.fills()["a"][0] == "done", 20, 0.05)
    assert (ingress.filler is not None) == fills and bool(place.large.bodies) == fills
