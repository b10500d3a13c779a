"""What clients are told about tokens: by which they loop over chunks, and by which they shorten their conversations."""

import json

import httpx
import openai
import pytest
from delegation import CHAT, LONG, MAP, tiers
from live import OneFlow, ladder, serving
from planning import PLANNING
from scripted_tier import Said, ScriptedTier

from router.engine import Router
from router.types import Call, Commit, Step

pytestmark = pytest.mark.slow

ASKED = {"include_usage": True}
TEXT = {"model": "auto", "prompt": "one two three"}
SIMPLE = {"model": "auto", "messages": [{"role": "user", "content": "one two three"}]}


def words(text: str) -> int:
    return len(text.split())


def escalated(router, request, decided):
    def flow():
        yield Step((Call("first", "small", "attempt", request.body),))
        yield Step((Call("last", "large", "attempt", request.body, hold=1),), outcomes={"first": "low confidence"})
        return Commit("last", outcomes={"last": "accepted"})

    return flow()


def cascade(**server):
    made = {name: ScriptedTier(name, lambda body: Said("four five six seven")) for name in ("small", "medium", "large")}
    return OneFlow(ladder(server=server), escalated), made


def plain(**server):
    config = ladder(server=server)
    made = {name: ScriptedTier(name, lambda body: Said("four five six seven")) for name in config.names}
    return Router(config, None, dict.fromkeys(config.names, words)), made


def planned(final=Said("plain answer"), plan=MAP, **server):
    config = ladder(delegation={**PLANNING, "deadline_s": 10.0}, server=server)
    return Router(config, None, dict.fromkeys(config.names, words)), tiers(plan=plan, final=final)


FLOWS = {"plain": (plain, SIMPLE), "cascade": (cascade, SIMPLE), "delegation": (planned, CHAT)}


def chunks(url, body, **more):
    client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
    return list(client.chat.completions.create(**body, stream=True, **more))


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}])
def test_the_commonest_loop_over_a_stream_meets_no_chunk_without_choices(flow, options):
    make, body = FLOWS[flow]
    more = {} if options is None else {"stream_options": options}
    with serving(*make()) as url:
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks(url, body, **more))
    assert said


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("server, more", [({}, {"stream_options": ASKED}), ({"stream_usage": "always"}, {})])
def test_the_usage_comes_where_it_is_asked_for_or_always_sent(flow, server, more):
    make, body = FLOWS[flow]
    with serving(*make(**server)) as url:
        last = chunks(url, body, **more)[-1]
    assert last.choices == [] and last.usage.completion_tokens


def test_it_may_be_declined_where_it_is_always_sent():
    with serving(*plain(stream_usage="always")) as url:
        assert all(chunk.choices for chunk in chunks(url, SIMPLE, stream_options={"include_usage": False}))


class Odd(ScriptedTier):
    """An upstream whose stream begins with a chunk without choices, as some report filters or send signs of life."""

    async def stream(self, *given, **more):
        yield b'data: {"id": "1", "object": "chat.completion.chunk", "choices": [ ], "prompt_filter_results": []}\n\n'
        async for item in super().stream(*given, **more):
            yield item


def test_an_upstreams_own_chunks_without_choices_do_not_reach_the_client():
    router, made = plain()
    made["large"] = Odd("large", lambda body: Said("four five"))
    with serving(router, made) as url:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks(url, SIMPLE)) == "four five"


@pytest.mark.parametrize("value", ["yes", 1, [True]])
def test_include_usage_is_true_or_false(value):
    with serving(*plain()) as url:
        body = {**SIMPLE, "stream": True, "stream_options": {"include_usage": value}}
        refused = httpx.post(f"{url}/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream_options")


@pytest.mark.parametrize("stream", [False, True])
def test_after_an_escalation_the_top_is_the_accepted_calls_own(stream):
    router, made = cascade()
    made["large"] = ScriptedTier("large", lambda body: Said("four five six"))
    usage = told(router, made, SIMPLE, stream)
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 3, 6)
    assert usage["stepdown"]["total"] == {"prompt_tokens": 6, "completion_tokens": 7, "total_tokens": 13}
    assert [call["completion_tokens"] for call in usage["stepdown"]["calls"]] == [4, 3]


@pytest.mark.parametrize("stream", [False, True])
def test_the_sum_may_stand_at_the_top(stream):
    usage = told(*cascade(usage="sum"), SIMPLE, stream)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 8)
    assert usage["stepdown"]["total"]["total_tokens"] == usage["total_tokens"] == 14


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_composed_of_results_counts_the_conversation_and_the_text_that_came(stream):
    usage = told(*planned(), CHAT, stream)
    made = "\n".join(f"{i}. did {i}" for i in range(1, 9))
    assert usage["prompt_tokens"] == words(CHAT["messages"][0]["content"]) and usage["completion_tokens"] == words(made)
    assert usage["stepdown"]["estimated"] and len(usage["stepdown"]["calls"]) == 9


@pytest.mark.parametrize("stream", [False, True])
def test_a_merged_answer_counts_what_the_client_has_not_what_the_merging_call_read(stream):
    plan = json.dumps({"plan": [{"each": "c1"}], "merge": True})
    usage = told(*planned(Said("all: {{t1}}"), plan), {**CHAT, "messages": [{"role": "user", "content": LONG}]}, stream)
    assert usage["stepdown"]["delegation"] == "done"
    assert usage["prompt_tokens"] == words(LONG)  # of which the merging call read a few words of each part
    assert usage["completion_tokens"] == 1 + 8 * 3  # with the results in the reference's place


class Detailed(ScriptedTier):
    def usage(self, body, made):
        details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}
        return super().usage(body, made) | details


@pytest.mark.parametrize("stream", [False, True])
def test_details_of_the_accepted_call_are_passed_on(stream):
    router, made = cascade()
    made["large"] = Detailed("large", lambda body: Said("four"))
    usage = told(router, made, SIMPLE, stream)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 2}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 1}


def told(router, made, body, stream):
    """The usage as it is sent."""
    asked = {"stream": True, "stream_options": ASKED} if stream else {}
    with serving(router, made) as url:
        answer = httpx.post(f"{url}/chat/completions", json={**body, **asked}, timeout=30)
    return json.loads(answer.text.split("\n\n")[-3].removeprefix("data: ") if stream else answer.text)["usage"]
