"""The replica of a tier that a request prefers: one that has its beginning in the prefix cache.

    hint = hint_of(body, session, "prefix")            # in the ingress: digests of the conversation and of its beginning
    first, *others = affinity.preferred(hint, replicas, queue)

- A conversation stays on the replica that answered its last request, as long as that replica lives.
- A new conversation is placed by rendezvous hashing of its first `head` characters (`prefix`), or of the conversation
  itself (`session`, or where the client named it). Every ingress computes the same place without asking anyone; when a
  replica comes or goes, only the conversations that hash to it move.
- The preference is bounded: where that replica's queue is longer by more than `slack` than another's, the replica with the
  shortest queue takes the request and is the conversation's home from then on. The others looked at are all of up to
  `FEW` replicas, else the second by hash and two at random. So a beginning that everybody sends is soon cached everywhere.
"""

import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from classifiers.text.prompt import content_text

How = Literal["prefix", "session", "none"]
HEAD = 1_000  # characters of a beginning: longer than most greetings, shorter than most instructions with a text
LONGEST = 20_000  # characters of the first messages that identify a conversation
FEW = 8  # up to so many replicas, the queues of all are compared
WORD = (1 << 64) - 1  # mask of 64 bits


def hint_of(body: Mapping[str, Any], session: str, how: How, head: int = HEAD) -> str:
    """Two digests, `CONVERSATION PLACE`; empty for `none`. session: the client's name for its conversation, or empty."""
    if how == "none":
        return ""
    said = beginning(body)
    conversation = digest(session or said)
    return f"{conversation} {conversation if session or how == 'session' else digest(said[:head])}"


def beginning(body: Mapping[str, Any]) -> str:
    """The messages up to the user's first, or the prompt, as text of at most `LONGEST` characters."""
    parts: list[str] = []
    size = 0
    for message in body.get("messages") or ():
        role, text = str(message.get("role")), content_text(message.get("content"))[: LONGEST - size]
        parts += (role, text)
        size += len(text)
        if role == "user" or size >= LONGEST:
            break
    return "\0".join(parts) if parts else str(body.get("prompt") or "")[:LONGEST]


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def ranked(place: str, replicas: Sequence[str], numbers: Mapping[str, int]) -> list[str]:
    """The first two replicas by rendezvous hash, or the only one. numbers: replica -> its own 64 random bits."""
    key = int(place, 16)
    return sorted(replicas, key=lambda name: mixed(key ^ numbers[name]), reverse=True)[:2]


def mixed(bits: int) -> int:
    """The last steps of splitmix64: every bit of the input changes about half of the output's bits."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & WORD
    return bits ^ (bits >> 31)


@dataclass(slots=True)
class Affinity:
    """What one ingress remembers of one tier's conversations. slack: how many requests longer the home's queue may be."""

    slack: float = 8.0
    most: int = 10_000
    """conversations remembered; the least recently used is forgotten first"""
    pick: Callable[[Sequence[str]], str] = random.choice
    homes: "OrderedDict[str, str]" = field(default_factory=OrderedDict)
    numbers: dict[str, int] = field(default_factory=dict)

    def preferred(self, hint: str, replicas: Sequence[str], queue: Callable[[str], float]) -> list[str]:
        """A few replicas, the preferred one first. `replicas` is not empty; queue: requests in flight at a replica."""
        conversation, place = hint.split(" ")
        self.know(replicas)
        home = self.homes.get(conversation, "")
        first = [home] if home in self.numbers else ranked(place, replicas, self.numbers)
        seen = replicas if len(replicas) <= FEW else [self.pick(replicas), self.pick(replicas)]
        others = [name for name in dict.fromkeys((*first, *seen)) if name != first[0]]
        others.sort(key=queue)
        crowded = others and queue(first[0]) > queue(others[0]) + self.slack
        return [*others, first[0]] if crowded else [first[0], *others]

    def know(self, replicas: Sequence[str]) -> None:
        """Keep numbers for these replicas and no others."""
        if len(self.numbers) != len(replicas) or any(name not in self.numbers for name in replicas):
            self.numbers = {name: int(digest(name), 16) for name in replicas}

    def answered(self, hint: str, replica: str) -> None:
        """Make the replica the conversation's home."""
        conversation = hint.split(" ")[0]
        self.homes[conversation] = replica
        self.homes.move_to_end(conversation)
        while len(self.homes) > self.most:
            self.homes.popitem(last=False)
