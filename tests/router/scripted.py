"""A ladder that answers as a test tells it, in virtual time: latency, faults, a ledger of its own. Drives any flow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from router.errors import NoReplica, RequestFailed
from router.limits.delegation_budget import Rung
from router.types import Call, Commit, End, Flow, Reply, Step, Usage


def words(text: str) -> int:
    """Tokens as these tiers count them."""
    return len(text.split())


words.exact = True


def ladder(*prices: float, context: int = 100_000, output: float = 4.0) -> list[Rung]:
    """Rungs small, medium, large (the last two or three names) with these prices per input token."""
    names = ["small", "medium", "large"][-len(prices) :] if len(prices) != 2 else ["small", "large"]
    return [Rung(name, context, price, output * price, words) for name, price in zip(names, prices, strict=True)]


@dataclass(frozen=True)
class Said:
    """One answer of a scripted tier."""

    text: str = "done"
    wait_s: float = 0.1
    error: RequestFailed | None = None
    finish: str = "stop"
    more: Mapping[str, Any] = field(default_factory=dict)
    """further fields of the Reply"""


@dataclass
class Run:
    """What a flow did."""

    end: End
    steps: list[Step]
    calls: list[Call]
    outcomes: dict[str, str]
    ledger: list[tuple[str, str, int, int]]
    """(call id, tier, input tokens, output tokens) as the tiers saw them"""
    took_s: float
    peak: int
    """calls in flight at the same time"""

    def of(self, role: str) -> list[Call]:
        return [call for call in self.calls if call.role == role]

    def cost(self, rungs: list[Rung], roles: str = "plan repair subtask final") -> float:
        price = {rung.name: rung for rung in rungs}
        counted = {call.id for call in self.calls if call.role in roles.split()}
        return sum(price[tier].cost(given, made) for name, tier, given, made in self.ledger if name in counted)

    @property
    def answer(self) -> str:
        """The text that the client gets; for a Commit, the text of that call, not spliced."""
        return self.texts[self.end.call_id] if isinstance(self.end, Commit) else self.end.text

    texts: dict[str, str] = field(default_factory=dict)


def told(call: Call) -> str:
    """The last message of a call."""
    return str(call.body["messages"][-1]["content"])


def given(call: Call) -> int:
    return sum(words(str(m["content"])) for m in call.body["messages"])


Script = Callable[[Call], Said | str]


def drive(flow: Flow, script: Script) -> Run:
    """Run a flow to its end against the script."""
    clock, peak, texts = 0.0, 0, {}
    flying: dict[str, tuple[float, Reply]] = {}
    steps, calls, ledger, outcomes = [], [], [], {}
    try:
        step = next(flow)
        while True:
            steps.append(step)
            note(outcomes, step.outcomes)
            for name in step.cancel:
                _, reply = flying.pop(name)
                ledger.append((name, reply.call.tier, given(reply.call), 0))
            for call in step.start:
                assert call.id not in {c.id for c in calls}, f"two calls {call.id}"
                calls.append(call)
                flying[call.id] = answered(call, script(call), clock)
            peak = max(peak, len(flying))
            if step.kind and not flying:  # nothing is asked: the step says what the flow turns into
                step = flow.send([])
                continue
            assert flying, "the flow waits for nothing"
            first = min(at for at, _ in flying.values())
            if step.until_s is not None and first > max(step.until_s, clock):
                clock = max(step.until_s, clock)
                step = flow.send([])
                continue
            clock = max(clock, first)
            ready = [name for name, (at, _) in flying.items() if at <= clock]
            replies = [flying.pop(name)[1] for name in ready]
            for reply in replies:
                texts[reply.call.id] = reply.text
                ledger.append((reply.call.id, reply.call.tier, reply.usage.input_tokens, reply.usage.output_tokens))
            step = flow.send(replies)
    except StopIteration as done:
        note(outcomes, done.value.outcomes)
        return Run(done.value, steps, calls, outcomes, ledger, clock, peak, texts)


def answered_at_once(flow: Flow, reply: Callable[[Call], Reply]) -> tuple[End, list[Step]]:
    """Run a flow each of whose calls is answered in its step. Returns the end, with the outcomes of all steps, and the steps."""
    steps: list[Step] = []
    outcomes: dict[str, str] = {}
    try:
        step = next(flow)
        while True:
            steps.append(step)
            note(outcomes, step.outcomes)
            step = flow.send([reply(call) for call in step.start])
    except StopIteration as done:
        note(outcomes, done.value.outcomes)
        return replace(done.value, outcomes=outcomes), steps


def note(outcomes: dict[str, str], new: Mapping[str, str]) -> None:
    """A step says what is new; only an answer that a flow comes back to gets another outcome."""
    for name, outcome in new.items():
        before = outcomes.get(name)
        assert before is None or outcome == "accepted" != before, f"{name} has an outcome already: {before}, now {outcome}"
        outcomes[name] = outcome


def answered(call: Call, said: Said | str, now: float) -> tuple[float, Reply]:
    """When the reply comes and what it is."""
    said = Said(said) if isinstance(said, str) else said
    if call.timeout_s is not None and said.wait_s > call.timeout_s:
        at = now + call.timeout_s
        return at, Reply(call, error=NoReplica(call.tier, f"no answer within {call.timeout_s:.1f} s"), at_s=at)
    at = now + said.wait_s
    if said.error:
        return at, Reply(call, error=said.error, at_s=at)
    text, finish = cut(said, call.body.get("max_tokens"))
    usage = Usage(given(call), words(text))
    return at, Reply(call, **{"text": text, "finish_reason": finish, "usage": usage, "at_s": at, **said.more})


def cut(said: Said, most: int | None) -> tuple[str, str]:
    """No tier writes more than it may."""
    if most is None or words(said.text) <= most:
        return said.text, said.finish
    return " ".join(said.text.split()[:most]), "length"
