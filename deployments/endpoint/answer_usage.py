"""The `usage` of an answer that several calls made: at the top what its client's context holds, every call under `stepdown`."""

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.endpoint.ongoing_request import CallRecord, OngoingRequest
from router.request import wire
from router.request.answer_tokens import reasoning_tokens
from router.request.token_bounds import text_tokens
from router.types import Commit, Say, Usage

DETAILS = ("prompt_tokens_details", "completion_tokens_details")


def shown_usage(ongoing: OngoingRequest, end: Commit | Say, given: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's usage, and under `stepdown` the flow's report, every call, and their sum.

    given: the usage that the tier reported of the call whose answer the client gets; empty: it reported none.
    """
    calls = [record.as_json(ongoing.prices[record.call.tier]) for record in ongoing.records.values()]
    total = sum((record.usage for record in ongoing.records.values()), Usage())
    cost_usd = sum(call["cost_usd"] for call in calls)
    if ongoing.server.usage == "sum":
        top, more = fields(total), {}
    elif isinstance(end, Say):
        top, more = fields(Usage(conversation(ongoing, end.tier), answer(ongoing, end.tier))), {"estimated": True}
    else:
        top, more = of_call(ongoing, end, given)
    promised = {"certificate": state} if (state := ongoing.certificate) else {}
    degraded = {"degraded_by": by} if (by := ongoing.degraded_by()) else {}
    told = {**end.report, **degraded, **promised, "cost_usd": cost_usd, "calls": calls, "total": fields(total), **more}
    return {**top, "stepdown": told}


def of_call(ongoing: OngoingRequest, end: Commit, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The usage of the call whose answer the client gets, and whether some of it is our estimate.

    A call that merges results read other messages than the client's, and results were put into its text: those are counted.
    """
    record = ongoing.records[end.call_id]
    own, tier = record.usage, record.call.tier
    seen, spliced = read_all(record, ongoing.asked.body.get("messages") or ()), bool(end.splice)
    read = own.input_tokens if seen else max(own.input_tokens, conversation(ongoing, tier))
    made = answer(ongoing, tier) + thought(ongoing, tier, given) if spliced else own.output_tokens
    whole = seen and not spliced
    details = {name: given[name] for name in DETAILS if isinstance(given.get(name), Mapping)} if whole else {}
    return fields(Usage(read, made)) | details, {} if whole and not record.estimated else {"estimated": True}


def fields(usage: Usage) -> dict[str, Any]:
    tokens = usage.input_tokens, usage.output_tokens
    return {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}


def read_all(record: CallRecord, messages: Sequence[Any]) -> bool:
    """Whether the call read the client's messages as they are, perhaps with more behind them."""
    return list(record.call.body.get("messages") or ())[: len(messages)] == list(messages)


def conversation(ongoing: OngoingRequest, tier: str) -> int:
    """Tokens of the client's messages."""
    return ongoing.counts[tier](wire.facts(ongoing.asked).counted)


def answer(ongoing: OngoingRequest, tier: str) -> int:
    """Tokens of the text that the client gets."""
    return ongoing.counts[tier](ongoing.answer_text)


def thought(ongoing: OngoingRequest, tier: str, given: Mapping[str, Any]) -> int:
    """Tokens that its model thought before it. Some tiers report 0 beside a thought that is there."""
    counted = reasoning_tokens({"usage": given})
    return counted or (text_tokens(ongoing.thought, ongoing.counts[tier]) if ongoing.thought else 0)
