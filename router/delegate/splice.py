"""Puts results into an answer by reference.

`{{t3}}` in the text of the merging tier stands for the result of subtask t3. Only that tier's own text is searched, once:
a worker that writes `{{t1}}` gets exactly those six characters. So does a client: where its own texts have `{{t1}}`, a tier that
quotes them means no result, and tiers are told to write `{{result t1}}` for results.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from classifiers.text.prompt import content_text
from router.request.server_tools import calls_ours

LONGEST = 19  # characters of the longest reference, {{ result t64.64 }}
REFERENCE = re.compile(r"\{\{ ?((?:result )?t[0-9]{1,2}(?:\.[0-9]{1,2})?) ?\}\}")
LONGER = "result "  # before an id whose short reference is the client's own text


def references(text: str, kept: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """The ids of results that the text refers to, in order, each once. kept: references that are the client's own text."""
    return tuple(dict.fromkeys(found.removeprefix(LONGER) for found in REFERENCE.findall(text) if found not in kept))


def clients_own(messages: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """What looks like references in the client's messages, hidden turns of ours aside."""
    hidden = {str(call.get("id")) for message in messages for call in calls_of(message) if calls_ours(call)}
    found: set[str] = set()
    for message in messages:
        calls = calls_of(message)
        if str(message.get("tool_call_id")) not in hidden and not any(map(calls_ours, calls)):
            text = content_text(message.get("content")) + (json.dumps(calls) if calls else "")
            found |= set(REFERENCE.findall(text)) if "{{" in text else set()
    return frozenset(found)


def calls_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []


def by_reference(results: Mapping[str, str], kept: frozenset[str]) -> dict[str, str]:
    """Results by id as results by what stands for them in a text."""
    longer = {LONGER + name: text for name, text in results.items()} if kept else {}
    return {name: text for name, text in {**results, **longer}.items() if name not in kept}


def splice(text: str, results: Mapping[str, str]) -> str:
    """Replace references by their results; a reference to anything else stays as it is. results: as `by_reference` gives."""
    return REFERENCE.sub(lambda found: results.get(found[1], found[0]), text)


class Splicer:
    """`splice` for streamed text: holds back at most LONGEST characters that may become a reference."""

    def __init__(self, results: Mapping[str, str]) -> None:
        self.results = results
        self.held = ""

    def feed(self, text: str) -> str:
        """Take the next piece; returns the text that can be sent now."""
        if not self.results:
            return text
        self.held += text
        safe = len(self.held) - len(unfinished(self.held))
        ready, self.held = self.held[:safe], self.held[safe:]
        return splice(ready, self.results)

    def end(self) -> str:
        """The text still held back when the stream ends."""
        ready, self.held = self.held, ""
        return ready


def unfinished(text: str) -> str:
    """The end of the text that may still grow into a reference."""
    at = text.rfind("{{", -LONGEST)
    inside = text[at + 2 :].removeprefix(" ")
    begun = LONGER.startswith(inside) or inside.removeprefix(LONGER).startswith("t")
    if at >= 0 and begun and "}}" not in inside and len(text) - at < LONGEST:
        return text[at:]
    return "{" if text.endswith("{") else ""
