"""A log decided again: by the real router, with what could not be replayed told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sample_traffic import NOW, database, traffic

from deployments.cli.main import main
from deployments.tiers.fingerprints import ladder_fingerprints
from router.config import Price, load_config
from router.engine import load_artefact
from router.errors import BadInput
from router.replay import Logged, Replay, facts, repriced, retargeted, router_for

PROMPTS = ["What is 238 plus 467?", "sort: 9 4 7 1 8 2", "reverse the word lantern", "What is 12 times 34, then minus 5?"]


def row(prompt, tier="large", wanted="auto", flow="direct", **more):
    usage = {"input_tokens": 20, "output_tokens": 10, "cached_tokens": 0, "role": "final", "tier": tier}
    usd = {"small": 0.103, "medium": 0.454, "large": 1.894}.get(tier, 0.0) * 30 / 1e6
    base = {
        "wanted": wanted,
        "prompt": prompt,
        "flow": flow,
        "cost_usd": usd,
        "p": {"small": 0.9, "medium": 0.95, "large": 1.0},
        "calls": [usage],
        "began_s": NOW,
        "key_id": "app",
        "id": "x",
    }
    return base | more


def replayed(rows, mode="pre", prices=None, target=None):
    old = load_config("pocket")
    old = old.model_copy(update={"escalation": old.escalation.model_copy(update={"mode": mode})})
    new = repriced(retargeted(old, None, target), prices or {})
    router = router_for(new, load_artefact(new), old, ladder_fingerprints(new))
    return router, Replay(router).run(map(Logged.from_row, rows)).report()


@pytest.mark.parametrize("mode", ["pre", "buffer"])
@pytest.mark.parametrize("target", ["cheap", "quality", "0.9"])
def test_decides_as_the_router_does(mode, target):
    router, found = replayed([row(p) for p in PROMPTS], mode, target=target)
    decided = [router.decide_facts(facts(Logged.from_row(row(p)))) for p in PROMPTS]
    for name in router.names:
        assert found["tiers"][name] == {"log": 4 if name == "large" else 0, "new": sum(d.tier == name for d in decided)}
    assert found["quality"]["rows"] == 4


def test_a_log_of_large_answers_gets_cheaper_and_the_sum_is_by_hand():
    router, found = replayed([row(p) for p in PROMPTS], target="cheap")
    assert [found["paid_usd"], found["log_usd"]] == pytest.approx([4 * 1.894 * 30 / 1e6] * 2)
    prices = {"small": 0.103, "medium": 0.454, "large": 1.894}
    assert found["new_usd"] == pytest.approx(sum(n["new"] * prices[t] * 30 / 1e6 for t, n in found["tiers"].items()))
    assert found["estimate"]["off"] == pytest.approx(0) and found["change_share"] < 0


def test_other_prices_change_the_sum_and_the_decisions():
    dear = {"large": Price(usd_per_1m_input=200, usd_per_1m_output=200)}
    _, before = replayed([row(p) for p in PROMPTS], target="quality")
    _, after = replayed([row(p) for p in PROMPTS], target="quality", prices=dear)
    assert after["log_usd"] == pytest.approx(before["log_usd"] * 200 / 1.894)
    assert after["tiers"]["large"]["new"] <= before["tiers"]["large"]["new"]
    assert after["paid_usd"] == before["paid_usd"]


def test_what_cannot_be_replayed_is_counted_by_reason():
    rows = [row(None), row(None), row("x", flow="delegation"), row("x", tier="gone"), row("x", calls=[])]
    rows.append(row("x", wanted="auto:none"))
    _, found = replayed([*rows, row("x", wanted="medium", tier="medium")])
    assert found["skipped"] == {
        "no prompt stored": 2,
        "answered in parts (delegation, tools)": 1,
        "a tier that the ladder lacks": 1,
        "no answer in the log": 1,
        "refused by the ladder (model_not_found)": 1,
    }
    assert (found["rows"], found["replayed"], found["tiers"]["medium"]) == (7, 1, {"log": 1, "new": 1})
    assert found["quality"]["new"] is None


def test_a_prompt_too_long_for_a_tier_is_refused_by_its_logged_length():
    usage = {"input_tokens": 5000, "output_tokens": 10, "cached_tokens": 0, "role": "final", "tier": "large"}
    _, found = replayed([row("short", calls=[usage])])
    assert found["skipped"] == {"refused by the ladder (context_length_exceeded)": 1}


@pytest.mark.parametrize("tier, usd", [("huge", 1), ("small", 9)])
def test_prices_that_fit_no_ladder_are_refused(tier, usd):
    with pytest.raises(BadInput):
        repriced(load_config("pocket"), {tier: Price(usd_per_1m_input=usd, usd_per_1m_output=usd)})


@pytest.mark.parametrize(
    "options, said",
    [
        (["--price", "large"], "expected large=2.5"),
        (["--price", "large=x"], "expected large=2.5"),
        (["--price", "huge=1"], "no such tier"),
        (["--target", "best"], "cheap, balanced, quality"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, options, said):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(row("x")) + "\n")
    found = CliRunner().invoke(main, ["replay", str(log), *options])
    assert found.exit_code == 2 and said in found.output


@pytest.mark.parametrize("line", ["{", "[]", '{"id": 1}', '{"began_s": 1790000000, "key_id": "x"}'])
def test_a_file_that_is_no_log_is_refused(tmp_path, line):
    log = tmp_path / "log.jsonl"
    log.write_text(line + "\n")
    found = CliRunner().invoke(main, ["replay", str(log)])
    assert found.exit_code == 2 and "costs --export" in found.output


@pytest.mark.slow
def test_ledger_and_export_replay_alike(tmp_path):
    rows = traffic(60, NOW - 86400, NOW)
    for n, found in enumerate(rows.traces):
        found["prompt"] = PROMPTS[n % 4] if n % 5 else None
    engine = database(tmp_path, rows)
    log = tmp_path / "log.jsonl"
    runner, ledger = CliRunner(), str(engine.url)
    runner.invoke(main, ["costs", "--ledger", ledger, "--since", "2026-01-01", "--export", str(log)])
    options = ["--target", "0.95", "--price", "large=2.5", "--json"]
    outputs = [runner.invoke(main, ["replay", str(place), *options]).output for place in (ledger, log, Path(engine.url.database))]
    assert outputs[0] == outputs[1] == outputs[2]
    found = json.loads(outputs[0])
    assert found["rows"] == 60 and found["skipped"]["no prompt stored"] == 12 and 0.5 < found["quality"]["new"] <= 1
    assert "decided again" in runner.invoke(main, ["replay", ledger]).output
