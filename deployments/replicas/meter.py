"""Measures each call of one replica from what its engine answers. It knows OpenAI's JSON and needs neither Ray nor vLLM."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.costs.busy_time import Meter

PRIOR_TOKENS_PER_BYTE = 0.25  # of a request's JSON
FORGET = 0.98  # weight of the past at each new request
KEPT_CALLS = 1_000  # finished calls whose measurement is kept in case it did not arrive
MOST_LATE = 10_000  # measurements of cancelled calls kept until a later call takes them along


@dataclass(slots=True)
class ReplicaMeter:
    """Measures the calls of one replica. A measurement goes out with a call's last item; a cancelled call's with a later call."""

    replica: str
    clock: Callable[[], float] = time.monotonic
    meter: Meter = field(default_factory=Meter)
    late: dict[str, float] = field(default_factory=dict)
    """call id -> busy seconds of calls that were cut off"""
    sent: dict[str, dict[str, float]] = field(default_factory=dict)
    """call id -> measurements that went out with its last item, for a client that left just before it"""
    tokens: float = PRIOR_TOKENS_PER_BYTE * 1000
    """of recent prompts, and `size`, the bytes of their requests: their ratio is the guess for a new one"""
    size: float = 1000.0
    count: int = 0

    def start(self, call_id: str, raw: str, missed: Sequence[str] = ()) -> "MeteredCall":
        """raw: the request's JSON; its length gives the first guess of the prompt's tokens, until the engine reports them.

        missed: calls whose last item never reached the ingress; the measurements sent with it are sent again.
        """
        for name in missed:
            self.keep(self.sent.pop(name, {}))
        self.count += 1
        call = MeteredCall(self, f"{self.count}", call_id, len(raw))
        self.meter.start(call.name, self.clock(), len(raw) * self.tokens / self.size)
        return call

    def keep(self, late: Mapping[str, float]) -> None:
        """Until a call takes them along. The oldest are dropped; their time still counts as the replica's busy time."""
        self.late.update(late)
        while len(self.late) > MOST_LATE:
            self.late.pop(next(iter(self.late)))


@dataclass(slots=True)
class MeteredCall:
    """One call. After it started, `last` must be called, or else `cut_off`; `cut_off` may be called twice."""

    replica: ReplicaMeter
    name: str
    call_id: str
    size: int
    items: int = 0
    usage: Mapping[str, Any] = field(default_factory=dict)
    taken: dict[str, float] = field(default_factory=dict)
    """late measurements that went out with this call's last item"""
    busy_s: float | None = None

    def item(self, text: str) -> None:
        """A piece of a stream: a token, the usage, or [DONE]. The first piece comes with the first token."""
        if '"usage"' in text and (found := usage_of(text.removeprefix("data: "))):
            self.usage = found
            if found.get("completion_tokens") and '"choices":[]' in text:
                return
        if "[DONE]" not in text[:16]:
            self.items += 1
            if self.items != 2:  # vLLM sends the role in a piece of its own before the first token; the two count as one
                self.replica.meter.progress(self.name, self.replica.clock())

    def last(self, usage: Mapping[str, Any] | None = None) -> str:
        """End the call: its measurement as JSON. usage: given for a whole answer; a stream's is known from its items."""
        replica = self.replica
        self.usage = self.usage if usage is None else usage
        prompt, output = self.usage.get("prompt_tokens"), self.usage.get("completion_tokens")
        cached = cached_of(self.usage)
        self.busy_s = replica.meter.end(self.name, replica.clock(), prompt, cached, output)
        if prompt:
            replica.tokens, replica.size = FORGET * replica.tokens + prompt, FORGET * replica.size + self.size
        self.taken, replica.late = replica.late, {}
        if self.call_id:
            replica.sent[self.call_id] = self.taken | {self.call_id: self.busy_s}
            if len(replica.sent) > KEPT_CALLS:
                replica.sent.pop(next(iter(replica.sent)))
        return json.dumps({"replica": replica.replica, "busy_s": self.busy_s, "cached_tokens": cached, "late": self.taken})

    def cut_off(self) -> None:
        """The call ended before its last item was sent: the next call takes its measurement along."""
        if self.busy_s is None:
            self.busy_s = self.replica.meter.end(self.name, self.replica.clock())
        own = {self.call_id: self.busy_s} if self.call_id else {}
        self.replica.keep(self.taken | own)
        self.taken = {}


def usage_of(document: str) -> Mapping[str, Any]:
    """Empty where the engine did not report it."""
    try:
        found = json.loads(document)
    except ValueError:
        return {}
    usage = found.get("usage") if isinstance(found, dict) else None
    return usage if isinstance(usage, dict) else {}


def cached_of(usage: Mapping[str, Any]) -> int:
    """Prompt tokens from the prefix cache; vLLM reports them with enable_prompt_tokens_details."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else 0
