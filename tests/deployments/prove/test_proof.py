"""A whole proof over a ladder in this process: what is done stays done, budgets hold, and the page says what happened."""

import json
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
import yaml
from echo_ladder import Starts, config_file, prompts

from deployments.prove.inputs import Given
from deployments.prove.proof import PAGE, PROOF, prove
from deployments.prove.wish import Wish
from router.config import load_config
from router.errors import BadInput
from router.learn.labels.grading import GRADERS

pytestmark = pytest.mark.slow
N = 240
LABELS = 2 * 204  # two tiers; the rest is tried live


class Killed(Exception):
    """Ends a run in the middle of a step."""


@contextmanager
def no_bar(what, total):
    yield lambda done, of: None


def killing(step, after):
    """A bar that ends the run after so many answers of a step."""

    @contextmanager
    def bar(what, total):
        def progress(done, of):
            if what == step and done >= after:
                raise Killed

        yield progress

    return bar


@pytest.fixture
def rows():
    return prompts(N)


def wish(tmp_path, rows, **more):
    config = load_config(config_file(tmp_path, rows))
    given = Given(rows, "exact", GRADERS["exact"])
    return Wish(config, given, tmp_path / "proof", classifier="linear", alpha=0.1, **more)


def read(tmp_path):
    return json.loads((tmp_path / "proof" / PROOF).read_text())


def test_a_proof_shows_what_the_ladder_saves(tmp_path, rows):
    said, start = [], Starts()
    found = prove(wish(tmp_path, rows), said.append, no_bar, start)
    assert found["compared"] == 36 and found["verdict"]["shown"]
    assert found["cost"]["saved"][1] > 0.2 and found["quality"]["difference"][0] == 0
    certificate = read(tmp_path)["about"]["certificates"]["balanced"]
    assert certificate["kind"] == "certificate" and certificate["n"] == 60
    assert found["certificates"].get("valid", 0) > 20
    assert [point["way"] for point in found["points"]] == ["small", "large", "auto"]
    text = (tmp_path / "proof" / PAGE).read_text()
    assert "less than large alone" in text and "prove that" not in text.split('id="where-it-fails"')[0]
    assert len(start.ladders) == 1
    before = start.asked
    again = prove(wish(tmp_path, rows), said.append, no_bar, start)
    assert again == found and start.asked == before and len(start.ladders) == 1, "all was done before"


def test_a_run_that_was_killed_goes_on_without_paying_twice(tmp_path, rows):
    start = Starts()
    for step, after in (("labels", 50), ("labels", 150), ("fitting linear", 1), ("live", 20)):
        with pytest.raises(Killed):
            prove(wish(tmp_path, rows), print, killing(step, after), start)
    found = prove(wish(tmp_path, rows), print, no_bar, start)
    assert found["compared"] == 36
    live, warm_up = 3 * 36, 2 * 3
    assert start.asked <= LABELS + live + 3 * warm_up + 2 * 20, "only what was under way is asked again"


def test_a_changed_input_is_noticed_and_only_what_depends_on_it_is_done_again(tmp_path, rows):
    said, start = [], Starts()
    prove(wish(tmp_path, rows), said.append, no_bar, start)
    before = start.asked
    prove(wish(tmp_path, rows, delta=0.2), said.append, no_bar, start)
    assert "label: done before" in said and "certify: done again, for the promise changed since" in said
    assert start.asked - before <= 36 + 2 * 3, "auto is asked again, by the new router"
    rows[0]["answer"] = "another"
    prove(wish(tmp_path, rows), said.append, no_bar, start)
    assert "split: done again, for the prompts changed since" in said


def test_a_budget_stops_the_run_and_more_money_goes_on(tmp_path, rows):
    start = Starts()
    little = wish(tmp_path, rows, usd=0.05, max_tokens=8)
    prove(little, print, no_bar, start)
    spent = sum(read(tmp_path)["about"]["paid"].values())
    assert spent <= 0.05 and "Partial" in (tmp_path / "proof" / PAGE).read_text()
    asked = start.asked
    prove(wish(tmp_path, rows, max_tokens=8), print, no_bar, start)
    assert start.asked > asked and "Partial" not in (tmp_path / "proof" / PAGE).read_text()


def test_where_a_small_tier_never_suffices_the_page_says_so(tmp_path, rows):
    for row in rows:
        row["kind"] = "proof"
    found = prove(wish(tmp_path, rows), print, no_bar, Starts())
    assert not found["verdict"]["shown"]
    assert "no router could be trained: one class only" in (tmp_path / "proof" / PAGE).read_text()


def test_a_ladder_that_does_not_start_costs_nothing(tmp_path, rows):
    def fails(file, env):
        raise BadInput("no GPU")

    with pytest.raises(BadInput, match="no GPU"):
        prove(wish(tmp_path, rows), print, no_bar, fails)
    assert not (tmp_path / "proof" / "spent.jsonl").exists()


def test_a_ladder_that_runs_already_is_given_the_router_by_its_operator(tmp_path, rows):
    start, asked = Starts(), wish(tmp_path, rows)
    served = config_file(tmp_path, rows)
    with start(served, {}) as (url, key):
        asked = replace(asked, url=url, api_key=key)
        with pytest.raises(
            BadInput, match=r"does not use this router yet: set routing: {artefact: .*proof/router, target: balanced}"
        ):
            prove(asked, print, no_bar, start)
        settings = yaml.safe_load(served.read_text())
        settings |= {"routing": {"artefact": str(tmp_path / "proof" / "router")}, "escalation": {"mode": "buffer"}}
        served.write_text(yaml.safe_dump(settings))
        assert httpx.post(f"{url}/admin/reload", headers={"authorization": f"Bearer {key}"}).status_code == 200
        found = prove(asked, print, no_bar, start)
    assert found["verdict"]["shown"] and len(start.ladders) == 1
