"""How far it is, when it is there, what it would save, and why it does not yet: in words."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from router.config import Config
from router.flywheel.pairs import Pair, Tally
from router.flywheel.played import Played
from router.flywheel.progress import LogFigures, Saving, moment, played_saving, progress, rows_needed, saving_of
from router.flywheel.served import Answer, Grade, Served
from router.flywheel.stages import RunState

NOW = datetime(2026, 11, 30, 15, 0, tzinfo=UTC).timestamp()  # a Monday
DAY = LogFigures(kept=2_000, drawn=230, complete=214, complete_day=214, first_s=NOW - 26 * 3600)


def config(looks="buffer", tiers=2, flywheel=None, **learning):
    ladder = [
        {"name": n, "engine": "echo", "context": 512, "price": {"usd_per_1m_input": 1, "usd_per_1m_output": 1}}
        for n in "sl"[:tiers]
    ]
    kept = {"collect": "consented", "start": "auto", **learning}
    return Config.model_validate(
        {"tiers": ladder, "escalation": {"mode": looks}, "learning": kept, "flywheel": {"margin": 0.02, **(flywheel or {})}}
    )


def shown(log=DAY, run=None, saving=None, **settings):
    return progress(config(**settings), log, run, saving, NOW, UTC)


def test_pairs_of_how_many_and_until_when():
    made = shown(saving=Saving(0.62, 214, played=False))
    assert made.line == "214 of about 400 pairs; at today's traffic: tomorrow 12:00"
    assert made.text().splitlines() == [
        "collecting: 214 of about 400 pairs; at today's traffic: tomorrow 12:00",
        "at most 62% of the cost of always asking the top tier could be saved (214 requests; upper bound)",
        "too few graded pairs",
    ]
    assert made.as_json()["line"] == made.line and made.as_json()["saving"]["played"] is False


def test_the_rate_is_that_of_the_hours_there_were():
    young = replace(DAY, complete=100, complete_day=100, first_s=NOW - 3600)
    assert shown(young).when == "today 18:00"
    assert shown(replace(young, complete_day=0)).when == ""


def test_a_strict_promise_needs_more_pairs():
    settings = config(flywheel={"alpha": 0.005, "delta": 0.05}).flywheel
    assert rows_needed(settings) == 1_994  # 598 rows without a loss, of 30 % of the pairs
    assert rows_needed(settings, risk=0.0025) > 5_000
    assert rows_needed(config().flywheel) == 400


@pytest.mark.parametrize(
    "log, settings, why",
    [
        (LogFigures(), {"collect": "off", "start": "asked"}, "nothing is kept: learning.collect is off"),
        (LogFigures(), {}, "nothing was kept yet: no key"),
        (DAY, {"looks": "pre"}, "no certificate is possible: escalation.mode is pre"),
        (DAY, {"tiers": 1}, "one tier only"),
        (DAY, {"fill_share": 0}, "learning.fill_share is 0"),
        (replace(DAY, waiting=9, spent_usd_day=1.0), {}, "budget for filling in is spent .1.00 of 1.00 USD"),
        (replace(DAY, waiting=9), {}, "9 drawn requests wait for an idle moment"),
        (replace(DAY, ungraded=500), {}, "500 of 714 filled requests could not be graded"),
        (replace(DAY, complete=500), {"start": "asked"}, "`stepdown flywheel run` begins"),
    ],
)
def test_why_not_yet(log, settings, why):
    made = shown(log, **settings)
    assert any(re.search(why, one) for one in made.why), made.why


def run(stage="shadow", equal=0, lost=0):
    tally = Tally.begin(0.02)
    for score in [1.0] * equal + [0.0] * lost:
        taken = Played("s", (("s", 0.25),), 0.25, score, "valid", "quality")
        tally = tally.add(Pair(taken, replace(taken, cost_usd=1.0, score=1.0), 1.0, True))
    return RunState(stage, NOW - 3600, tally)


def test_the_shadow_is_expected_to_need_more_the_more_it_loses():
    none, some = shown(run=run(equal=120)), shown(run=run(equal=118, lost=2))
    assert none.pairs == some.pairs == 120 and 300 <= none.needed < some.needed
    assert none.line.startswith("120 of about 3") and none.when
    lost = shown(run=run(equal=80, lost=40))
    assert lost.needed is None and lost.line == "120 pairs so far" and "would not pass" in lost.text()


@pytest.mark.parametrize(
    "stage, text",
    [
        ("training", "training\na candidate is being trained and certified"),
        ("waiting", "waiting\na candidate has passed the shadow; `stepdown flywheel promote` lets it go on"),
        ("canary", "canary\na candidate answers 5% of the conversations"),
    ],
)
def test_the_later_stages_say_what_they_wait_for(stage, text):
    assert shown(run=run(stage)).text() == text


def row(small, large, costs=(1.0, 4.0), chance=1.0):
    answers = {n: Answer(n, "fill", {}, cost_usd=usd) for n, usd in zip("sl", costs, strict=True)}
    grades = {n: Grade(score, "judge") for n, score in zip("sl", (small, large), strict=True)}
    return Served("t", 0.0, "k", "c", (), "l", answers, grades, chance=chance)


def test_what_could_be_saved_at_most():
    rows = [row(1.0, 1.0), row(0.0, 1.0), row(0.5, 0.0), row(None, 1.0)]
    assert saving_of(rows, "sl") == Saving(0.5, 3, played=False)
    assert saving_of([row(1.0, 1.0), row(0.0, 1.0, chance=0.5)], "sl") == Saving(0.25, 2, played=False)
    assert saving_of([row(None, 1.0)], "sl") is None
    assert saving_of([row(1.0, 1.0, (0.0, 0.0))], "sl") is None


def test_what_a_candidate_would_save():
    made = played_saving(run(equal=8))
    assert made == Saving(0.75, 8, played=True) and made.text.startswith("the candidate would save 75%")
    assert played_saving(run()) is None


@pytest.mark.parametrize(
    "hours, zone, text",
    [
        (0.1, UTC, "today 15:15"),
        (8.9, UTC, "tomorrow 00:00"),
        (23, timezone(timedelta(hours=-5)), "tomorrow 09:00"),
        (72, UTC, "Thursday 15:00"),
        (24 * 9, UTC, "2026-12-09"),
    ],
)
def test_times_as_people_say_them(hours, zone, text):
    assert moment(NOW + hours * 3600, NOW, zone) == text
