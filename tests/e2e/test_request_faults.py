"""Requests that vLLM itself refuses, on the pocket ladder: each is a 400 with a reason, and nobody else notices."""

import json

import httpx
import pytest

pytestmark = pytest.mark.ladder
CHAT = "chat/completions"
USER = [{"role": "user", "content": "What is 2 plus 3?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
NAMED = {"type": "function", "function": {"name": "add"}}
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
REFUSED = {
    "an empty prompt": ("completions", {"prompt": ""}),
    "no tools": (CHAT, {"tools": []}),
    "options of a stream without a stream": (CHAT, {"stream_options": {"include_usage": True}}),
    "alternatives without log-probabilities": (CHAT, {"top_logprobs": 2}),
    "continue and begin a message": (CHAT, {"continue_final_message": True, "add_generation_prompt": True}),
    "tool calls that are a number": (CHAT, {"messages": [*USER, {"role": "assistant", "tool_calls": 5}, *USER]}),
    "an argument of the template given twice": (CHAT, {"chat_template_kwargs": {"conversation": 5}}),
    "a grammar without words": (CHAT, {"structured_outputs": {"grammar": "root ::= root"}}),
    "a choice of no tools": (CHAT, {"tool_choice": "auto"}),
    "a schema that is not there": (CHAT, {"response_format": {"type": "json_schema"}}),
    # of the same kind
    "a grammar that is none": (CHAT, {"structured_outputs": {"grammar": "root ::= ((("}}),
    "a regular expression that is none": (CHAT, {"structured_outputs": {"regex": "(["}}),
    "a schema that is none": (CHAT, {"structured_outputs": {"json": {"type": "nothing"}}}),
    "a structure that is a number": (CHAT, {"structured_outputs": 5}),
    "a tool without a function": (CHAT, {"tools": [{"type": "function"}], "tool_choice": NAMED}),
    "a tool that is not offered": (CHAT, {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}}),
    "more tokens than a number holds": (CHAT, {"min_tokens": 2**70}),
    "tokens to stop at that are none": (CHAT, {"stop_token_ids": [2**70]}),
    "tokens that the model lacks": (CHAT, {"allowed_token_ids": [10**9]}),
    "a bias for a token that is none": (CHAT, {"logit_bias": {"a": 1}}),
    "a penalty of nothing": (CHAT, {"repetition_penalty": 0}),
    "a share above one": (CHAT, {"top_p": 5}),
    "beams and a stream": (CHAT, {"use_beam_search": True, "n": 2, "temperature": -3}),
    "a template of the client": (CHAT, {"chat_template": "{{ raise_exception('no') }}"}),
    "an extra that is a number": (CHAT, {"vllm_xargs": 5}),
    "repeating that is negative": (CHAT, {"repetition_detection": {"max_pattern_size": -1}}),
    "a picture that is none": (CHAT, {"messages": [PICTURE]}),
}
"""what is sent beside the model and a message"""

MAY_BE_TAKEN = {
    "options of a stream without a stream",  # a cascade streams inside
    "alternatives without log-probabilities",  # a cascade asks for them
    "a choice of no tools",  # a cascade may offer a tool of its own
    "tokens that the model lacks",
    "more tokens than a number holds",
    "tokens to stop at that are none",
    "repeating that is negative",
    "a template of the client",
    "an extra that is a number",
}
"""Where vLLM or the endpoint may answer; never with 5xx all the same."""


def post(ladder, path, body):
    url, key = ladder
    return httpx.post(f"{url}/{path}", json=body, headers={"authorization": f"Bearer {key}"}, timeout=120)


def body_of(path, model, odd, stream):
    messages = {"messages": USER} if path == CHAT else {}
    return {"model": model, "max_tokens": 8, **messages, **odd, **({"stream": True} if stream else {})}


def good(ladder, model):
    """A good request is answered by the tier that it names, or by one that was chosen freely."""
    answer = post(ladder, CHAT, {"model": model, "messages": USER, "max_tokens": 8})
    assert answer.status_code == 200, answer.text
    assert "x-stepdown-degraded" not in answer.headers
    assert model == "auto" or answer.headers["x-stepdown-tier"] == model


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["auto", "small"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_vllm_refuses_is_a_400_with_a_reason_and_the_next_request_is_answered(ladder, name, model, stream):
    path, odd = REFUSED[name]
    if stream and "stream_options" in odd:
        odd = {**odd, "stream_options": {"include_usage": 5}}
    answer = post(ladder, path, body_of(path, model, odd, stream))
    allowed = (200, 400) if name in MAY_BE_TAKEN else (400,)
    assert answer.status_code in allowed, answer.text
    if answer.status_code == 400:
        assert json.loads(answer.text)["error"]["message"]
    good(ladder, model)


def test_ten_bad_requests_of_each_way_leave_every_tier_open(ladder):
    """Three would have opened a circuit, five in a row a replica's health check."""
    for model in ("small", "medium", "large", "auto"):
        for name in ("an empty prompt", "no tools", "tool calls that are a number", "an argument of the template given twice"):
            path, odd = REFUSED[name]
            for _ in range(10):
                answer = post(ladder, path, body_of(path, model, odd, stream=False))
                assert answer.status_code == 400, (name, answer.text)
    for model in ("small", "medium", "large", "auto"):
        good(ladder, model)
