"""What is asked afterwards: of which tiers, with which body, at about what cost."""

import pytest

from router.flywheel.grading import filling
from router.flywheel.served import Answer, Served

MESSAGES = ({"role": "user", "content": "hello"},)


def served(sampling=None, answers=("small",), role="answer"):
    made = {tier: Answer(tier, role, {"content": "hi"}, output_tokens=7) for tier in answers}
    return Served("t", 0.0, "k", "", MESSAGES, "small", made, sampling=sampling or {}, tools=({"type": "function"},))


def test_tiers_without_an_answer_are_asked_unless_they_cannot():
    answers = filling.comparable_answers(served(), True)
    assert filling.to_ask(["small", "medium", "large"], answers, {"medium": "takes no tools"}) == ["large"]


def test_where_the_conversation_was_changed_all_are_asked_also_the_one_that_answered():
    assert filling.to_ask(["small", "large"], filling.comparable_answers(served(), False), {}) == ["small", "large"]
    again = filling.comparable_answers(served(role="fill"), False)
    assert filling.to_ask(["small", "large"], again, {}) == ["large"]


def test_the_body_is_the_clients_without_what_only_concerned_its_reply():
    sampling = {"max_tokens": 9, "temperature": 0.2, "stream": True, "n": 2, "logprobs": True, "stepdown": {"tests": "x"}}
    body = filling.plain_body(served(sampling))
    assert body["messages"] == list(MESSAGES) and body["tools"] and body["max_tokens"] == 9 and body["temperature"] == 0.2
    assert body["stream"] is False and not body.keys() & {"n", "logprobs", "stepdown", "stream_options"}
    assert filling.tests_of(served(sampling)) == "x"


@pytest.mark.parametrize("own", [None, "x", {"tests": 7}, {}])
def test_odd_tests_are_none(own):
    assert filling.tests_of(served({"stepdown": own})) == ""


@pytest.mark.parametrize("given, heat", [({}, 0.7), ({"temperature": 0}, 0.7), ({"temperature": 1.2}, 1.2)])
def test_a_second_sample_is_drawn_anew(given, heat):
    body = filling.second_body({"messages": [], "seed": 1, "top_k": 1, **given})
    assert body["temperature"] == heat and "seed" not in body and ("top_k" in body) == (heat == 1.2)


@pytest.mark.parametrize("body, tokens", [({}, 7), ({"max_tokens": 3}, 3), ({"max_tokens": 99}, 7)])
def test_an_answer_is_expected_to_be_as_long_as_the_longest_known(body, tokens):
    assert filling.expected_usd((1.0, 10.0), 5, body, served().answers) == 5 + 10 * tokens


def test_nothing_is_known_of_the_log_probabilities_of_an_odd_row():
    odd = [None, *(Answer("large", "fill", {}, signals={"mean_logprob": value}) for value in ("x", None, True))]
    assert [filling.mean_logprob(answer) for answer in odd] == [None] * 4
