"""Whatever bytes come in, a request is read or refused: no other exception, and JSON that every tier can read goes out."""

import json

import pytest
from fuzzing import CHATS, COMPLETIONS, cases, raw_json, router
from hypothesis import event, given
from hypothesis import strategies as st

from router.choose_flow import one_call
from router.decide.sessions import key_of
from router.delegate.hidden_turns import HiddenTurns, with_recalled
from router.errors import RequestFailed
from router.request import server_tools, wire
from router.types import Reply, Step, Usage

CHAT, TEXT = "chat/completions", "completions"
ANSWERS = ("42", '{"plan": [{"task": "add", "context": ["c1"]}]}', "", '{"a": 1}', "[" * 5_000, "{{t1}} {{s1}}")


def decided(path, raw):
    """What an ingress does with a body before a tier is asked; None: refused."""
    try:
        asked = wire.parse(path, raw)
        session = key_of(asked.body, None, "owner")
        asked, recalled = HiddenTurns().recall("owner", asked)
        decision = router().decide(asked, "small")
        flow = router().flow(asked, decision).steps
        if recalled and path == CHAT:
            flow = with_recalled(flow or one_call(decision.tier, server_tools.without(asked.body), {}), recalled)
    except RequestFailed as error:
        assert 400 <= error.status < 500
        json.dumps(error.body(), ensure_ascii=False).encode()
        return None
    assert decision.tier in router().names and (session is None or len(session) == 64)
    return asked, decision, flow


def readable(body):
    """JSON without what RFC 8259 has not: NaN, Infinity, lone surrogates. Not deeper than tiers can read."""
    assert json.loads(json.dumps(body, ensure_ascii=False, allow_nan=False).encode()) == body


def driven(flow, answer, most=60):
    """The flow to its end, every call answered with the same text."""
    sent = None
    try:
        for _ in range(most):
            step = flow.send(sent)
            assert isinstance(step, Step)
            sent = []
            for call in step.start:
                readable(call.body)
                sent.append(Reply(call, answer, "stop", Usage(9, 4), (-0.1, -0.2), 0.5))
    except StopIteration as end:
        return end.value
    raise AssertionError(f"no end after {most} steps")


@given(st.sampled_from([CHAT, TEXT]), st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused(path, raw):
    cases["any bytes"] += 1
    decided(path, raw)


@pytest.mark.slow
@given(raw_json(CHATS))
def test_any_chat_is_read_or_refused(raw):
    cases["chats"] += 1
    if found := decided(CHAT, raw):
        readable(wire.forwarded(found[0].body, found[1].tier))


@pytest.mark.slow
@given(raw_json(COMPLETIONS))
def test_any_completion_is_read_or_refused(raw):
    cases["completions"] += 1
    if found := decided(TEXT, raw):
        readable(wire.forwarded(found[0].body, found[1].tier))
        assert found[2] is None


@pytest.mark.slow
@given(raw_json(CHATS), st.sampled_from(ANSWERS))
def test_the_flow_of_any_chat_comes_to_an_end(raw, answer):
    cases["flows"] += 1
    found = decided(CHAT, raw)
    event("refused" if found is None else "a flow" if found[2] else "one call")
    if found and found[2]:
        assert driven(found[2], answer) is not None
