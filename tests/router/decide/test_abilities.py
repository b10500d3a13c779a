"""What a tier was found unable to do keeps requests that need it away, with the reason; what was promised stops the start."""

import json

import pytest

from router.config import SHIPPED, Config, load_config
from router.decide.abilities import CANNOT, broken_promises
from router.engine import Router, load_artefact
from router.errors import ContextTooLong, NoTierFits
from router.request.wire import facts, parse

NAMES = ["small", "medium", "large"]
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
USER = {"role": "user", "content": "What is 2 plus 3?"}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
NAMED = {"type": "function", "function": {"name": "f"}}
NO_PARSER = "it has no tool parser"


def ladder(**changes) -> Config:
    tiers = [{"name": n, "engine": "echo", "context": 1000, "price": PRICE, **changes.get(n, {})} for n in NAMES]
    return Config.model_validate({"tiers": tiers})


def router(found: dict[str, dict[str, str]], config: Config | None = None) -> Router:
    config = config or ladder()
    made = Router(config, load_artefact(config), dict.fromkeys(config.names, len))
    for tier, report in found.items():
        made.abilities.report(tier, report)
    return made


def chat(model="auto", **more):
    return parse("chat/completions", json.dumps({"model": model, "messages": [USER], **more}).encode())


def text(model="auto", **more):
    return parse("completions", json.dumps({"model": model, "prompt": "hello", **more}).encode())


NEEDING = {
    "a chat": (chat(), "chat"),
    "a completion": (text(), "completions"),
    "tools": (chat(tools=TOOLS), "tools"),
    "a tool that must be called": (chat(tools=TOOLS, tool_choice="required"), "tool_choice"),
    "a named tool": (chat(tools=TOOLS, tool_choice=NAMED), "tool_choice"),
    "JSON": (chat(response_format={"type": "json_object"}), "json"),
    "a schema": (chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}), "json"),
    "a grammar": (chat(structured_outputs={"choice": ["a", "b"]}), "json"),
    "a completion's schema": (text(response_format={"type": "json_object"}), "json"),
    "log-probabilities": (chat(logprobs=True), "logprobs"),
    "a completion's log-probabilities": (text(logprobs=0), "logprobs"),
    "a prompt's log-probabilities": (chat(prompt_logprobs=1), "logprobs"),
}


@pytest.mark.parametrize("case", NEEDING)
def test_a_tier_that_cannot_is_left_out_with_the_reason(case):
    asked, need = NEEDING[case]
    assert need in facts(asked).needs
    decided = router({"large": {need: "so it is"}}).decide(asked)
    assert decided.tier == "medium" and decided.excluded == {"large": f"{CANNOT[need]}: so it is"}


@pytest.mark.parametrize("case", NEEDING)
def test_a_tier_by_name_that_cannot_is_refused_in_our_words(case):
    asked, need = NEEDING[case]
    by_name = type(asked)(asked.path, {**asked.body, "model": "small"})
    with pytest.raises(NoTierFits, match=f"small: {CANNOT[need]}: so it is"):
        router({"small": {need: "so it is"}}).decide(by_name)
    assert router({"large": {need: "so it is"}}).decide(by_name).tier == "small"


@pytest.mark.parametrize(
    "asked",
    [chat(), chat(tools=[]), chat(tools=TOOLS, tool_choice="auto"), chat(logprobs=False), chat(logprobs=None), text()],
    ids=repr,
)
def test_who_does_not_need_it_is_not_kept_away(asked):
    report = dict.fromkeys(set(CANNOT) - facts(asked).needs, "no")
    assert router({"large": report}).decide(asked).excluded == {}


def test_what_the_settings_deny_needs_no_report():
    made = router({"large": {"images": "", "tools": ""}}, ladder(large={"tools": False}))
    assert made.decide(chat(tools=TOOLS)).excluded == {"large": "takes no tools"}
    with pytest.raises(NoTierFits):
        made.decide(parse("chat/completions", json.dumps({"model": "large", "messages": [IMAGE]}).encode()))


def test_what_was_not_tried_is_as_configured():
    assert router({"large": {"chat": ""}}).decide(chat(tools=TOOLS)).tier == "large"
    assert router({}).decide(chat(tools=TOOLS)).tier == "large"


def test_a_later_report_replaces_an_earlier_one():
    made = router({"large": {"tools": NO_PARSER}})
    made.abilities.report("large", {"tools": "", "chat": ""})
    assert made.decide(chat(tools=TOOLS)).tier == "large"


def test_a_word_that_is_no_ability_is_ignored():
    made = router({"large": {"dancing": "two left feet"}})
    assert made.abilities.shown("large") == {"able": [], "unable": {"images": "takes no images"}}


def test_a_prompt_is_too_long_only_for_tiers_that_could_take_it():
    with pytest.raises(ContextTooLong, match="maximum context length is 1000 tokens"):
        router({"large": {"tools": NO_PARSER}}, ladder(large={"context": 9000})).decide(
            chat(tools=TOOLS, messages=[{"role": "user", "content": "word " * 5000}])
        )


def test_the_status_page_gets_both_lists():
    made = router({"large": {"chat": "", "completions": "", "tools": NO_PARSER, "logprobs": ""}})
    shown = made.abilities.shown("large")
    assert shown["able"] == ["chat", "completions", "logprobs"]
    assert shown["unable"] == {"images": "takes no images", "tools": f"takes no tools: {NO_PARSER}"}


# -- promises ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, found, told",
    [
        ({"tools": True}, {"tools": NO_PARSER}, ["tiers.small.tools is true", NO_PARSER, "tool_call_parser", "tools: false"]),
        ({"images": True}, {"images": "its model reads text only"}, ["tiers.small.images is true", "reads text only"]),
        ({"json_mode": True}, {"json": "no grammar"}, ["tiers.small.json_mode is true", "json_mode: false"]),
        ({"tools": True, "images": True}, {"tools": "a", "images": "b"}, ["tiers.small.tools", "tiers.small.images"]),
        ({}, {"tools": NO_PARSER, "json": "no grammar", "images": "text only"}, []),
        ({"tools": False}, {"tools": NO_PARSER}, []),
        ({"tools": True}, {"tools": ""}, []),
        ({"tools": True}, {}, []),
        ({"tools": True}, {"json": "no grammar"}, []),
    ],
)
def test_only_what_the_file_says_itself_is_a_promise(given, found, told):
    said = broken_promises(ladder(small=given).tiers[0], found)
    assert bool(said) == bool(told)
    assert all(word in said for word in told)


def test_a_ladder_needs_one_tier_that_answers_chats():
    report = {"chat": "its tokenizer has no chat template"}
    two = router({"small": report, "medium": report}).abilities
    assert two.no_chat() == ""
    two.report("large", report)
    assert all(name in two.no_chat() for name in NAMES) and "no chat template" in two.no_chat()


# -- cascades ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pocket() -> Config:
    return load_config(SHIPPED / "pocket.yaml")


NONE = {"logprobs": "engine_kwargs.max_logprobs is 0"}


def test_a_cascade_skips_a_tier_without_log_probabilities(pocket):
    plain = router({}, pocket).decide(chat())
    assert plain.judge and plain.excluded == {} and plain.tier == "small"
    made = router({"small": NONE}, pocket)
    decided = made.decide(chat())
    assert decided.tier != "small" and "gives no log-probabilities" in decided.excluded["small"]
    assert made.decide(chat(n=2)).excluded == {}  # several answers are not judged, so nobody needs them
    assert made.decide(text()).excluded == {}


def test_the_largest_tiers_answers_are_not_judged(pocket):
    made = router({"large": NONE, "medium": NONE}, pocket)
    decided = made.decide(chat())
    assert list(decided.excluded) == ["medium"] and decided.judge and decided.first == ("small",)
    steps = made.flow(chat(), decided).steps
    small = next(steps).start[0]
    assert small.tier == "small" and small.body["logprobs"]
    larger = steps.send([_failed(small)]).start[0]
    assert larger.tier == "large" and not {"logprobs", "top_logprobs"} & set(larger.body)


def _failed(call):
    from router.errors import NoReplica
    from router.types import Reply

    return Reply(call, error=NoReplica("small", "gone"))


def test_a_tier_without_chat_works_on_no_subtask(pocket):
    made = router({"small": {"chat": "its tokenizer has no chat template"}}, pocket)
    decided = made.decide(chat("large"))
    assert [rung.name for rung in made.flows.rungs_below(decided)] == ["medium", "large"]
