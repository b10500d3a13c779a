"""Whether a request is worth a plan: decided before anything is asked, on CPU alone. The default is no."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from classifiers.parts.cut import Cut, Kind, cut
from classifiers.text.prompt import content_text
from router.config import Delegation
from router.delegate import prompts
from router.delegate.blocks import Sheet, offload
from router.delegate.memory import Memory
from router.limits.delegation_budget import USUAL_TEMPLATE, Rung, rung_of
from router.request.body import answer_limit, beyond_flows, is_text, wants_json

Route = Callable[[str, str | None], str]
"""(what a worker is told, difficulty or None) -> the name of its tier"""
Splits = Callable[[str], bool]
"""Whether a text asks for several things that can be done apart."""
State = Literal["off", "ineligible", "not_worth_it", "direct", "plan_invalid", "done", "partial", "loop_detected"]
SAMPLED = 16  # parts that are routed to guess what the rest will cost


@dataclass(frozen=True, slots=True)
class Considered:
    """The outcome of the gates."""

    sheet: Sheet
    cut: Cut
    """of the largest block, or of the task where there is none"""
    state: State | None
    """None: ask for a plan"""
    why: str = ""
    direct_usd: float = 0.0
    """expected cost of the plain call"""
    delegated_usd: float = 0.0
    """expected cost with delegation"""
    answer_tokens: float = 0.0
    """expected of the plain answer"""

    @property
    def kind(self) -> Kind:
        return self.cut.kind

    def told(self) -> dict[str, Any]:
        estimates = {"cost_direct_estimate_usd": self.direct_usd, "cost_delegated_estimate_usd": self.delegated_usd}
        return {"delegation": self.state} | ({"why": self.why} if self.why else {}) | (estimates if self.direct_usd else {})


def ineligible(body: Mapping[str, Any]) -> str:
    """What about the request rules delegation out; empty if nothing does."""
    choice, asked = body.get("tool_choice"), beyond_flows(body)
    for found, what in (
        (asked, asked),
        (body.get("tools") or body.get("functions"), "the client brings tools"),
        (isinstance(choice, dict) or choice == "required", "a tool call is asked for"),
        (body["messages"][-1].get("role") not in ("user", "tool"), "the last message is not the user's"),
        (any(not is_text(m.get("content")) for m in body["messages"]), "it is not text alone"),
    ):
        if found:
            return what
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
    """All gates, the cheap ones first. ladder: cheapest first; its last rung plans."""
    top = ladder[-1]
    nothing = Cut("paragraphs", "", ())
    if settings.mode not in ("plan", "auto"):
        return Considered(Sheet((), {}), nothing, "off")
    if why := ineligible(body):
        return Considered(Sheet((), {}), nothing, "ineligible", why)
    sheet = offload(body["messages"], top.count, settings.offload_min_tokens, settings.max_subtasks)
    shape = outline(sheet, settings)
    before = top.expected_tokens(body["messages"])
    if before < settings.min_input_tokens and (answer_limit(body) or 0) < settings.min_answer_tokens:
        return Considered(sheet, shape, "not_worth_it", f"{before} tokens, {settings.min_input_tokens} are the least")
    if len(shape.parts) < settings.min_parts:
        return Considered(sheet, shape, "not_worth_it", f"{len(shape.parts)} parts, {settings.min_parts} are the least")
    if not splits(asked_text(sheet)):
        return Considered(sheet, shape, "ineligible", "it does not fall into independent parts")
    return weighed(body, ladder, settings, memory, route, sheet, shape, special)


def outline(sheet: Sheet, settings: Delegation) -> Cut:
    """The parts of the largest block, or of the task."""
    largest = max(sheet.blocks.values(), key=lambda block: block.tokens, default=None)
    return largest.cut if largest else cut(sheet.task(), settings.max_subtasks)


def asked_text(sheet: Sheet) -> str:
    """What the user said last, and the blocks of earlier messages."""
    users = [i for i, m in enumerate(sheet.messages) if m.get("role") == "user"]
    last = users[-1] if users else len(sheet.messages) - 1
    earlier = [block.text for block in sheet.blocks.values() if block.message != last]
    return "\n\n".join([*earlier, content_text(sheet.messages[last].get("content"))])


def weighed(
    body: Mapping[str, Any],
    ladder: Sequence[Rung],
    settings: Delegation,
    memory: Memory,
    route: Route,
    sheet: Sheet,
    shape: Cut,
    special: Sequence[str],
) -> Considered:
    """The gate of expected cost."""
    top, seen = ladder[-1], memory.means[shape.kind]
    asked = answer_limit(body)
    answer = seen.part_tokens * len(shape.parts)
    if asked:
        answer = min(asked, max(answer, asked / 2 if asked >= settings.min_answer_tokens else 0))
    direct = top.cost(top.expected_tokens(body["messages"]), answer)
    asked_to_plan, stubs = prompts.plan_messages(sheet, settings, special), sheet.without_blocks(settings.preview_chars)
    merged = 1.0 if wants_json(body) else seen.merged
    total = (
        top.cost(top.expected_tokens(asked_to_plan), seen.plan_tokens)
        + workers_usd(ladder, memory, route, shape, answer / len(shape.parts))
        + merged * top.cost(top.expected_tokens(stubs) + answer, seen.join * answer)
    )
    worth = total <= min(1 - settings.min_saving, settings.max_cost_ratio) * direct
    return Considered(sheet, shape, None if worth else "not_worth_it", "" if worth else "cost", direct, total, answer)


def workers_usd(ladder: Sequence[Rung], memory: Memory, route: Route, shape: Cut, out: float) -> float:
    """Expected cost of one job for each part, with repeats and the share that goes up.

    out: tokens of one part's answer.
    """
    seen, top, total = memory.means[shape.kind], ladder[-1], 0.0
    sample = shape.parts[:SAMPLED]
    for part in sample:
        rung = rung_of(ladder, route(part.text, None))
        tokens = rung.count(part.text) + USUAL_TEMPLATE
        total += (1 + seen.again) * rung.cost(tokens, out) + seen.upward * top.cost(tokens, out)
    return total * len(shape.parts) / len(sample)
