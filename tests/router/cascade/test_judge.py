"""Which answers may be looked at, and by how much of them: holdback fits its artefact, and only one chat answer is looked at."""

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import make_ladder

from classifiers import Rule
from router.cascade.judge import TrainedJudge, check_holdback
from router.cascade.next_step import AskTiers, plan
from router.config import Config, Escalation, load_config
from router.engine import Router, load_artefact
from router.errors import BadConfig
from router.learn.simulate import Rows, States, all_tiers, play
from router.request.wire import parse
from router.types import Call, Reply, Usage

pytestmark = pytest.mark.slow

NAMES = ["small", "medium", "large"]
ASK = {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": "What is 7 plus 5?"}]}


@pytest.fixture(scope="module")
def posterior():
    return make_ladder(200).posterior()


def pocket(**escalation) -> Config:
    config = load_config("pocket")
    return config.model_copy(update={"escalation": Escalation(**escalation)})


def decide(config, body, path="chat/completions"):
    made = Router(config, load_artefact(config), dict.fromkeys(config.names, len))
    return made.decide(parse(path, json.dumps(body).encode()))


def test_holdback_wants_the_number_of_tokens_that_was_trained_on(posterior):
    check_holdback(Escalation(mode="holdback", holdback_tokens=posterior.prefix), posterior)
    check_holdback(Escalation(mode="buffer", holdback_tokens=5), posterior)
    with pytest.raises(BadConfig, match=r"holdback_tokens: 5, expected 16, .*--prefix 5"):
        check_holdback(Escalation(mode="holdback", holdback_tokens=5), posterior)


@pytest.mark.slow
def test_holdback_wants_heads_on_first_tokens():
    without = make_ladder(200, logprobs=False).posterior()
    for found in (None, without):
        with pytest.raises(BadConfig, match=r"escalation\.mode: holdback.* for 0 tiers, .* or use mode: buffer"):
            check_holdback(Escalation(mode="holdback"), found)


def test_the_start_is_refused():
    assert load_artefact(pocket(mode="holdback"))
    with pytest.raises(BadConfig, match="holdback_tokens: 17, expected 16"):
        load_artefact(pocket(mode="holdback", holdback_tokens=17))


@pytest.mark.parametrize(
    "mode, more, certificate",
    [
        ("buffer", {}, "valid"),
        ("buffer", {"stream": True}, "valid"),
        ("holdback", {}, "valid"),
        ("holdback", {"stream": True}, "valid"),  # by a certificate of its own
        ("buffer", {"n": 2}, ""),  # several answers are given out unseen
    ],
)
def test_what_is_promised_of_a_request(mode, more, certificate):
    decided = decide(pocket(mode=mode), ASK | more)
    assert decided.certificate == certificate and (decided.judge is None) == (not certificate)


def test_streams_under_holdback_are_covered_only_by_a_certificate_of_their_own():
    config = pocket(mode="holdback")
    artefact = load_artefact(config)
    rest = {k: v for k, v in artefact.manifest["certificates"].items() if not k.endswith(":holdback")}
    without = replace(artefact, manifest={**artefact.manifest, "certificates": rest})
    made = Router(config, without, dict.fromkeys(config.names, len))
    states = [made.decide(parse("chat/completions", json.dumps(ASK | {"stream": s}).encode())).certificate for s in (True, False)]
    assert states == ["uncovered", "valid"] and made.flows.promises.worst("quality") == "none"


def test_streams_are_not_begun_side_by_side_nor_compared(posterior):
    ladder, served = make_ladder(200), TrainedJudge(NAMES, None, None, Rule("cascade", 0.02), posterior, (0, 1, 2), early=True)
    made = [replace(served, prior=ladder.prior[i], cost=ladder.guessed[i]) for i in range(200)]
    assert {len(one.first()) for one in made} == {1}
    assert {len(replace(one, early=False).first()) for one in made} == {1, 2}


@pytest.mark.parametrize("price", [0.02, 0.2])
def test_what_is_played_of_streams_is_what_is_served(posterior, price):
    """Which a certificate of streams rests on: short answers are judged whole, long ones by their first tokens."""
    ladder = make_ladder(200, seed=5)
    rows = Rows(ladder.prior, ladder.guessed, ladder.seen, ladder.y, ladder.costs)
    played = play(States(posterior, rows, early=True), plan(posterior, price, all_tiers(3, False, comparable=False)))
    long = 0
    for i in range(200):
        served = TrainedJudge(
            NAMES, ladder.prior[i], ladder.guessed[i], Rule("cascade", price), posterior, (0, 1, 2), False, True
        )
        answers, given_up = {}, set()
        while isinstance(made := served.step(answers), AskTiers):
            given_up |= {tier for tier, reply in answers.items() if reply.partial}
            (k,) = made.tiers
            answers = {t: r for t, r in answers.items() if t not in given_up}
            answers[NAMES[k]] = streamed(ladder.answers[i][k], NAMES[k])
        long += answers[NAMES[made.tier]].partial
        assert (made.tier, made.chance) == (played.tier[i], pytest.approx(played.chance[i]))
    assert 0 < long < 200


def streamed(evidence, tier):
    """An answer as holdback sees it after 16 tokens."""
    long = evidence.output_tokens > 16
    return Reply(
        Call(tier, tier, "attempt", {}),
        evidence.answer,
        "" if long else "stop",
        Usage(9, 0 if long else evidence.output_tokens),
        evidence.logprobs,
        evidence.first_margin,
        partial=long,
    )


def test_many_tokens_in_one_chunk_do_not_make_a_long_answer_a_short_one(posterior):
    served = TrainedJudge(NAMES, np.array([0.5, 0.6, 0.9]), np.ones(3), Rule("cascade", 0.2), posterior, (0, 1, 2), early=True)
    sure = {"logprobs": (-0.001,) * 16 + (-4.0,) * 30, "first_margin": 3.0}
    cut, burst = (Reply(Call("a", "small", "attempt", {}), "42", "stop", partial=p, **sure) for p in (True, False))
    assert served.step({"small": burst}) == served.step({"small": cut})
    assert not served.is_long({"small": replace(cut, partial=False, logprobs=(-0.1,) * 16)})


def test_a_plain_completion_is_given_out_unseen_so_it_is_routed_and_nothing_is_promised():
    body = {"model": "auto", "temperature": 0, "prompt": "What is 7 plus 5?"}
    decided, chat = decide(pocket(mode="buffer"), body, "completions"), decide(pocket(mode="pre"), ASK)
    assert decided.certificate == "" and decided.judge is None and decided.tier == chat.tier
