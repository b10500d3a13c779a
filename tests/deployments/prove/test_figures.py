"""Figures from graded answers: paired, with intervals, and a verdict that follows from them."""

import pytest
from echo_ladder import NAMES, live_row

from deployments.prove.figures import figures

TIERS = list(NAMES)


def test_a_saving_without_a_loss_is_shown():
    found = figures([live_row(i) for i in range(60)], TIERS, 0.02, 0)
    assert found["compared"] == 60 and found["verdict"] == {"saves": True, "worse": False, "shown": True}
    assert found["cost"]["ratio"] == [0.25, 0.25, 0.25] and found["cost"]["saved"][0] == 0.75
    assert found["quality"]["difference"] == [0, 0, 0] and found["quality"]["same"] == 60
    assert found["certificates"] == {"valid": 60}


def test_no_saving_is_shown_where_the_cost_is_the_same():
    found = figures([live_row(i, usd=(0.04, 0.04), tier="large") for i in range(40)], TIERS, 0.02, 0)
    assert found["verdict"] == {"saves": False, "worse": False, "shown": False}


def test_a_saving_that_costs_quality_is_none():
    found = figures([live_row(i, auto=float(i % 3 > 0)) for i in range(60)], TIERS, 0.02, 0)
    assert found["verdict"] == {"saves": True, "worse": True, "shown": False}
    assert found["quality"]["worse"] == 20 and found["quality"]["difference"][2] < -0.02
    assert len(found["worst"]) == 10 and found["worst"][0]["scores"] == [0.0, 1.0]


def test_a_prompt_without_both_answers_is_counted_and_left_out():
    rows = [live_row(i) for i in range(40)]
    rows[0]["ways"]["auto"] = {"error": "HTTP 503: full", "score": None}
    del rows[1]["ways"]["large"]
    found = figures(rows, TIERS, 0.02, 0)
    assert found["compared"] == 38 and found["missing"] == {"auto: HTTP 503: full": 1, "large: not asked": 1}


def test_where_nothing_can_be_compared_nothing_is_shown():
    found = figures([], TIERS, 0.02, 0)
    assert found["compared"] == 0 and not found["verdict"]["shown"]


def test_near_duplicates_count_as_one_for_the_intervals():
    alone = [live_row(i, auto=float(i % 4 > 0)) for i in range(40)]
    twice = [{**row, "id": f"{row['id']}{k}", "stem_sha256": row["id"]} for row in alone for k in range(5)]
    wide, same = (figures(rows, TIERS, 0.02, 0)["quality"]["auto"] for rows in (alone, twice))
    assert same == pytest.approx(wide, abs=0.03) and same[2] - same[1] > 0.2


def test_slices_come_by_task_metadata_and_length_the_worst_first():
    rows = [live_row(i, auto=float(i % 2), kind="sum" if i % 2 else "proof", metadata={"app": f"a{i % 2}"}) for i in range(60)]
    found = figures(rows, TIERS, 0.02, 0)["slices"]
    assert {(one["by"], one["name"]) for one in found} >= {("kind", "proof"), ("metadata.app", "a0"), ("length", "short")}
    assert found[0]["difference"][0] == -1 and found[0]["name"] in ("proof", "a0")


def test_what_each_tier_took_adds_up():
    rows = [live_row(i, tier="small" if i % 4 else "large") for i in range(40)]
    small, large = figures(rows, TIERS, 0.02, 0)["tiers"]
    assert (small["answers"], large["answers"]) == (30, 10) and small["share"] + large["share"] == 1
    assert small["of_cost"] + large["of_cost"] == pytest.approx(1)


def test_times_have_quantiles_with_intervals():
    found = figures([live_row(i) for i in range(60)], TIERS, 0.02, 0)["latency"]["auto"]["total_s"]
    assert found["p50"][1] <= found["p50"][0] <= found["p50"][2] <= found["p95"][2] and len(found["curve"]) == 41
