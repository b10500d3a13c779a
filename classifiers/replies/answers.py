"""The final answer of a reply, and whether two replies agree: numbers by value, options by letter, texts by characters.

Two unlike models that give the same answer are seldom both wrong, so without labels or log-probabilities agreement is the
strongest signal. A reply without a short final answer cannot be compared: that gives None, not disagreement.
"""

import ast
import json
import re

LONGEST = 200  # characters; a longer text is prose, and two such texts never agree word for word
LONGEST_LITERAL = 20_000  # characters
_MARKED = re.compile(r"(?:\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|####\s*(.+)|\banswer(?: is)?\s*[:=]?\s*(.+))", re.I)
_OPTION = re.compile(r"\(?([A-Z])[).:]?(?=\s|$)")
_FENCE = re.compile(r"```\w*\s*\n?")
_EDGES = " \t\n\"'`*"
NO_ANSWER = frozenset(("", "none", "n/a", "null"))


def normal(answer: str | None) -> str | None:
    """A normal form, in which equal answers are equal texts; None if there is no answer.

    Numbers are rounded to six digits, options become one letter, JSON gets sorted keys, other texts lose case and space.
    """
    text = (answer or "").strip(_EDGES).rstrip(".:").removesuffix("%").removeprefix("$").strip()
    if text.lower() in NO_ANSWER:
        return None
    if number := _number(text):
        return number
    option = _OPTION.fullmatch(text) or re.fullmatch(r"\(?([a-zA-Z])\)", text)
    if option:
        return option[1].upper()
    return _json(text) or re.sub(r"\s+", "", text).replace('"', "'").lower() or None


def _number(text: str) -> str | None:
    plain = text.replace(",", "") if re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) else text
    if not re.fullmatch(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", plain):
        return None
    return f"{float(plain):.6g}" if abs(float(plain)) < 1e6 else str(float(plain))


def _json(text: str) -> str | None:
    if text[:1] not in "{[":
        return None
    for parse in (json.loads, ast.literal_eval):  # models also write Python literals
        if parse is ast.literal_eval and len(text) > LONGEST_LITERAL:
            break  # it takes a hundred times as long as JSON
        try:
            return json.dumps(parse(text), sort_keys=True, separators=(",", ":"))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def final_answer(reply: str) -> str | None:
    r"""The normalised final answer: from \boxed{}, "#### x" or "answer: x", else a short reply as a whole. None if neither."""
    text = reply.strip()
    if opened := _FENCE.match(text):
        text = text[opened.end() :]
    text = text.removesuffix("```").strip()
    if value := _json(text):
        return value
    if marked := _MARKED.findall(text):
        found = next((part for part in marked[-1] if part), "")
        option = _OPTION.match(found.strip(_EDGES))
        return normal(option[1] if option else (found.splitlines() or [""])[0][:LONGEST])
    return normal(text) if len(text) <= LONGEST and "\n" not in text else None


def same(a: str | None, b: str | None) -> bool | None:
    """Whether two normalised answers are equal; None if either is missing."""
    return None if a is None or b is None else a == b
