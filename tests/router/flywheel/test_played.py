"""A kept request is played as it would have been served: the same decisions, from statistics instead of log-probabilities."""

import json
import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scripted import answered_at_once

from deployments.endpoint.openai_json import read_answer
from deployments.pocket import tasks
from router.config import Escalation, load_config
from router.engine import Router, load_artefact
from router.flywheel.pairs import Tally, one_a_conversation, pair_of
from router.flywheel.played import CannotPlay, play
from router.flywheel.served import Answer, Grade, Served
from router.learn.labels.labelling import logprob_stats
from router.types import Call, Reply, Request, Usage

NAMES = ("small", "medium", "large")
QUESTIONS = (  # of which the router asks large, medium, small and medium first
    "What is 75 minus 72?",
    "Spell the word vorapufopel.",
    "Write usum backwards.",
    "Sort 32, 94, 42 and 91 from smallest to largest.",
)
USD = {"small": 0.001, "medium": 0.004, "large": 0.02}


@cache
def router(mode="buffer", artefact=True, delegation="off") -> Router:
    config = load_config("pocket")
    changed = {"escalation": Escalation(mode=mode), "delegation": config.delegation.model_copy(update={"mode": delegation})}
    config = config.model_copy(update=changed)
    return Router(config, load_artefact(config) if artefact else None, dict.fromkeys(config.names, len))


def raw_answer(rng, doubt, length):
    """Text and the tokens' log-probabilities as a tier gives them, with two alternatives each."""
    values = -doubt * rng.exponential(size=length)
    content = [{"token": "a", "logprob": float(v), "top_logprobs": [{"token": "b", "logprob": float(v) - 1.5}]} for v in values]
    return str(int(rng.integers(10, 13))), content


def request(seed, *, doubts=None, lengths=None, **sampling):
    """A kept request with raw answers: (Served, tier -> (text, tokens))."""
    rng = np.random.default_rng(seed)
    raw = {
        name: raw_answer(rng, doubt, length)
        for name, doubt, length in zip(NAMES, doubts or rng.exponential(0.3, 3), lengths or rng.integers(2, 90, 3), strict=True)
    }
    answers = {name: kept(name, *raw[name]) for name in NAMES}
    question = QUESTIONS[seed % len(QUESTIONS)]
    return served(answers, question, seed, **sampling), raw


def kept(name, text, content):
    signals = json.loads(json.dumps(logprob_stats({"logprobs": {"content": content}})))
    return Answer(name, "fill", {"role": "assistant", "content": text}, "stop", 9, len(content), USD[name], signals)


def served(answers, question=QUESTIONS[2], seed=0, **sampling):
    grades = {name: Grade(float(i == 2 or seed % (i + 2) > 0), "agreement") for i, name in enumerate(NAMES)}
    messages = ({"role": "user", "content": question},)
    return Served(f"t{seed}", 0.0, "k", f"c{seed}", messages, "large", answers, grades, sampling={"temperature": 0, **sampling})


def live(made: Router, row: Served, raw):
    """(tiers asked, tier whose answer the client gets), decided on raw log-probabilities."""
    asked = Request("chat/completions", row.body)
    decided = made.decide(asked)
    chosen = made.flow(asked, decided)
    if chosen.steps is None:
        return [decided.tier], decided.tier

    def reply(call: Call) -> Reply:
        text, content = raw[call.tier]
        choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": content}}
        usage = {"prompt_tokens": 9, "completion_tokens": len(content)}
        whole = read_answer(call, {"choices": [choice], "usage": usage})
        if not (asked.stream and len(content) > call.hold):
            return whole
        begun = {"text": text[:1], "finish_reason": "", "usage": Usage(), "partial": True}
        return replace(whole, logprobs=whole.logprobs[: call.hold], **begun)

    end, steps = answered_at_once(chosen.steps, reply)
    calls = {call.id: call.tier for step in steps for call in step.start}
    return list(calls.values()), calls[end.call_id]


@pytest.mark.slow
@pytest.mark.parametrize("mode, stream", [("buffer", False), ("buffer", True), ("holdback", True), ("pre", False)])
def test_it_is_decided_as_live(mode, stream):
    made, tiers, escalated = router(mode), set(), 0
    for seed in range(60):
        row, raw = request(seed, stream=stream)
        played = play(made, row)
        asked, tier = live(made, row, raw)
        assert ([name for name, _ in played.calls], played.tier) == (asked, tier)
        assert played.score == row.grades[tier].score
        tiers.add(tier)
        escalated += played.escalated
    assert len(tiers) > 1 and (escalated > 0) == (mode != "pre")


def test_every_call_is_paid_for():
    row, _ = request(1, doubts=(3.0, 3.0, 0.01), lengths=(20, 20, 20))
    played = play(router(), row)
    assert played.tier == "large" and played.escalated and played.flow == "cascade"
    assert played.cost_usd == sum(usd for _, usd in played.calls) == sum(USD[name] for name, _ in played.calls)
    assert (played.certificate, played.target) == ("valid", "quality")


def test_a_stream_that_is_given_up_costs_what_it_made_until_then():
    row, _ = request(1, doubts=(3.0, 3.0, 0.01), lengths=(80, 80, 80), stream=True)
    played = play(router("holdback"), row)
    assert played.escalated and played.calls[0][1] < USD[played.calls[0][0]] and played.calls[-1] == ("large", USD["large"])


def test_without_an_artefact_the_top_tier_answers():
    played = play(router(artefact=False), request(1)[0])
    assert (played.tier, played.calls, played.score, played.certificate) == ("large", (("large", USD["large"]),), 1.0, "")


def without(row, name):
    return replace(row, answers={tier: answer for tier, answer in row.answers.items() if tier != name})


ROW = request(1, doubts=(3.0, 3.0, 0.01), lengths=(20, 20, 20))[0]
UNSCORED = replace(ROW, answers={name: replace(answer, signals={}) for name, answer in ROW.answers.items()})
DIVIDED = tasks.composite(random.Random(1)).prompt


@pytest.mark.parametrize(
    "row, why",
    [
        (replace(ROW, wanted="small"), "asked for small by name"),
        (replace(ROW, wanted="auto:best"), "refuses the request .*model"),
        (replace(ROW, sampling={"n": 2}), "several answers"),
        (replace(ROW, messages=({"role": "user", "content": "x" * 2_000},)), "refuses the request .*context"),
        (replace(ROW, messages=({"role": 7},)), "refuses the request"),
        (replace(ROW, tools=({"type": "stepdown:delegate"},)), "refuses|tools"),
        (without(ROW, "large"), "no answer of large"),
        (UNSCORED, "no log-probabilities"),
    ],
)
def test_what_cannot_be_played_says_why(row, why):
    with pytest.raises(CannotPlay, match=why):
        play(router(), row)


def test_a_race_cannot_be_played():
    with pytest.raises(CannotPlay, match="by race"):
        play(router("hedge"), ROW if play(router("pre"), ROW).tier != "large" else request(3)[0])


def test_a_divided_request_cannot_be_played():
    made = router(delegation="plan")
    with pytest.raises(CannotPlay, match="by delegation"):
        play(made, replace(ROW, messages=({"role": "user", "content": DIVIDED},)))


# -- pairs -----------------------------------------------------------------------------------------------------------------


def test_a_pair_compares_scores_on_one_request():
    row = replace(ROW, grades={name: Grade(score, "judge") for name, score in zip(NAMES, (0.0, 0.0, 1.0), strict=True)})
    sure = request(2, doubts=(1e-4, 1e-4, 1e-4), lengths=(4, 4, 4))[0]
    lost = replace(sure, grades=row.grades)
    assert pair_of(router(), router(artefact=False), row).d == 0.0
    assert pair_of(router(), router(artefact=False), lost).d == -1.0
    assert pair_of(router(artefact=False), router(), lost).d == 1.0


def test_a_request_that_cannot_be_graded_is_undecided_even_where_both_take_the_same_tier():
    row = replace(ROW, grades={**ROW.grades, "small": Grade(None, "judge")})
    found = pair_of(router(artefact=False), router(artefact=False), row)
    assert found.d is None and found.candidate.score == 1.0


def test_a_request_that_was_drawn_more_often_weighs_less():
    assert pair_of(router(), router(), replace(ROW, chance=0.5), least_chance=0.1).weight == pytest.approx(0.2)
    assert pair_of(router(), router(), replace(ROW, chance=0.1), least_chance=0.5).weight == 1.0


def test_a_candidate_that_refuses_or_fails_is_at_fault():
    made = router()
    only = replace(made.artefact, rules={"quality": made.artefact.rules["quality"]})  # `auto:cheap` is refused
    broken = replace(made.artefact, model=None)
    for artefact, row in ((only, replace(ROW, wanted="auto:cheap")), (broken, ROW)):
        candidate = Router(made.config, artefact, made.count)
        tally = Tally.begin(0.02).after([row], candidate, router(artefact=False))
        assert (tally.pairs, tally.unplayable, tally.faults) == (0, 1, 1)


def test_one_pair_a_conversation():
    rows = [replace(ROW, trace_id=str(i), conversation=c) for i, c in enumerate(["a", "b", "a", "", "", "c"])]
    assert [row.trace_id for row in one_a_conversation(rows, {"c"})] == ["0", "1", "3", "4"]


def test_a_tally_adds_up_and_is_kept_as_json():
    rows = [request(seed)[0] for seed in range(8)]
    tally = Tally.begin(0.02).after([*rows, without(ROW, "large")], router(), router(artefact=False))
    assert (tally.pairs, tally.unplayable, tally.faults, sum(tally.tiers.values())) == (8, 1, 0, 8)
    assert tally.incumbent_usd == tally.top_usd == pytest.approx(8 * USD["large"])
    assert tally.saving == 1 - tally.candidate_usd / tally.top_usd
    assert Tally.from_json(json.loads(json.dumps(tally.as_json()))).as_json() == tally.as_json()
