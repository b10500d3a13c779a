"""The report's figures are sums over the rows, whatever is asked for."""

import dataclasses
import json
import random
import shutil
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st
from sample_traffic import HELD, HOUR_USD, NOW, database, one

from deployments.cli.costs import text as costs_text
from deployments.costs.interval import asked_for, interval
from deployments.costs.report import report
from deployments.keys import key_store
from deployments.ledger import machine_time_sums
from deployments.ledger.database import writing
from deployments.ledger.rows import Rows, from_call, from_trace, from_window, together
from deployments.ledger.writes import write
from deployments.monitoring.metrics import Metrics
from deployments.monitoring.panels import ROWS
from deployments.monitoring.sampler import totals
from router.config import Escalation
from router.costs.machine_time import DAY_S as DAY
from router.costs.machine_time import HOUR_S as HOUR
from router.errors import BadRequest
from router.learn.outcomes import Outcomes
from router.learn.report import curve
from router.trace import LEARNING, Window

KEYS, TIERS = [None, "app", "batch", "nobody"], [None, "small", "medium", "large"]


def expected(rows, when, key, tier):
    """By looking at every row."""
    inside = [t for t in rows.traces if when.since <= t["began_s"] // HOUR * HOUR < when.until and key in (None, t["key_id"])]
    called = [c for c in rows.calls if when.since <= c["began_s"] // HOUR * HOUR < when.until and key in (None, c["key_id"])]
    traces = [t for t in inside if tier in (None, t["tier"])]
    calls = [c for c in called if tier in (None, c["tier"])]
    known = [t for t in traces if t["counterfactual_usd"] is not None]
    audits = sum(c["cost_usd"] for c in calls if c["role"] == "audit")
    alone = sum(t["counterfactual_usd"] for t in known)
    return {
        "requests": len(traces),
        "failed": sum(t["status"] >= 400 for t in traces),
        "calls": len(calls),
        "attempts": sum(c["role"] == "attempt" for c in calls),
        "audits": sum(c["role"] == "audit" for c in calls),
        "delegations": sum(t["flow"] == "delegation" for t in traces),
        "input_tokens": sum(c["input_tokens"] for c in calls),
        "output_tokens": sum(c["output_tokens"] for c in calls),
        "cached_tokens": sum(c["cached_tokens"] for c in calls),
        "cost_usd": sum(c["cost_usd"] for c in calls),
        "counterfactual_usd": alone,
        "saving_usd": alone - sum(t["cost_usd"] for t in known) - audits,
        "busy_s": sum(c["busy_s"] for c in calls),
    }


@pytest.mark.slow
@tried(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(NOW - 5 * DAY, NOW - 1), st.floats(1, 6 * DAY), st.sampled_from(KEYS), st.sampled_from(TIERS))
def test_totals_are_the_sums_of_the_rows(engine, settings, rows, since, length, key, tier):
    found = report(engine, settings, since, since + length, key, tier)
    wanted = expected(rows, interval(since, since + length), key, tier)
    assert {name: found["totals"][name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    assert sum(row["requests"] for row in found["reasons"]) == wanted["requests"]
    assert sum(row["requests"] for row in found["by"]["key"]) == wanted["requests"]


@pytest.mark.parametrize("days", [1, 4, 6])
@pytest.mark.parametrize("name", ["tier", "key", "day"])
def test_tables_add_up_to_the_totals(engine, settings, name, days):
    found = report(engine, settings, NOW - days * DAY, NOW)
    skipped = {"saving_share", "escalations"}
    if name == "key":  # what is nobody's is no key's
        skipped |= {f"{what}_{unit}" for what in ("held", "nobody", "over") for unit in ("s", "usd")}
    for figure, total in found["totals"].items():
        if figure not in skipped:
            assert sum(row[figure] for row in found["by"][name]) == pytest.approx(total, abs=1e-4), figure
    assert sum(row["shares"]["cost"] for row in found["by"][name]) == pytest.approx(1)


@pytest.mark.parametrize("since, until", [(NOW - 4 * DAY, NOW), (NOW - 30 * HOUR, NOW - 3 * HOUR)])
def test_busy_idle_and_nobodys_time_are_what_was_held(engine, settings, rows, since, until):
    when, found = interval(since, until), report(engine, settings, since, until)
    held = sum(w["seconds"] * w["replicas"] * w["accelerators"] for w in rows.windows if when.since <= w["began_s"] < when.until)
    gpu = found["gpu"]
    assert gpu["busy_s"] + gpu["idle_s"] + gpu["nobody_s"] + gpu["over_s"] == pytest.approx(held)
    assert gpu["busy_usd"] + gpu["idle_usd"] + gpu["nobody_usd"] + gpu["over_usd"] == pytest.approx(held / 3600 * HOUR_USD)
    assert gpu["held_s"] == pytest.approx(held)
    assert {row["tier"] for row in found["by"]["tier"]} >= set(HELD)


def test_two_intervals_side_by_side_add_up(engine, settings):
    middle = NOW // HOUR * HOUR - 50 * HOUR
    parts = [report(engine, settings, a, b, "app") for a, b in ((NOW - 4 * DAY, middle), (middle, NOW))]
    whole = report(engine, settings, NOW - 4 * DAY, NOW, "app")
    for figure in ("requests", "tokens", "cost_usd", "saving_usd", "held_usd"):
        assert sum(part["totals"][figure] for part in parts) == pytest.approx(whole["totals"][figure])


def test_a_late_row_of_a_day_that_was_read_is_seen(settings, tmp_path):
    dice = random.Random(3)
    engine = database(tmp_path, from_trace(one("a" * 32, NOW - 3 * DAY, dice, "app")[0]))
    before = report(engine, settings, NOW - 5 * DAY, NOW)["totals"]["requests"]
    with writing(engine) as connection:
        write(connection, from_trace(one("b" * 32, NOW - 3 * DAY + 60, dice, "app")[0]))
    assert (before, report(engine, settings, NOW - 5 * DAY, NOW)["totals"]["requests"]) == (1, 2)


def test_a_row_of_today_is_seen_although_it_made_no_call(settings, tmp_path):
    dice, now = random.Random(3), time.time()
    engine = database(tmp_path)
    report(engine, settings, now - 5 * DAY, now)
    refused = from_trace(one("a" * 32, now, dice, "app")[0])
    refused.calls.clear()
    with writing(engine) as connection:
        write(connection, refused)
    assert report(engine, settings, now - 5 * DAY, now)["totals"]["requests"] == 1


@pytest.mark.slow
def test_closed_books_change_no_figure(settings, rows, tmp_path):
    engine = database(tmp_path, rows)
    asked = [(days, key, tier) for days in (1, 4) for key in (None, "app") for tier in (None, "large")]
    open_books = [report(engine, settings, NOW - days * DAY, NOW, key, tier) for days, key, tier in asked]
    keep_books(engine)
    closed = [report(engine, settings, NOW - days * DAY, NOW, key, tier) for days, key, tier in asked]
    assert [flat(found) for found in closed] == [pytest.approx(flat(found), abs=1e-6) for found in open_books]
    with writing(engine) as connection:  # a call that comes late, and its share
        write(connection, Rows(calls=[from_call(one("c" * 32, NOW - 3 * DAY, random.Random(5), "late")[0].calls[0])]))
    assert "late" in [row["key"] for row in report(engine, settings, NOW - 4 * DAY, NOW)["by"]["key"] if row["busy_s"] > 0]


def keep_books(engine):
    with writing(engine) as connection:
        days = machine_time_sums.closable(connection, NOW + 5 * DAY)
        for day in days:
            machine_time_sums.close_day(connection, day)
        for hour in machine_time_sums.mergeable(connection, 0, NOW + 5 * DAY)[0]:
            machine_time_sums.merge(connection, hour)
    assert len(days) > 4


def flat(found):
    """Every figure of every table by its place."""
    rows = {
        (name, row[name], figure): value for name, table in found["by"].items() for row in table for figure, value in row.items()
    }
    figures = rows | {("totals", figure): value for figure, value in found["totals"].items()}
    return {place: value for place, value in figures.items() if isinstance(value, int | float)}


def test_saved_is_one_figure_on_the_page_and_in_the_metrics(engine, settings):
    told = {}

    class Gauge:
        def __init__(self, name, measure):
            self.name = name

        def set(self, value, tags):
            told[self.name, tags["tier"]] = value

    metrics = Metrics([], Gauge)
    metrics.totals(totals(engine))
    metrics.flush()
    page = report(engine, settings, 0, NOW + DAY)
    assert page["totals"]["audit_usd"] > 0 and page["totals"]["saving_usd"] != pytest.approx(
        page["totals"]["counterfactual_usd"] - page["totals"]["covered_usd"]
    )
    saved = {tier: value for (name, tier), value in told.items() if name == "stepdown_ledger_saving_usd"}
    assert sum(saved.values()) == pytest.approx(page["totals"]["saving_usd"])
    assert saved == pytest.approx({row["tier"] or "none": row["saving_usd"] for row in page["by"]["tier"]}, abs=1e-9)
    queries = {panel.title: [expr for expr, _ in panel.queries] for panel in ROWS[0].panels}
    assert "ledger_saving_usd" in queries["Saved"][0] and queries["Saved"][0] in queries["Saved, as a share"][0]


@pytest.mark.parametrize("key, tier", [(None, None), ("app", None), (None, "small")])
def test_the_counterfactuals_error_is_measured_on_audits(engine, settings, rows, key, tier):
    found = report(engine, settings, NOW - 5 * DAY, NOW, key, tier)["covers"]["error"]
    by_id = {trace["id"]: trace for trace in rows.traces if key in (None, trace["key_id"]) and tier in (None, trace["tier"])}
    audits = [call for call in rows.calls if call["role"] == "audit" and call["trace_id"] in by_id]
    pairs = np.array([(by_id[call["trace_id"]]["counterfactual_usd"], call["cost_usd"]) for call in audits])
    told, true = pairs.T
    assert found["requests"] == len(pairs) > 2
    assert found["bias"] == pytest.approx(told.sum() / true.sum() - 1, abs=1e-5)
    assert found["mean_off"] == pytest.approx(abs(told - true).sum() / true.sum(), abs=1e-5)
    assert found["mean_signed"] == pytest.approx(np.mean(told / true - 1), abs=1e-5)
    assert found["mean_absolute"] == pytest.approx(np.mean(abs(told / true - 1)), abs=1e-5)


def audited(n: int) -> tuple:
    """A request that was audited, and its audit."""
    dice = random.Random(n)
    return next((made, audits[0]) for _ in range(999) for made, audits in [one(f"{n:032d}", NOW, dice, "app")] if audits)


def test_audits_that_gave_no_answer_tell_nothing(settings, tmp_path):
    engine = database(tmp_path)
    made, audit = audited(1)
    failed = dataclasses.replace(audit, outcome="tier_failed", output_tokens=0, cost_usd=0.0)
    guessed = dataclasses.replace(audit, id="another", estimated=True)
    with writing(engine) as connection:
        write(connection, together([from_trace(made), Rows(calls=[from_call(failed), from_call(guessed)])]))
    found = report(engine, settings, NOW - DAY, NOW + DAY)["covers"]["error"]
    assert "not measured yet" in found["means"]
    assert {value for name, value in found.items() if name not in ("means", "requests")} == {None}


def test_an_error_is_of_the_estimate_that_was_told_before_the_audit(settings, tmp_path):
    """Told 3 and 1 where the top tier then cost 2 and 2: in sum nothing is off, of each request half."""
    engine = database(tmp_path)
    for n, told in ((1, 3.0), (2, 1.0)):
        made, audit = audited(n)
        made = dataclasses.replace(made, counterfactual_usd=told, counterfactual_estimated=True)
        parts = [from_trace(made), Rows(calls=[from_call(dataclasses.replace(audit, cost_usd=2.0))])]
        with writing(engine) as connection:
            write(connection, together(parts))
    found = report(engine, settings, NOW - DAY, NOW + DAY)["covers"]["error"]
    assert (found["requests"], found["bias"], found["mean_off"], found["mean_signed"], found["mean_absolute"]) == (
        2,
        0,
        0.5,
        0,
        0.5,
    )


def test_the_live_point_counts_routed_requests_only(engine, settings, rows):
    [all_, *_] = report(engine, settings, NOW - 5 * DAY, NOW)["curve"]["live"]
    routed = [t for t in rows.traces if t["confidence"] is not None and t["tier"]]
    good = [1.0 if t["tier"] == "large" else t["confidence"] for t in routed]
    assert all_["requests"] == len(routed)
    assert all_["quality"] == pytest.approx(sum(good) / len(good))
    assert all_["cost"] == pytest.approx(sum(t["cost_usd"] for t in routed) / sum(t["counterfactual_usd"] for t in routed))


def test_the_curve_is_the_artefacts_or_it_says_why_not(engine, settings):
    found = report(engine, settings, NOW - DAY, NOW)["curve"]
    assert [t["target"] for t in found["targets"]] == ["balanced", "cheap", "quality"] and found["points"][-1] == [1.0, 1.0]
    bare = settings.model_copy(update={"routing": settings.routing.model_copy(update={"artefact": None})})
    assert "no router is configured" in report(engine, bare, NOW - DAY, NOW)["curve"]["why"]


def test_an_empty_ledger_has_a_report(settings, tmp_path):
    found = report(database(tmp_path), settings, NOW - DAY, NOW)
    assert found["totals"]["requests"] == 0 and found["by"] == {"tier": [], "key": [], "day": []}


@pytest.mark.parametrize(
    "since, until, seconds",
    [
        (None, None, 7 * DAY),
        ("24h", None, DAY),
        ("2w", None, 14 * DAY),
        ("2026-09-01", "2026-09-02", 2 * DAY),
        ("2026-09-01T10:30", "2026-09-01T11:30", 2 * HOUR),
        ("1790000000", "1790003600.5", 2 * HOUR),
    ],
)
def test_what_people_write_is_an_interval_of_whole_hours(since, until, seconds):
    found = asked_for(since, until, now=1_789_999_200.0)
    assert found.until - found.since == seconds and found.since % HOUR == found.until % HOUR == 0


@pytest.mark.parametrize(
    "since, until", [("soon", None), ("2026-09-02", "2026-09-01T10:00"), ("99999999999999", None), ("-5d", "x")]
)
def test_no_interval_is_refused_with_the_forms_that_are_known(since, until):
    with pytest.raises(BadRequest):
        asked_for(since, until, now=NOW)


def test_a_tier_that_nobody_used_is_held_by_nobody(settings, tmp_path):
    window = from_window(Window("large", int(NOW // HOUR * HOUR), 300, 2, 1, HOUR_USD))
    engine = database(tmp_path, Rows(windows=[window]))
    found = report(engine, settings, NOW, NOW + HOUR)
    assert (found["gpu"]["nobody_s"], found["by"]["key"]) == (600, [])


def test_audits_are_paid_for_out_of_what_is_saved(settings, tmp_path):
    made, audits = next(m for n in range(200) if (m := one("a" * 32, NOW, random.Random(n), "app"))[1])
    engine = database(tmp_path, together([from_trace(made), Rows(calls=[from_call(call) for call in audits])]))
    found = report(engine, settings, NOW - HOUR, NOW + HOUR)["totals"]
    assert found["saving_usd"] == pytest.approx(made.counterfactual_usd - made.cost_usd - audits[0].cost_usd)


def test_calls_to_learn_from_are_paid_for_out_of_what_is_saved_and_belong_to_no_key(settings, tmp_path):
    made, _ = one("a" * 32, NOW, random.Random(3), "app")
    asked = dataclasses.replace(made.calls[0], key_id=LEARNING, tier="large")
    learned = [dataclasses.replace(asked, id=role, role=role, cost_usd=usd) for role, usd in (("fill", 0.5), ("judge", 0.25))]
    engine = database(tmp_path, together([from_trace(made), Rows(calls=[from_call(call) for call in learned])]))
    found = report(engine, settings, NOW - HOUR, NOW + HOUR)
    totals = found["totals"]
    assert (totals["learning_calls"], totals["learning_usd"], totals["audit_usd"]) == (2, 0.75, 0.0)
    assert totals["saving_usd"] == pytest.approx(made.counterfactual_usd - made.cost_usd - 0.75)
    assert totals["cost_usd"] == pytest.approx(made.cost_usd + 0.75)
    assert {row["key"]: row["learning_usd"] for row in found["by"]["key"]} == {"app": 0.0, LEARNING: 0.75}
    assert report(engine, settings, NOW - HOUR, NOW + HOUR, key="app")["totals"]["learning_usd"] == 0
    assert ", of which 0.75 USD to learn from" in costs_text(found, None)
    assert key_store.spent(engine, NOW)["app"].day == pytest.approx(made.cost_usd) and LEARNING not in key_store.spent(
        engine, NOW
    )


def test_a_training_reports_curve_is_shown_whole(engine, settings, tmp_path):
    scores = np.array([[float(i % 3 > 0), 1.0] for i in range(60)])
    prices = np.tile([0.1, 1.0], (60, 1))
    names = np.array([str(i) for i in range(60)])
    table = Outcomes(["small", "large"], names, names.astype(object), scores, prices, np.ones(60), names, names, names, {})
    points = curve(table.scores * 0.8 + 0.1, prices, table)
    assert points[0][0] == pytest.approx(0.1) and points[-1][1] >= 1 and points == sorted(points)
    folder = tmp_path / "router"
    shutil.copytree(settings.routing.artefact, folder)
    (folder / "report").mkdir()
    (folder / "report" / "report.json").write_text(json.dumps({"curve": points}))
    routing = settings.routing.model_copy(update={"artefact": str(folder)})
    before = settings.model_copy(update={"routing": routing, "escalation": Escalation(mode="pre")})
    found = report(engine, before, NOW - DAY, NOW)["curve"]
    assert found["whole"] and found["points"] == points
