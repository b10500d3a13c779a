"""Reasoning at the endpoint: it passes or is hidden, ends a hold only where the answer is taken anyhow, and is no answer."""

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import ladder

from deployments.endpoint.accounts import without_books
from deployments.endpoint.flow_driver import FlowDriver
from deployments.endpoint.held_answer import HeldAnswer
from deployments.endpoint.ongoing_request import OngoingRequest
from deployments.endpoint.openai_json import read_answer
from deployments.endpoint.plain_call import PlainCall
from deployments.tiers.tier import DONE, Tier, event
from router.cascade.checks import THOUGHT_TOO_LONG
from router.cascade.flow import Cascade
from router.choose_flow import one_call
from router.config import Escalation, Server
from router.costs.prices import prices
from router.limits.key_limits import Key
from router.tier_settings import Reasoning
from router.types import Accept, Call, Commit, Decision, GoUp, Request, Step

CONFIG = ladder(("small", "large"))
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "six times seven"}]}
STREAM = {**CHAT, "stream": True}
USAGE = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 6}}


def words(text: str) -> int:
    return len(text.split())


class Raw(Tier):
    """Sends these events, or this document, as they are, and notes how many were read."""

    def __init__(self, name, *events, document=None):
        self.name, self.events, self.document = name, events, document
        self.read = 0

    async def complete(self, path, body, reading=None, call_id=""):
        return json.dumps(self.document).encode()

    async def stream(self, path, body, reading=None, call_id=""):
        for each in self.events:
            self.read += 1
            yield each
            await asyncio.sleep(0)


def piece(finish=None, tokens=(), **delta):
    logged = {"logprobs": {"content": [token(t) for t in tokens]}} if tokens else {}
    return event({"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **logged}]})


def token(text, logprob=-0.01):
    return {"token": text, "logprob": logprob, "top_logprobs": [{"token": "other", "logprob": logprob - 3}]}


def document(finish="stop", tokens=(), usage=USAGE, **message):
    logged = {"logprobs": {"content": list(tokens)}} if tokens else {}
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **logged}
    return {"id": "x", "model": "m", "choices": [choice], "usage": usage}


LAST = (event({"id": "x", "model": "m", "choices": [], "usage": USAGE}), DONE)
THINKING = (
    piece(role="assistant", content=""),
    piece(reasoning="Let me", tokens=["Let", " me"]),
    piece(reasoning=" think", tokens=[" think"]),
    piece(content="forty", tokens=["forty"]),
    piece(content="-two", tokens=["-two"]),
    piece("stop"),
    *LAST,
)
TAGGED = (
    piece(role="assistant", content=""),
    piece(content="<think>Let me", tokens=["<think>", "Let", " me"]),
    piece(content=" think</think>\n\n", tokens=[" think", "</think>", "\n\n"]),
    piece(content="forty", tokens=["forty"]),
    piece(content="-two", tokens=["-two"]),
    piece("stop"),
    *LAST,
)


def ongoing_of(body=STREAM, server=None, tier="large", reasoning=None):
    tiers = {t.name: t.model_copy(update={"reasoning": reasoning}) for t in CONFIG.tiers}
    decided = Decision(tier, "asked for", tier)
    costs = {name: prices(t) for name, t in tiers.items()}
    made = OngoingRequest(without_books(), Key("k", "k"), Request("chat/completions", body), decided, tiers, costs, {})
    made.counts = dict.fromkeys(tiers, words)
    made.server = server or Server()
    return made


def run(work):
    return asyncio.run(work)


async def all_of(events):
    return [item async for item in events]


def deltas(items):
    """The deltas of all events."""
    parts = [part[6:] for part in b"".join(items).split(b"\n\n") if part.startswith(b"data:")]
    return [c["delta"] for part in parts if part != b"[DONE]" for c in json.loads(part)["choices"]]


def said(items, name="content"):
    return "".join(delta.get(name) or "" for delta in deltas(items))


async def in_a_flow(ongoing, flow, **tiers):
    driver = FlowDriver(tiers, ongoing, own_logprobs=True)
    end = await driver.run(flow)
    assert isinstance(end, Commit)
    if not ongoing.asked.stream:
        return driver.whole(end), driver
    return await all_of(driver.streamed(end)), driver


def plain_call(ongoing, tier):
    return run(PlainCall.of(tier, ongoing))


def plainly(ongoing, tier):
    return run(all_of(plain_call(ongoing, tier).stream()))


def one(events, **more):
    """The events of a request that one call answers within a flow."""
    ongoing = ongoing_of(**more)
    items, _ = run(in_a_flow(ongoing, one_call("large", ongoing.asked.body, {}), large=Raw("large", *events)))
    return items, ongoing


# -- one call passes reasoning at once -------------------------------------------------------------------------------------


def test_an_unset_server_passes_every_byte_of_a_plain_call():
    """No event is read, let alone written again; only those with the usage are."""
    events = [b'data: {"choices": [ {"index":0, "delta" : {"reasoning": "hm"}} ]}\n\n', piece(content="<think>a</think>b")]
    assert b"".join(plainly(ongoing_of(), Raw("large", *events, DONE))) == b"".join(events)
    given = Raw("large", document=document(content="42", reasoning="hm"))
    ongoing = ongoing_of(CHAT)
    assert run(plain_call(ongoing, given).complete()) == run(given.complete("", {}))


@pytest.mark.parametrize("server", [{"reasoning_field": "both"}, {"reasoning_field": "reasoning"}, {"reasoning": "hide"}])
def test_a_completion_passes_as_it_is(server):
    ongoing = ongoing_of({"model": "auto", "prompt": "<think>", "stream": True}, Server(**server))
    ongoing.asked = replace(ongoing.asked, path="completions")
    raw = event({"choices": [{"index": 0, "text": "a</think>b", "finish_reason": "stop"}]})
    assert b"".join(plainly(ongoing, Raw("large", raw, DONE))) == raw


@pytest.mark.parametrize("events, name", [(THINKING, "reasoning"), (TAGGED, "content")])
def test_one_call_is_taken_as_soon_as_it_thinks(events, name):
    async def work():
        tier, ongoing = Raw("large", *events), ongoing_of()
        driver = FlowDriver({"large": tier}, ongoing)
        await driver.run(one_call("large", STREAM, {}))
        read = tier.read
        await driver.stop()
        return read

    assert run(work()) == 2


def test_whoever_only_asks_for_a_first_token_of_the_answer_waits_for_it():
    async def work():
        tier, ongoing = Raw("large", *THINKING), ongoing_of()
        driver = FlowDriver({"large": tier}, ongoing)

        def flow():
            replies = yield Step((Call("a", "large", "attempt", STREAM, hold=1),))
            assert (replies[0].text, replies[0].thought) == ("forty", "Let me think")
            return Commit("a")

        await driver.run(flow())
        read = tier.read
        await driver.stop()
        return read

    assert run(work()) == 4


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "refusal"])
def test_the_first_token_is_the_first_that_the_model_writes(field):
    times = []
    held = HeldAnswer(
        Call("a", "large", "attempt", CHAT),
        Raw("large", piece(role="assistant", content=""), piece(**{field: "hm"})).stream("", {}),
        lambda: times.append(1),
    )
    run(held.read(3))
    assert held.spoke and times == [1] and held.tokens == 0

    ongoing = ongoing_of()
    call = plain_call(ongoing, Raw("large"))
    call.look(piece(role="assistant", content=""), keep=False)
    assert call.record.first_token_s is None
    call.look(piece(**{field: "hm"}), keep=False)
    assert call.record.first_token_s is not None and ongoing.first_byte_s is not None


# -- names and hiding ------------------------------------------------------------------------------------------------------


def by_flow(events, **more):
    return one(events, **more)[0]


def by_plain_call(events, **more):
    return plainly(ongoing_of(**more), Raw("large", *events))


WAYS = pytest.mark.parametrize("way", [by_flow, by_plain_call])


@WAYS
def test_untouched_by_default(way):
    assert said(way(THINKING), "reasoning") == "Let me think" and said(way(THINKING)) == "forty-two"
    assert said(way(TAGGED)) == "<think>Let me think</think>\n\nforty-two"


@WAYS
@pytest.mark.parametrize("events", [THINKING, TAGGED])
@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "both"])
def test_under_the_wanted_name(way, events, field):
    items = way(events, server=Server(reasoning_field=field))
    names = ("reasoning", "reasoning_content") if field == "both" else (field,)
    for name in ("reasoning", "reasoning_content"):
        assert said(items, name) == ("Let me think" if name in names else "")
    assert said(items) == "forty-two" and deltas(items)[0] == {"role": "assistant", "content": ""}


@WAYS
@pytest.mark.parametrize("events", [THINKING, TAGGED])
def test_hidden(way, events):
    items = way(
        events, server=Server(reasoning="hide"), body={**STREAM, "stream_options": {"include_usage": True}, "logprobs": True}
    )
    raw = b"".join(items)
    assert said(items) == "forty-two"
    assert b"Let" not in raw and b"think" not in raw.replace(b"reasoning_tokens", b"")
    assert b'"reasoning_tokens": 6' in raw  # it is paid for
    assert raw.count(b": waiting") == 1  # in place of what is hidden, so that the client knows that something comes


@pytest.mark.parametrize("message", [{"content": "42", "reasoning": "hm"}, {"content": "<think>hm</think>\n42"}])
@pytest.mark.parametrize(
    "server, left", [({"reasoning": "hide"}, {}), ({"reasoning_field": "reasoning_content"}, {"reasoning_content": "hm"})]
)
def test_whole_answers(message, server, left):
    ongoing = ongoing_of(CHAT, Server(**server))
    tier = Raw("large", document=document(**message))
    plain = json.loads(run(plain_call(ongoing, tier).complete()))
    made, _ = run(in_a_flow(ongoing_of(CHAT, Server(**server)), one_call("large", CHAT, {}), large=tier))
    for answer in (plain, made):
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": "42", **left}
        assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}


def test_a_client_may_ask_a_tier_that_thinks_for_the_answer_alone():
    asked = {**STREAM, "include_reasoning": False}
    assert said(by_plain_call(THINKING, body=asked, reasoning=Reasoning(parser="qwen3")), "reasoning") == ""
    assert said(by_plain_call(THINKING, body=asked), "reasoning") == "Let me think"  # then its tier is told


def test_what_is_hidden_was_not_sent():
    """The first byte is the answer's."""
    ongoing = ongoing_of(server=Server(reasoning="hide"))
    call = plain_call(ongoing, Raw("large"))
    hidden = piece(reasoning="hm")
    call.look(hidden, keep=False)
    assert call.reworded(call.reasoning, hidden) == b": waiting\n\n"
    call.reworded(call.reasoning, piece(role="assistant", content=""))
    assert ongoing.first_byte_s is None
    call.reworded(call.reasoning, piece(content="4"))
    assert ongoing.first_byte_s is not None


# -- rejected drafts -------------------------------------------------------------------------------------------------------


class Sure:
    def next(self, answers):
        sure = {tier: reply for tier, reply in answers.items() if reply.logprobs and min(reply.logprobs) > -1}
        return Accept(list(sure)[-1]) if sure else GoUp(("large",), "no evidence")


class Never:
    def next(self, answers):
        return GoUp(("large",), "low confidence")


def cascade(body, mode, judge=None, tokens=2):
    made = Escalation(mode=mode, holdback_tokens=tokens)
    return Cascade(body, ["small", "large"], judge or Sure(), made, bool(body.get("stream")))


def escalated(small, large=THINKING, mode="holdback", server=None, judge=None, tokens=2):
    ongoing = ongoing_of(server=server, tier="small")
    tiers = {"small": Raw("small", *small), "large": Raw("large", *large)}
    items, driver = run(in_a_flow(ongoing, cascade(STREAM, mode, judge, tokens).run(["small"]), **tiers))
    return items, driver, tiers


DRAFT_PIECES = st.lists(
    st.one_of(
        st.builds(lambda: {"reasoning": "SECRET"}),
        st.builds(lambda: {"reasoning_content": "SECRET"}),
        st.builds(lambda: {"content": "<think>SECRET"}),
        st.builds(lambda: {"content": "SECRET"}),
        st.builds(lambda: {"content": "</think>"}),
        st.builds(lambda: {"reasoning": "SECRET", "content": "SECRET"}),
        st.builds(lambda: {"role": "assistant", "content": ""}),
        st.builds(lambda: {"refusal": ""}),
    ),
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(DRAFT_PIECES, st.sampled_from(["holdback", "buffer"]), st.integers(1, 3), st.sampled_from(["stop", "length"]))
def test_no_byte_of_a_rejected_draft_leaves(pieces, mode, tokens, finish):
    draft = [*(piece(tokens=["SECRET"], **delta) for delta in pieces), piece(finish), *LAST]
    items, driver, _ = escalated(draft, mode=mode, judge=Never(), tokens=tokens)
    assert b"SECRET" not in b"".join(items) and said(items) == "forty-two"
    assert driver.records["final-large"].outcome == "accepted"


def test_a_draft_is_not_shown_while_it_thinks():
    """One token of its answer is judged, not the first of its thought."""
    _, driver, tiers = escalated(THINKING, judge=Never(), tokens=1)
    assert tiers["small"].read == 4 and driver.records["attempt-small"].outcome == "low confidence"


def test_the_top_tier_passes_its_thoughts():
    items, driver, _ = escalated((piece(content="no", tokens=["no"]), piece("stop"), *LAST), judge=Never())
    assert said(items, "reasoning") == "Let me think"
    assert driver.held["final-large"].tokens == 2


# -- evidence --------------------------------------------------------------------------------------------------------------


def held(*events, tokens=99):
    answer = HeldAnswer(Call("a", "large", "attempt", CHAT), Raw("large", *events).stream("", {}), lambda: None)
    run(answer.read(tokens))
    return answer.reply()


def test_a_thought_is_no_evidence_for_a_stream():
    doubt = [piece(tokens=(), reasoning="hm") for _ in range(2)]
    reply = held(*doubt, *THINKING)
    assert (reply.text, reply.thought) == ("forty-two", "hmhmLet me think")
    assert reply.logprobs == (-0.01, -0.01) and reply.first_margin == pytest.approx(3)
    assert held(*TAGGED).logprobs == (-0.01, -0.01) and held(*TAGGED).text == "forty-two"


def test_a_held_beginning_has_as_many_log_probabilities_as_tokens():
    reply = held(*THINKING, tokens=1)
    assert reply.partial and (reply.text, len(reply.logprobs)) == ("forty", 1)


def test_a_thought_is_no_evidence_for_a_document():
    tokens = [token("hm", -9.0), token("</think>", -22.1), token("\n\n", -0.5), token("42", -0.2), token("<|im_end|>", -0.1)]
    for message in ({"content": "\n\n42", "reasoning": "hm"}, {"content": "<think>hm</think>\n\n42"}):
        reply = read_answer(Call("a", "large", "attempt", CHAT), document(tokens=tokens, **message))
        assert reply.logprobs == (-0.2, -0.1)
    assert reply.first_margin == pytest.approx(3)


def test_what_cannot_be_told_apart_is_no_evidence_and_no_certificate_covers_it():
    tokens = [token("hm</think>42")]
    answer = document(tokens=tokens, content="42", reasoning="hm")
    ongoing = ongoing_of(CHAT, tier="small")
    tiers = {"small": Raw("small", document=answer), "large": Raw("large", document=document(content="43"))}
    made, driver = run(in_a_flow(ongoing, cascade(CHAT, "buffer").run(["small"]), **tiers))
    assert made["choices"][0]["message"]["content"] == "43" and driver.records["attempt-small"].outcome == "no evidence"

    class Any:
        def next(self, answers):
            return Accept("small")

    ongoing = ongoing_of(CHAT, tier="small")
    run(in_a_flow(ongoing, cascade(CHAT, "buffer", Any()).run(["small"]), **tiers))
    assert ongoing.departed


# -- thoughts that are cut -------------------------------------------------------------------------------------------------

CUT = {"content": None, "reasoning": "hm hm"}


@pytest.mark.parametrize("message", [CUT, {"content": "<think>hm hm"}])
def test_a_thought_that_reached_the_limit_escalates(message):
    tiers = {
        "small": Raw("small", document=document("length", **message)),
        "large": Raw("large", document=document(content="42")),
    }
    body = {**CHAT, "max_tokens": 9}
    made, driver = run(in_a_flow(ongoing_of(body, tier="small"), cascade(body, "buffer").run(["small"]), **tiers))
    assert driver.records["attempt-small"].outcome == THOUGHT_TOO_LONG
    assert made["choices"][0]["message"]["content"] == "42"


def test_at_the_top_it_is_the_answer_as_it_is():
    """Also where a smaller tier's rejected answer could be given."""
    tiers = {"small": Raw("small", document=document(content="41")), "large": Raw("large", document=document("length", **CUT))}
    made, driver = run(in_a_flow(ongoing_of(CHAT, tier="small"), cascade(CHAT, "buffer", Never()).run(["small"]), **tiers))
    choice = made["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"], choice["message"]["reasoning"]) == ("length", None, "hm hm")
    assert not driver.ongoing.degraded


def test_a_stream_that_is_cut_within_its_thought():
    cut = (piece(reasoning="SECRET"), piece("length"), *LAST)
    items, driver, _ = escalated(cut)
    assert driver.records["attempt-small"].outcome == THOUGHT_TOO_LONG and said(items) == "forty-two"
    items, driver, _ = escalated((piece(content="no"), piece("stop"), *LAST), cut, judge=Never())
    assert said(items, "reasoning") == "SECRET" and said(items) == ""


# -- what is counted, kept and compared ------------------------------------------------------------------------------------


def test_the_answer_alone_is_kept_and_compared():
    for events in (THINKING, TAGGED):
        ongoing = one(events)[1]
        assert ongoing.answer_text == "forty-two"


def test_a_spliced_answer_counts_its_thought():
    def flow():
        yield Step((Call("a", "large", "final", STREAM, hold=1, committed=True),))
        return Commit("a", splice={"t1": "one two three"})

    spliced = (piece(reasoning="hm hm"), piece(content="see {{t1}}"), piece("stop"))
    for usage, thought in ((USAGE, 6), ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 0}}, 2)):
        ongoing = ongoing_of({**STREAM, "stream_options": {"include_usage": True}})
        last = event({"id": "x", "choices": [], "usage": usage})
        items, _ = run(in_a_flow(ongoing, flow(), large=Raw("large", *spliced, last, DONE)))
        told = json.loads(items[-1].removeprefix(b"data: "))["usage"]
        assert said(items) == "see one two three" and told["completion_tokens"] == 4 + thought
