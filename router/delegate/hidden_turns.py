"""Keeps the calls of our own function in a turn whose answer calls the client's tools, until the client comes back.

The answer's tool calls get ids `call_sd_<key>_<n>`. When a later request brings that answer back, the hidden messages are put
before it again, so that the tier reads what it read before. They are kept in memory, for a while, for one API key; when they are
gone, the request goes on without them.
"""

import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from router.decide.sessions import digest
from router.delegate.splice import clients_own
from router.request.body import wants_json
from router.types import Commit, End, Flow, Request

CALL_ID_PREFIX = "call_sd_"


@dataclass(frozen=True, slots=True)
class HiddenTurn:
    """The hidden messages of one turn."""

    messages: tuple[Mapping[str, Any], ...]
    splices: Mapping[str, str]
    """results that later text may still refer to"""
    tier: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was found of the hidden turns that a request names."""

    tier: str | None
    """the tier of the latest one; it has read the messages"""
    splices: Mapping[str, str] = field(default_factory=dict)
    missed: int = 0

    @property
    def state(self) -> str:
        return "miss" if self.missed else "hit"


class HiddenTurns:
    """Hidden turns by key and owner (an API key's id). The least recently used are dropped first."""

    def __init__(
        self, most: int = 1_000, most_bytes: int = 64_000_000, ttl_s: float = 1_800, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.most_bytes, self.ttl_s, self.clock = most, most_bytes, ttl_s, clock
        self.known: OrderedDict[str, tuple[HiddenTurn, float]] = OrderedDict()
        self.bytes = 0
        self.lock = threading.Lock()  # a large request looks for its turns in another thread than those that keep theirs

    def keep(self, owner: str, messages: Sequence[Mapping[str, Any]], splices: Mapping[str, str], tier: str) -> str:
        """Returns the key under which the turn is found again."""
        key = secrets.token_hex(10)
        size = len(json.dumps([*messages, dict(splices)]))
        with self.lock:
            self.known[digest(owner, key)] = HiddenTurn(tuple(messages), splices, tier, size), self.clock() + self.ttl_s
            self.bytes += size
            while len(self.known) > self.most or self.bytes > self.most_bytes:
                self.drop(next(iter(self.known)))
        return key

    def drop(self, place: str) -> None:
        self.bytes -= self.known.pop(place)[0].bytes

    def find(self, owner: str, key: str) -> HiddenTurn | None:
        place = digest(owner, key)
        with self.lock:
            turn, until = self.known.get(place, (None, 0.0))
            if turn is None:
                return None
            if self.clock() >= until:
                self.drop(place)
                return None
            self.known[place] = turn, self.clock() + self.ttl_s
            self.known.move_to_end(place)
            return turn

    def recall(self, owner: str, asked: Request) -> tuple[Request, Recalled | None]:
        """The request with every hidden turn that it names put back in its place, each once; None if it names none."""
        found: dict[str, HiddenTurn | None] = {}
        messages: list[Mapping[str, Any]] = []
        for message in asked.body.get("messages") or []:
            for key in named_turns(message):
                if key not in found:
                    turn = found[key] = self.find(owner, key)
                    messages += turn.messages if turn else ()
            messages.append(message)
        if not found:
            return asked, None
        turns = [turn for turn in found.values() if turn]
        kept = clients_own(asked.body["messages"])
        earlier = {name: text for turn in turns for name, text in turn.splices.items() if name not in kept}
        splices = {} if wants_json(asked.body) else earlier
        recalled = Recalled(turns[-1].tier if turns else None, splices, len(found) - len(turns))
        return replace(asked, body={**asked.body, "messages": messages}), recalled


def named_turns(message: Mapping[str, Any]) -> list[str]:
    """Keys in the ids of an assistant message's tool calls. A key that a client makes up is simply not found."""
    calls = message.get("tool_calls") if message.get("role") == "assistant" else None
    ids = [call.get("id") for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    ours = [name for name in ids if isinstance(name, str) and name.startswith(CALL_ID_PREFIX)]
    return [name.removeprefix(CALL_ID_PREFIX).rpartition("_")[0] for name in ours]


def with_recalled(flow: Flow, recalled: Recalled) -> Flow:
    """The flow, whose answer may refer to results of earlier turns; its end reports whether they were found."""
    end: End = yield from flow
    report = {**end.report, "state": recalled.state}
    if isinstance(end, Commit):
        return replace(end, splice={**recalled.splices, **end.splice}, report=report)
    return replace(end, report=report)
