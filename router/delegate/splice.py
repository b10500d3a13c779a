"""Puts results into an answer by reference.

`{{t3}}` in the text of the merging tier stands for the result of subtask t3. Only that tier's own text is searched, once:
a worker that writes `{{t1}}` gets exactly those six characters.
"""

import re
from collections.abc import Mapping

LONGEST = 12  # characters of the longest reference, {{ t64.64 }}
REFERENCE = re.compile(r"\{\{ ?(t[0-9]{1,2}(?:\.[0-9]{1,2})?) ?\}\}")


def references(text: str) -> tuple[str, ...]:
    """The ids that the text refers to, in order, each once."""
    return tuple(dict.fromkeys(REFERENCE.findall(text)))


def splice(text: str, results: Mapping[str, str]) -> str:
    """Replace references by their results; a reference to anything else stays as it is."""
    return REFERENCE.sub(lambda found: results.get(found[1], found[0]), text)


class Splicer:
    """`splice` for streamed text: holds back at most 12 characters that may become a reference."""

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
    if at >= 0 and "}}" not in text[at:] and len(text) - at < LONGEST:
        return text[at:]
    return "{" if text.endswith("{") else ""
