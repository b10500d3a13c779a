"""Which replica of a tier a request prefers: one that has read its beginning before, and so has it in its prefix cache.

    hint = hint_of(body, session, "prefix")            # in the ingress: what names the conversation, and its beginning
    home, others = affinity.preferred(hint, replicas, queue)

- A conversation stays where its last request was answered, as long as that replica lives.
- A new one goes where its beginning belongs: rendezvous hashing of its first `head` characters (`prefix`), or of the
  conversation itself (`session`, or where the client has named it). Every ingress computes the same, and asks nobody;
  when a replica goes or comes, only what belonged to it moves.
- Bounded: where the queue there is longer by more than `slack` than that of another - of up to `FEW` replicas any, else the
  second in the hash's order or two by chance - the shortest takes it, and is its home from then on. So a beginning that
  everybody sends is soon in the cache of every replica.
"""

import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from classifiers.text.prompt import content_text

How = Literal["prefix", "session", "none"]
HEAD = 1_000  # characters that are a beginning: longer than most greetings, shorter than most instructions with a text
LONGEST = 20_000  # characters of a first message that name a conversation
FEW = 8  # replicas that are all looked at
WORD = (1 << 64) - 1


def hint_of(body: Mapping[str, Any], session: str, how: How, head: int = HEAD) -> str:
    """`CONVERSATION PLACE`, digests; empty for `none`. session: what the client calls its conversation, if it does."""
    if how == "none":
        return ""
    said = beginning(body)
    conversation = digest(session or said)
    return f"{conversation} {conversation if session or how == 'session' else digest(said[:head])}"


def beginning(body: Mapping[str, Any]) -> str:
    """The messages up to the first of a user, or the prompt, as text of at most `LONGEST` characters."""
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
    """The two first of a rendezvous hash, or the one that there is. numbers: replica -> 64 random bits that are its own."""
    key = int(place, 16)
    return sorted(replicas, key=lambda name: mixed(key ^ numbers[name]), reverse=True)[:2]


def mixed(bits: int) -> int:
    """splitmix64's last steps: every bit of the input changes half of the output's."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & WORD
    return bits ^ (bits >> 31)


@dataclass(slots=True)
class Affinity:
    """What one ingress remembers of one tier. slack: requests by which a queue may be longer and still be preferred."""

    slack: float = 8.0
    most: int = 10_000
    """conversations remembered; the least recently used goes first"""
    pick: Callable[[Sequence[str]], str] = random.choice
    homes: "OrderedDict[str, str]" = field(default_factory=OrderedDict)
    numbers: dict[str, int] = field(default_factory=dict)

    def preferred(self, hint: str, replicas: Sequence[str], queue: Callable[[str], float]) -> list[str]:
        """Replicas, the preferred one first; few, not all. `replicas` is not empty; queue: requests under way there."""
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
        """Numbers for these replicas, and for no others."""
        if len(self.numbers) != len(replicas) or any(name not in self.numbers for name in replicas):
            self.numbers = {name: int(digest(name), 16) for name in replicas}

    def answered(self, hint: str, replica: str) -> None:
        """From now on the conversation is at home there."""
        conversation = hint.split(" ")[0]
        self.homes[conversation] = replica
        self.homes.move_to_end(conversation)
        while len(self.homes) > self.most:
            self.homes.popitem(last=False)
