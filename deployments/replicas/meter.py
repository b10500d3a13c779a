"""Reads the meter of one replica off what its engine answers; knows OpenAI's JSON, needs neither Ray nor vLLM."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.costs.busy_time import Meter

PRIOR_TOKENS_PER_BYTE = 0.25  # of a request's JSON
FORGET = 0.98
TOLD = 1_000  # calls of which what was told is remembered
WAITING = 10_000  # measurements of cancelled calls that are kept until a later call takes them along


@dataclass(slots=True)
class Gauge:
    """Of one replica. A call gets the reading with its last item; of a cancelled call it goes out with a later one."""

    replica: str
    clock: Callable[[], float] = time.monotonic
    meter: Meter = field(default_factory=Meter)
    began_s: float = field(default_factory=time.time)
    late: dict[str, float] = field(default_factory=dict)
    told: dict[str, dict[str, float]] = field(default_factory=dict)
    """call id -> what went out with its last item, for a client that left just before it"""
    tokens: float = PRIOR_TOKENS_PER_BYTE * 1000
    size: float = 1000.0
    count: int = 0

    def start(self, call_id: str, raw: str, missed: Sequence[str] = ()) -> "Metered":
        """raw: the request's JSON; its prompt's tokens are guessed from its length until the engine tells.

        missed: calls whose last item never arrived at the asking side: what went out with it goes out again.
        """
        for name in missed:
            self.keep(self.told.pop(name, {}))
        self.count += 1
        metered = Metered(self, f"{self.count}", call_id, len(raw))
        self.meter.start(metered.name, self.clock(), len(raw) * self.tokens / self.size)
        return metered

    def saw(self, prompt_tokens: int, size: int) -> None:
        self.tokens, self.size = FORGET * self.tokens + prompt_tokens, FORGET * self.size + size

    def keep(self, late: Mapping[str, float]) -> None:
        """Until somebody takes it along; the oldest are dropped, and stay visible as busy time of the replica."""
        self.late.update(late)
        while len(self.late) > WAITING:
            self.late.pop(next(iter(self.late)))


@dataclass(slots=True)
class Metered:
    """One call. After `start` either `last` or, whatever else happens, `cut_off` must be called; `cut_off` may come twice."""

    gauge: Gauge
    name: str
    call_id: str
    size: int
    items: int = 0
    usage: Mapping[str, Any] = field(default_factory=dict)
    taken: dict[str, float] = field(default_factory=dict)
    """late measurements that went out with this call's last item"""
    busy_s: float | None = None

    def item(self, text: str) -> None:
        """A piece of a stream: a token, the usage, or [DONE]. The first comes with the first token."""
        if '"usage"' in text and (found := usage_of(text.removeprefix("data: "))):
            self.usage = found
            if found.get("completion_tokens") and '"choices":[]' in text:
                return
        if "[DONE]" not in text[:16]:
            self.items += 1
            if self.items != 2:  # the role comes alone, then the token that came with it
                self.gauge.meter.progress(self.name, self.gauge.clock())

    def last(self, usage: Mapping[str, Any] | None = None) -> str:
        """The call is over: its reading as JSON. usage: of a whole answer; a stream's is known from its items."""
        gauge = self.gauge
        self.usage = self.usage if usage is None else usage
        prompt, output = self.usage.get("prompt_tokens"), self.usage.get("completion_tokens")
        cached = cached_of(self.usage)
        self.busy_s = gauge.meter.end(self.name, gauge.clock(), prompt, cached, output)
        if prompt:
            gauge.saw(prompt, self.size)
        self.taken, gauge.late = gauge.late, {}
        if self.call_id:
            gauge.told[self.call_id] = self.taken | {self.call_id: self.busy_s}
            if len(gauge.told) > TOLD:
                gauge.told.pop(next(iter(gauge.told)))
        return json.dumps(
            {
                "replica": gauge.replica,
                "busy_s": self.busy_s,
                "cached_tokens": cached,
                "late": self.taken,
                "replica_busy_s": gauge.meter.busy_s,
                "replica_began_s": gauge.began_s,
                "ratio": gauge.meter.rates.ratio,
            }
        )

    def cut_off(self) -> None:
        """It ended before its last item was out: whoever asks next takes the measurement along."""
        if self.busy_s is None:
            self.busy_s = self.gauge.meter.end(self.name, self.gauge.clock())
        mine = {self.call_id: self.busy_s} if self.call_id else {}
        self.gauge.keep(self.taken | mine)
        self.taken = {}


def usage_of(document: str) -> Mapping[str, Any]:
    """Empty where the engine did not tell."""
    try:
        found = json.loads(document)
    except ValueError:
        return {}
    usage = found.get("usage") if isinstance(found, dict) else None
    return usage if isinstance(usage, dict) else {}


def cached_of(usage: Mapping[str, Any]) -> int:
    """Prompt tokens from the prefix cache, as vLLM tells with enable_prompt_tokens_details."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else 0
