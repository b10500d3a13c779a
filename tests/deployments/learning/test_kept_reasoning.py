"""Kept answers have their reasoning beside the answer, and clients get it only where they may."""

import json

import pytest

from deployments.learning.filling.asking import read
from deployments.learning.kept.collected import Said, made
from deployments.learning.kept.stored_json import completion_json
from deployments.tiers.tier import event

KEPT = {"role": "assistant", "content": "42", "reasoning": "41 or"}


def token(text, logprob):
    return {"token": text, "logprob": logprob}


def piece(*tokens, finish=None, **delta):
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": {"content": [*tokens]}}


STREAMS = {
    "vLLM's": [piece(token("41 or", -9.0), reasoning="41 or"), piece(token("42", -0.5), content="42"), piece(finish="stop")],
    "another's": [
        piece(token("41 or", -9.0), reasoning_content="41 or"),
        piece(token("42", -0.5), content="42", reasoning_content=None),
        piece(finish="stop"),
    ],
    "in the text": [
        piece(token("<think>", -1.0), content="<think>"),
        piece(token("41 or", -9.0), content="41 or"),
        piece(token("</think>", -22.0), content="</think>"),
        piece(token("42", -0.5), content="42"),
        piece(finish="stop"),
    ],
}


@pytest.mark.parametrize("choices", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("read_later", [False, True])
def test_a_stream_is_kept_with_its_reasoning_beside(choices, read_later):
    said = Said()
    for choice in choices:
        said.event(event({"choices": [choice]})) if read_later else said.chunk(choice, 10)
    found = made(said)
    assert (found.message, found.finish) == (KEPT, "stop")
    assert (found.signals["mean_logprob"], found.signals["logprob_tokens"]) == (-0.5, 1)


@pytest.mark.parametrize("message", [{"content": "42", "reasoning": "41 or"}, {"content": "<think>41 or</think>42"}])
def test_a_document_too(message):
    said = Said()
    tokens = [token("41 or", -9.0), token("</think>", -22.0), token("42", -0.5)]
    choice = {"message": {"role": "assistant", **message}, "finish_reason": "stop", "logprobs": {"content": tokens}}
    said.document(choice, 10)
    assert made(said).message == KEPT and made(said).signals["min_logprob"] == -0.5
    raw = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 3}}).encode()
    filled = read(raw, "small")
    assert filled.message == KEPT and filled.signals["min_logprob"] == -0.5 and filled.output_tokens == 3


def test_what_grows_too_large_keeps_nothing(monkeypatch):
    monkeypatch.setattr("deployments.learning.kept.collected.LARGEST", 15)
    said = Said()
    for choice in STREAMS["vLLM's"]:
        said.chunk(choice, 10)
    assert said.choices == [] and not said.reader.tokens and not said.reader.text


@pytest.mark.parametrize("answer", [KEPT, {"role": "assistant", "content": "<think>41 or</think>42"}])
def test_a_stored_completion_hides_what_the_answer_hid(answer):
    names = "id created_s tier trace_id finish input_tokens output_tokens wanted key_id cost_usd consent licence redaction model"
    row = {**dict.fromkeys(names.split(), 1), "answer": json.dumps(answer), "sampling": None, "metadata": None, "tools": None}
    row["expires_s"] = None
    assert completion_json(row)["choices"][0]["message"] == answer
    assert completion_json(row, hides=True)["choices"][0]["message"] == {"role": "assistant", "content": "42"}
