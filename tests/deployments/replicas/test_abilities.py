"""What a replica asks its engine before it is ready, and what it makes of the answers."""

import asyncio
import base64
import json
import logging

import pytest

from deployments.replicas import abilities
from deployments.replicas.abilities import PICTURE, TRY_S, bodies, tried
from deployments.replicas.request_faults import Refusal
from router.decide.abilities import TRIED

pytestmark = pytest.mark.slow

NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template if the "
    "tokenizer does not define one."
)
NO_PARSER = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
REQUIRED = 'tool_choice="required" requires --tool-call-parser to be set'
TOO_MANY = "Requested sample logprobs of 2, which is greater than max allowed: 0"
ALL = dict.fromkeys(TRIED, "")


def kind_of(path, body) -> str:
    """Which ability a request tries."""
    if body.get("logprobs") is not None:
        return "logprobs"
    if body.get("response_format"):
        return "json"
    if body.get("tools"):
        return "tool_choice" if body["tool_choice"] == "required" else "tools"
    if path == "completions":
        return "completions"
    return "images" if isinstance(body["messages"][0]["content"], list) else "chat"


class Engine:
    """Answers with a text, or with what `faults` says for an ability: an error, a refusal, or seconds of silence."""

    def __init__(self, **faults):
        self.faults, self.asked, self.closed = faults, [], 0

    async def ask(self, path, body):
        kind = kind_of(path, body)
        self.asked.append((kind, path, body))
        fault = self.faults.get(kind)
        if callable(fault):
            fault = fault(path)
        try:
            if isinstance(fault, Exception):
                raise fault
            if isinstance(fault, float):
                await asyncio.sleep(fault)
            yield fault if isinstance(fault, Refusal) else "an answer"
        finally:
            self.closed += 1

    @property
    def kinds(self):
        return [kind for kind, _, _ in self.asked]


def refuses(message, status=400) -> Refusal:
    return Refusal(status, json.dumps({"error": {"message": message, "code": status}}))


def found(engine) -> dict[str, str]:
    return asyncio.run(tried("small", engine.ask))


def test_each_ability_is_tried_once_by_a_request_of_a_few_tokens():
    engine = Engine()
    assert found(engine) == ALL
    assert sorted(engine.kinds) == sorted(TRIED) and engine.closed == len(TRIED)
    assert all(body["max_tokens"] <= abilities.CALL_TOKENS and body["model"] == "small" for _, _, body in engine.asked)


def test_the_picture_is_one():
    assert base64.b64decode(PICTURE.partition(",")[2], validate=True).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "ability, message, told",
    [
        ("tools", NO_PARSER, "it has no tool parser"),
        ("tool_choice", REQUIRED, "it has no tool parser"),
        ("logprobs", TOO_MANY, "engine_kwargs.max_logprobs is less than 2"),
        ("images", "/models/small is not a multimodal model", "its model reads text only"),
        ("images", "At most 0 image(s) may be provided in one prompt.", "its engine takes no picture"),
        ("json", "guided decoding needs a tokenizer", "guided decoding needs a tokenizer"),
        ("tools", "x" * 5000, "x" * abilities.REASON_CHARS),
    ],
)
def test_what_vllm_refuses_the_tier_cannot_and_the_rest_is_tried_all_the_same(ability, message, told, caplog):
    engine = Engine(**{ability: refuses(message)})
    report = found(engine)
    assert report.pop(ability).startswith(told) and report == {other: "" for other in TRIED if other != ability}
    assert f"tier small, {ability}: {told[:20]}" in caplog.text


def test_without_a_chat_template_a_tier_completes_texts_and_nothing_else():
    engine = Engine(**dict.fromkeys(("chat", "tools", "tool_choice", "images"), refuses(NO_TEMPLATE)))
    report = found(engine)
    assert {need for need, why in report.items() if not why} == {"completions", "json", "logprobs"}
    assert all("no chat template" in report[need] for need in ("chat", "tools", "tool_choice", "images"))
    assert {path for kind, path, _ in engine.asked if kind != "chat"} == {"completions"}


def test_a_model_that_generates_nothing_can_do_nothing():
    nothing = refuses("This model does not support the 'generate' task. The endpoint is not available for this model.")
    report = found(Engine(**dict.fromkeys(TRIED, nothing)))
    assert set(report) == set(TRIED) and all("'generate'" in why for why in report.values())


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("the engine stumbled"),
        ValueError("so did our own code"),
        refuses("Internal server error", 500),
        refuses("later", 503),
        refuses("too many", 429),
        refuses("This model's maximum context length is 16 tokens. However, you requested 90"),
        refuses("The prompt is longer than the maximum model length of 16. Make sure that `max_model_len` is no smaller"),
    ],
    ids=repr,
)
def test_what_says_nothing_of_an_ability_denies_none(fault, caplog):
    with caplog.at_level(logging.WARNING, "stepdown"):
        report = found(Engine(json=fault, tools=fault))
    assert report == {need: "" for need in TRIED if need not in ("json", "tools")}
    assert "whether tier small can do json is not known" in caplog.text


def test_a_backend_that_is_not_installed_denies_the_ability():
    report = found(Engine(json=ModuleNotFoundError("No module named 'outlines'")))
    assert report["json"] == "ModuleNotFoundError: No module named 'outlines'" and report["tools"] == ""


def test_a_chat_that_failed_for_another_reason_does_not_keep_the_rest_from_being_tried():
    assert found(Engine(chat=RuntimeError("a stumble"))) == {need: "" for need in TRIED if need != "chat"}


def test_after_one_silence_no_further_time_is_spent(monkeypatch, caplog):
    monkeypatch.setattr(abilities, "TRY_S", 0.01)
    engine = Engine(logprobs=5.0)
    report = found(engine)
    assert report == {"completions": "", "chat": ""} and engine.kinds[-1] == "logprobs" and engine.closed == 3
    assert "what tier small can do is not known" in caplog.text


def test_the_whole_takes_a_bounded_time():
    assert TRY_S <= 60 and len(bodies("small")) == len(TRIED)
