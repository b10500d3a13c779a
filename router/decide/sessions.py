"""Keeps a conversation on its tier unless the gain of a change outweighs the loss of the prefix cache."""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from classifiers import Rule
from classifiers.choose import Floats
from classifiers.text.prompt import content_text
from router.types import Decision

# Rough on purpose: they only have to tell a long conversation, which should stay, from a short one, which may move.
READING = 0.5  # share of a request's cost that goes into reading its prompt
CACHED = 0.9  # share of reading that a cached prefix saves
LONGEST = 65_536  # characters of one message
HEADERS = ("x-session-id", "x-session-affinity", "session-id", "x-claude-code-session-id")
"""by which clients name a conversation, the first that counts first"""


def name_of(headers: Mapping[str, str], body: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """What the client calls its conversation, by the first of its headers and fields that says so; empty: it does not.

    metadata: the body's, wherever it is now.
    """
    for header in HEADERS:
        if named := headers.get(header):
            return named
    fields = body.get("prompt_cache_key"), metadata.get("user_id")
    return next((field for field in fields if isinstance(field, str) and field), "")


def key_of(body: Mapping[str, Any], given: str | None, owner: str) -> str | None:
    """Identifies a conversation of one `owner` (a key's id): by the client's own name for it, else by its messages up to the
    user's first.

    None where there is neither.
    """
    if given:
        return digest(owner, given)
    messages = body.get("messages") or []
    first = next((i for i, m in enumerate(messages) if m.get("role") == "user"), None)
    if first is None:
        return None
    head = [[m.get("role"), recognised(content_text(m.get("content")))] for m in messages[: first + 1]]
    return digest(owner, json.dumps(head))


def recognised(text: str) -> str:
    """What a text is recognised by: itself, or its beginning and length where encoding all of it would hold others up."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} {len(text)}"


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


def history_share(messages: Sequence[Mapping[str, Any]]) -> float:
    """Share of the prompt's characters that an earlier turn already sent, 0 to 1."""
    said = [len(content_text(m.get("content"))) for m in messages]
    answers = [i for i, m in enumerate(messages) if m.get("role") == "assistant"]
    return sum(said[: answers[-1]]) / max(1, sum(said)) if answers else 0.0


def in_tool_loop(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last message is a tool's result, for which the tier that called the tool waits."""
    return bool(messages) and messages[-1].get("role") in ("tool", "function")


def stay(
    decided: Decision,
    before: str,
    names: Sequence[str],
    p: Floats,
    cost: Floats,
    rule: Rule,
    messages: Sequence[Mapping[str, Any]],
) -> Decision:
    """The decision, changed to the tier `before` where leaving it is not worth the lost cache. p, cost: (n_tiers,)."""
    if before == decided.tier or before in decided.excluded or before not in names or rule.kind == "tier":
        return decided
    old, new = names.index(before), names.index(decided.tier)
    if in_tool_loop(messages) and new < old:
        return replace(decided, tier=before, reason="kept in a tool loop")
    kept_cost = cost[old] * (1 - READING * CACHED * history_share(messages))
    if rule.kind == "utility":
        stays = p[old] - rule.value * kept_cost >= p[new] - rule.value * cost[new]
    else:
        stays = new < old and kept_cost <= cost[new]  # a rule on chances goes up at any cost
    return replace(decided, tier=before, reason="kept for its cache") if stays else decided


class Sessions:
    """The tier of each conversation; the least recently used is forgotten first."""

    def __init__(self, most: int = 10_000, ttl_s: float = 1_800, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.ttl_s, self.clock = most, ttl_s, clock
        self.known: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def tier(self, key: str | None) -> str | None:
        tier, until = self.known.get(key or "", ("", 0.0))
        return tier if self.clock() < until else None

    def remember(self, key: str | None, tier: str) -> None:
        if key is None:
            return
        self.known[key] = (tier, self.clock() + self.ttl_s)
        self.known.move_to_end(key)
        while len(self.known) > self.most:
            self.known.popitem(last=False)
