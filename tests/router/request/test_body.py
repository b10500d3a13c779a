"""Each field of a body is read by one rule, whoever asks."""

import pytest

from router.request.body import answer_count, answer_limit, beyond_flows, is_text, one_answer_limit, wants_json, with_answer_limit
from router.request.wire import facts, parse

CHAT = {"messages": []}
TEXT = {"prompt": "x"}


@pytest.mark.parametrize(
    "body, limit, field",
    [
        (CHAT, None, "max_tokens"),
        ({**CHAT, "max_tokens": 50}, 50, "max_tokens"),
        ({**CHAT, "max_completion_tokens": 60}, 60, "max_completion_tokens"),
        ({**CHAT, "max_tokens": 90, "max_completion_tokens": 60}, 60, "max_completion_tokens"),
        ({**CHAT, "max_tokens": 50, "max_completion_tokens": 60}, 60, "max_completion_tokens"),
        ({**CHAT, "max_tokens": 50, "max_completion_tokens": 0}, 50, "max_tokens"),
        ({**CHAT, "max_tokens": 50, "max_completion_tokens": None}, 50, "max_tokens"),
        ({**CHAT, "max_tokens": 0}, None, "max_tokens"),
        ({**TEXT, "max_tokens": 50, "max_completion_tokens": 60}, 50, "max_tokens"),
        ({**TEXT, "max_completion_tokens": 60}, None, "max_tokens"),
    ],
)
def test_the_newer_limit_counts_for_a_chat_and_a_completion_knows_only_the_older(body, limit, field):
    assert answer_limit(body) == limit
    assert with_answer_limit(body, 7)[field] == 7 and answer_limit(with_answer_limit(body, 7)) == 7


@pytest.mark.parametrize("counts, other", [("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")])
def test_a_tier_is_sent_the_limit_that_counts_and_not_the_other(counts, other):
    raw = b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": 90, "max_completion_tokens": %d}'
    body = parse("chat/completions", raw % (60 if counts == "max_completion_tokens" else 0)).body
    assert other not in body and body[counts] in (60, 90)
    assert one_answer_limit(body) is body


def test_deciding_sees_the_same_limit_as_everybody():
    raw = b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": 90, "max_completion_tokens": 60}'
    assert facts(parse("chat/completions", raw)).answer_tokens == 60


@pytest.mark.parametrize(
    "body, count",
    [
        (CHAT, 1),
        ({**CHAT, "n": 3}, 3),
        ({**TEXT, "best_of": 4, "n": 2}, 4),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [5, 6]}, 1),
        ({"prompt": [[5], [6]]}, 2),
    ],
)
def test_how_many_answers_are_made(body, count):
    assert answer_count(body) == count


@pytest.mark.parametrize(
    "form, wanted", [(None, False), ({"type": "text"}, False), ({"type": "json_object"}, True), ({"type": "json_schema"}, True)]
)
def test_whether_json_is_wanted(form, wanted):
    assert wants_json({**CHAT, "response_format": form}) is wanted


@pytest.mark.parametrize(
    "more, why", [({}, ""), ({"n": 2}, "several"), ({"logprobs": True}, "log-prob"), ({"echo": True}, "echo")]
)
def test_what_an_answer_made_of_several_calls_cannot_have(more, why):
    assert beyond_flows({**CHAT, **more}).startswith(why) and bool(beyond_flows({**CHAT, **more})) == bool(why)


def test_a_picture_is_no_text():
    assert is_text("x") and is_text([{"type": "text", "text": "x"}]) and not is_text([{"type": "image_url"}])
