"""The final answer of a reply and whether two replies agree: numbers by value, options by letter, texts by their characters.

Two unlike models that give the same answer are seldom both wrong, so agreement is the strongest sign there is without
labels or log-probabilities. A reply that ends in no short answer cannot be compared: that is None, not disagreement.
"""

import ast
import json
import re

LONGEST = 200  # characters; a longer text is prose, and two of a kind never agree word for word
_MARKED = re.compile(r"(?:\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|####\s*(.+)|\banswer(?: is)?\s*[:=]?\s*(.+))", re.I)
_OPTION = re.compile(r"\(?([A-Z])[).:]?(?=\s|$)")
_FENCE = re.compile(r"^\s*```\w*\s*\n?|\s*```\s*$")
_EDGES = " \t\n\"'`*"
FREE = frozenset(("", "none", "n/a", "null"))


def normal(answer: str | None) -> str | None:
    """A form in which equal answers are equal texts; None where there is no answer.

    Numbers by value to six digits, one option letter alone, JSON with sorted keys, other texts without case and space.
    """
    text = (answer or "").strip(_EDGES).rstrip(".:").removesuffix("%").removeprefix("$").strip()
    if text.lower() in FREE:
        return None
    number = _number(text)
    if number is not None:
        return number
    option = _OPTION.fullmatch(text) or re.fullmatch(r"\(?([a-zA-Z])\)", text)
    if option:
        return option[1].upper()
    value = _json(text)
    if value is not None:
        return value
    return re.sub(r"\s+", "", text).replace('"', "'").lower() or None


def _number(text: str) -> str | None:
    plain = text.replace(",", "") if re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) else text
    if not re.fullmatch(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", plain):
        return None
    return f"{float(plain):.6g}" if abs(float(plain)) < 1e6 else str(float(plain))


def _json(text: str) -> str | None:
    if text[:1] not in "{[":
        return None
    for read in (json.loads, ast.literal_eval):  # Python's way of writing the same
        try:
            return json.dumps(read(text), sort_keys=True, separators=(",", ":"))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def final_answer(reply: str) -> str | None:
    r"""The comparable end of a reply, normalised: \boxed{}, "#### x", "answer: x", else a reply short enough as a whole.

    None where nothing of the kind is there.
    """
    text = _FENCE.sub("", reply).strip()
    value = _json(text)
    if value is not None:
        return value
    marked = _MARKED.findall(text)
    if marked:
        found = next(part for part in marked[-1] if part) if any(marked[-1]) else ""
        option = _OPTION.match(found.strip(_EDGES))
        return normal(option[1] if option else found.splitlines()[0][:LONGEST] if found else None)
    return normal(text) if len(text) <= LONGEST and "\n" not in text else None


def same(a: str | None, b: str | None) -> bool | None:
    """Whether two normalised answers are equal; None where either is missing."""
    return None if a is None or b is None else a == b
