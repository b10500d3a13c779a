"""Which answers may be looked at, and by how much of them: holdback fits its artefact, and only one chat answer is looked at."""

import json

import pytest
from synthetic import make_ladder

from router.config import Config, Escalation, load_config
from router.engine import Router, load_artefact
from router.errors import BadConfig
from router.judging import check_holdback
from router.wire import parse

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


def test_holdback_wants_heads_on_first_tokens():
    without = make_ladder(200, logprobs=False).posterior()
    for found in (None, without):
        with pytest.raises(BadConfig, match=r"escalation\.mode: holdback.* for 0 tiers, .* or use mode: buffer"):
            check_holdback(Escalation(mode="holdback"), found)


def test_the_start_is_refused():
    assert load_artefact(pocket(mode="holdback"))
    with pytest.raises(BadConfig, match="holdback_tokens: 17, expected 16"):
        load_artefact(pocket(mode="holdback", holdback_tokens=17))


@pytest.mark.parametrize("mode, more, certificate", [
    ("buffer", {}, "valid"), ("buffer", {"stream": True}, "valid"),
    ("holdback", {}, "valid"), ("holdback", {"stream": True}, "uncovered"),
    ("buffer", {"n": 2}, ""),  # several answers are given out unseen
])  # fmt: skip
def test_what_is_promised_of_a_request(mode, more, certificate):
    decided = decide(pocket(mode=mode), ASK | more)
    assert decided.certificate == certificate and (decided.ladder is None) == (not certificate)


def test_a_plain_completion_is_given_out_unseen_so_it_is_routed_and_nothing_is_promised():
    body = {"model": "auto", "temperature": 0, "prompt": "What is 7 plus 5?"}
    decided, chat = decide(pocket(mode="buffer"), body, "completions"), decide(pocket(mode="pre"), ASK)
    assert decided.certificate == "" and decided.ladder is None and decided.tier == chat.tier
