"""Code of smaller tiers against the client's tests, through a real server: real code is run, and drafts do not leak."""

import openai
import pytest
from live import OneFlow, ladder, serving
from scripted_tier import Said, ScriptedTier

from router.cascade.flow import AcceptAny, Cascade

WRONG = "```python\ndef double(n):\n    return n + 2\n```"
RIGHT = "```python\ndef double(n):\n    return 2 * n\n```"
TESTS = "assert double(2) == 4 and double(5) == 10"
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "write double"}]}


def tiers(small):
    said = {"small": small, "medium": "no code here", "large": RIGHT}
    return {name: ScriptedTier(name, lambda body, text=text: Said(text)) for name, text in said.items()}


def flow(router, request, decided):
    names = ["small", "large"]
    return Cascade(request.body, names, AcceptAny(), router.config.escalation, request.stream, tests=request.tests).run(["small"])


def ask(made, stream, tests=TESTS, check="sandbox:passes", **settings):
    """(text, outcomes of the calls, bodies that tiers were sent)"""
    router = OneFlow(ladder(escalation={"tests": check, **settings}), flow)
    with serving(router, made) as url, openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        body = {**CHAT, "extra_body": {"stepdown": {"tests": tests}}}
        if not stream:
            answer = client.chat.completions.create(**body)
            text, usage = answer.choices[0].message.content, answer.usage
        else:
            text, usage = "", None
            for chunk in client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}):
                text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                usage = chunk.usage or usage
    return text, {call["tier"]: call["outcome"] for call in usage.model_extra["stepdown"]["calls"]}


@pytest.mark.parametrize("stream", [False, True])
def test_code_that_passes_is_the_answer(stream):
    assert ask(tiers(RIGHT), stream) == (RIGHT, {"small": "accepted"})


@pytest.mark.parametrize("stream", [False, True])
def test_code_that_fails_goes_up_and_not_a_byte_of_it_is_seen(stream):
    assert ask(tiers(WRONG), stream) == (RIGHT, {"small": "tests failed", "large": "accepted"})


@pytest.mark.parametrize("check", ["sandbox:slow", "sandbox:broken"])
def test_what_the_sandbox_cannot_tell_is_no_evidence(check):
    assert ask(tiers(WRONG), False, check=check, tests_timeout_s=0.2) == (WRONG, {"small": "accepted"})


def test_an_answer_without_code_is_no_evidence():
    assert ask(tiers("I would double it."), False) == ("I would double it.", {"small": "accepted"})
