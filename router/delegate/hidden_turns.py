"""What was said with our own tool in a turn whose answer calls the client's tools: kept until the client comes back.

The answer's tool calls bear ids `call_sd_<state>_<n>`. When a later request brings that answer back, the exchange is put in
front of it again, so the tier reads what it had read. Kept in memory, for a while, for one API key; where it is gone the
request goes on without it.
"""

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from router.decide.sessions import digest
from router.request.body import wants_json
from router.types import Commit, End, Fail, Flow, Request

ID = "call_sd_"


@dataclass(frozen=True, slots=True)
class Kept:
    """One turn's exchange."""

    messages: tuple[Mapping[str, Any], ...]
    splices: Mapping[str, str]
    """results that later text may still refer to"""
    tier: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Recalled:
    """What became of the states that a request names."""

    tier: str | None
    """that answered last; it has read the exchange"""
    splices: Mapping[str, str] = field(default_factory=dict)
    missed: int = 0

    @property
    def state(self) -> str:
        return "miss" if self.missed else "hit"


class Hidden:
    """Exchanges by state and owner (API key); the least recently used are forgotten first."""

    def __init__(
        self, most: int = 1_000, most_bytes: int = 64_000_000, ttl_s: float = 1_800, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.most_bytes, self.ttl_s, self.clock = most, most_bytes, ttl_s, clock
        self.known: OrderedDict[str, tuple[Kept, float]] = OrderedDict()
        self.bytes = 0

    def keep(self, owner: str, messages: Sequence[Mapping[str, Any]], splices: Mapping[str, str], tier: str) -> str:
        """The state under which it is found again."""
        state = secrets.token_hex(10)
        size = len(json.dumps([*messages, dict(splices)]))
        self.known[digest(owner, state)] = Kept(tuple(messages), splices, tier, size), self.clock() + self.ttl_s
        self.bytes += size
        while len(self.known) > self.most or self.bytes > self.most_bytes:
            self.forget(next(iter(self.known)))
        return state

    def forget(self, key: str) -> None:
        self.bytes -= self.known.pop(key)[0].bytes

    def find(self, owner: str, state: str) -> Kept | None:
        key = digest(owner, state)
        kept, until = self.known.get(key, (None, 0.0))
        if kept is None:
            return None
        if self.clock() >= until:
            self.forget(key)
            return None
        self.known[key] = kept, self.clock() + self.ttl_s
        self.known.move_to_end(key)
        return kept

    def recall(self, owner: str, asked: Request) -> tuple[Request, Recalled | None]:
        """The request with every exchange it names put back in its place, each once; None where it names none."""
        found: dict[str, Kept | None] = {}
        messages: list[Mapping[str, Any]] = []
        for message in asked.body.get("messages") or []:
            for state in states(message):
                if state not in found:
                    kept = found[state] = self.find(owner, state)
                    messages += kept.messages if kept else ()
            messages.append(message)
        if not found:
            return asked, None
        there = [kept for kept in found.values() if kept]
        splices = {} if wants_json(asked.body) else {name: text for kept in there for name, text in kept.splices.items()}
        recalled = Recalled(there[-1].tier if there else None, splices, len(found) - len(there))
        return replace(asked, body={**asked.body, "messages": messages}), recalled


def states(message: Mapping[str, Any]) -> list[str]:
    """The states that the ids of an assistant's tool calls name; whatever a client makes up is merely not found."""
    calls = message.get("tool_calls") if message.get("role") == "assistant" else None
    ids = [call.get("id") for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return [name.removeprefix(ID).rpartition("_")[0] for name in ids if isinstance(name, str) and name.startswith(ID)]


def remembered(flow: Flow, recalled: Recalled) -> Flow:
    """The flow, whose answer may refer to results of earlier turns, and says whether they were there."""
    end: End = yield from flow
    told = {**end.told, "state": recalled.state}
    if isinstance(end, Commit):
        return replace(end, splice={**recalled.splices, **end.splice}, told=told)
    return Fail(end.error, end.outcomes, told) if isinstance(end, Fail) else replace(end, told=told)
