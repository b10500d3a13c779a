"""The gates: whether a request is worth a plan, decided on the CPU before any call is made. The default is no."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from classifiers.parts.cut import Cut, Kind, cut
from classifiers.text.prompt import content_text
from router.config import Delegation
from router.delegate import prompts
from router.delegate.blocks import OffloadedChat, offload
from router.delegate.memory import Memory
from router.limits.delegation_budget import Rung, rung_of
from router.request.body import answer_limit, beyond_flows, is_text, wants_json
from router.request.token_bounds import USUAL_TEMPLATE

Route = Callable[[str, str | None], str]
"""(worker's prompt, difficulty or None) -> the name of the tier that gets it"""
Splits = Callable[[str], bool]
"""(text) -> whether it asks for several things that can be done independently"""
DelegationState = Literal["off", "ineligible", "not_worth_it", "direct", "plan_invalid", "done", "partial", "loop_detected"]
SAMPLED = 16  # parts that are routed; the cost of all others is estimated from them


@dataclass(frozen=True, slots=True)
class Considered:
    """The outcome of the gates."""

    chat: OffloadedChat
    cut: Cut
    """of the largest block, or of the task if there is no block"""
    state: DelegationState | None
    """None: ask for a plan"""
    why: str = ""
    direct_usd: float = 0.0
    """expected cost of the plain call"""
    delegated_usd: float = 0.0
    """expected cost with delegation"""
    answer_tokens: float = 0.0
    """expected length of the plain answer"""

    @property
    def kind(self) -> Kind:
        return self.cut.kind

    def as_json(self) -> dict[str, Any]:
        """The gates' outcome as the client gets it."""
        estimates = {"cost_direct_estimate_usd": self.direct_usd, "cost_delegated_estimate_usd": self.delegated_usd}
        return {"delegation": self.state} | ({"why": self.why} if self.why else {}) | (estimates if self.direct_usd else {})


def ineligible(body: Mapping[str, Any]) -> str:
    """Why the request cannot be delegated; empty if it can."""
    choice, beyond = body.get("tool_choice"), beyond_flows(body)
    for found, why in (
        (beyond, beyond),
        (body.get("tools") or body.get("functions"), "the client brings tools"),
        (isinstance(choice, dict) or choice == "required", "a tool call is asked for"),
        (body["messages"][-1].get("role") not in ("user", "tool"), "the last message is not the user's"),
        (any(not is_text(m.get("content")) for m in body["messages"]), "it is not text alone"),
    ):
        if found:
            return why
    return ""


def consider(
    body: Mapping[str, Any],
    ladder: Sequence[Rung],
    settings: Delegation,
    memory: Memory,
    route: Route,
    splits: Splits,
    special: Sequence[str] = (),
) -> Considered:
    """Apply the gates, the cheap ones first. ladder: cheapest tier first; the last one plans."""
    top = ladder[-1]
    nothing = OffloadedChat((), {}), Cut("paragraphs", "", ())
    if settings.mode not in ("plan", "auto"):
        return Considered(*nothing, "off")
    if why := ineligible(body):
        return Considered(*nothing, "ineligible", why)
    chat = offload(body["messages"], top.count, settings.offload_min_tokens, settings.max_subtasks)
    shape = outline(chat, settings)
    tokens = top.expected_tokens(body["messages"])
    if tokens < settings.min_input_tokens and (answer_limit(body) or 0) < settings.min_answer_tokens:
        return Considered(chat, shape, "not_worth_it", f"{tokens} tokens, {settings.min_input_tokens} are the least")
    if len(shape.parts) < settings.min_parts:
        return Considered(chat, shape, "not_worth_it", f"{len(shape.parts)} parts, {settings.min_parts} are the least")
    if not splits(asked_text(chat)):
        return Considered(chat, shape, "ineligible", "it does not fall into independent parts")
    return weigh_cost(body, ladder, settings, memory, route, chat, shape, special)


def outline(chat: OffloadedChat, settings: Delegation) -> Cut:
    """The largest block in parts, or the task if there is no block."""
    largest = max(chat.blocks.values(), key=lambda block: block.tokens, default=None)
    return largest.cut if largest else cut(chat.task(), settings.max_subtasks)


def asked_text(chat: OffloadedChat) -> str:
    """The user's last message, and the blocks of earlier messages."""
    users = [i for i, m in enumerate(chat.messages) if m.get("role") == "user"]
    last = users[-1] if users else len(chat.messages) - 1
    earlier = [block.text for block in chat.blocks.values() if block.message != last]
    return "\n\n".join([*earlier, content_text(chat.messages[last].get("content"))])


def weigh_cost(
    body: Mapping[str, Any],
    ladder: Sequence[Rung],
    settings: Delegation,
    memory: Memory,
    route: Route,
    chat: OffloadedChat,
    shape: Cut,
    special: Sequence[str],
) -> Considered:
    """The last gate: the delegation must be expected to cost clearly less than the plain call."""
    top, means = ladder[-1], memory.means[shape.kind]
    limit = answer_limit(body)
    answer = means.part_tokens * len(shape.parts)
    if limit:
        answer = min(limit, max(answer, limit / 2 if limit >= settings.min_answer_tokens else 0))
    direct = top.cost(top.expected_tokens(body["messages"]), answer)
    plan_prompt, stubs = prompts.plan_messages(chat, settings, special), chat.with_stubs(settings.preview_chars)
    merged = 1.0 if wants_json(body) else means.merged
    delegated = (
        top.cost(top.expected_tokens(plan_prompt), means.plan_tokens)
        + workers_usd(ladder, memory, route, shape, answer / len(shape.parts))
        + merged * top.cost(top.expected_tokens(stubs) + answer, means.join * answer)
    )
    if delegated > min(1 - settings.min_saving, settings.max_cost_ratio) * direct:
        return Considered(chat, shape, "not_worth_it", "cost", direct, delegated, answer)
    return Considered(chat, shape, None, "", direct, delegated, answer)


def workers_usd(ladder: Sequence[Rung], memory: Memory, route: Route, shape: Cut, answer_tokens: float) -> float:
    """Expected cost of one job for each part, retries and escalations included. answer_tokens: of one part."""
    means, top, total = memory.means[shape.kind], ladder[-1], 0.0
    sample = shape.parts[:SAMPLED]
    for part in sample:
        rung = rung_of(ladder, route(part.text, None))
        tokens = rung.count(part.text) + USUAL_TEMPLATE
        total += (1 + means.retries) * rung.cost(tokens, answer_tokens) + means.escalations * top.cost(tokens, answer_tokens)
    return total * len(shape.parts) / len(sample)
