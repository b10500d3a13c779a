"""Does a text ask for several things that can be done independently? A small linear classifier over its structure.

Chains (each step needs the one before) and questions about one whole stay with one tier: splitting them loses quality.
The coefficients beside this file are made by `benchmarks/decomposability.py`.
"""

import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from classifiers.parts.cut import ASKS, Cut, cut

FILE = Path(__file__).with_suffix(".json")
FRAME = 400  # characters looked at: of each end of the text around the parts, and of each part
MOST_PARTS = 24  # parts looked at
CUES = {name: "|".join(words) for name, words in tomllib.loads(FILE.with_suffix(".toml").read_text("utf-8")).items()}


def cues(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


EACH = cues(CUES["each"])
CHAIN = cues(CUES["chain"])
PROVE = cues(CUES["prove"])
CHOOSE = cues(CUES["choose"])
RULES = cues(CUES["rules"])
PLURAL = cues(rf"(?:{CUES['quantity']}) (?:\w+ ){{0,2}}(?:{CUES['things']})")
ONE_WORK = cues(
    rf"(?:{CUES['make']}) (?:me |it |this |these |them |up )?(?:into )?(?:an?|one|the) (?:\w+ ){{0,2}}(?:{CUES['work']})"
)
BACK = re.compile(
    r"\b(?:previous|preceding|above|result|results|so far|that (?:number|value|answer|result|list|sum|function)|"
    r"(?:step|part|item|question|task) #?\d|(?:your|the) answer|it|them|its|earlier|first one|from (?:before|there))\b"
    r"|^\s*(?:then|next|now|finally|after|afterwards|using|with|and|also|continue|repeat)\b",
    re.IGNORECASE,
)
ORDER = re.compile(rf"{ASKS.pattern}|^(?:what|which|who|whom|whose|where|when|how|is|are|does|do|did|can)\b", re.IGNORECASE)
ARITHMETIC = re.compile(
    r"(?:^|[.;,\n] ?|then |and )(?:add|subtract|double|triple|multiply|divide|halve|take|increase|decrease|square|plus|minus)\b",
    re.IGNORECASE,
)
# A line's own space, [^\S\n], instead of \s: over empty lines that would take quadratic time.
OPTION = re.compile(r"^[^\S\n]*\(?[A-Ja-j][.):]\s", re.MULTILINE)
CODE = re.compile(
    r"^[^\S\n]*(?:def |class |import |from \w+ import|Traceback|#include|public |function |const |at \w+\.)|[{};][^\S\n]*$",
    re.MULTILINE,
)


def capped(pattern: re.Pattern[str], text: str, most: int = 3) -> float:
    """The number of matches, counted up to `most`, divided by `most`."""
    found = 0
    for found, _ in enumerate(pattern.finditer(text), 1):
        if found == most:
            break
    return found / most


def around(text: str, shape: Cut) -> str:
    """The text before and after the parts; of a text without structure, its first and last paragraph."""
    if shape.kind == "paragraphs" and not shape.head and not shape.tail:
        ends = text.strip().split("\n\n", 1)[0], text.strip().rsplit("\n\n", 1)[-1]
        return f"{ends[0][:FRAME]}\n{ends[1][-FRAME:]}" if ends[0] != ends[1] else f"{text[:FRAME]}\n{text[FRAME:][-FRAME:]}"
    head = shape.head if len(shape.head) <= 2 * FRAME else f"{shape.head[:FRAME]}\n{shape.head[-FRAME:]}"
    return f"{head}\n{shape.tail[-FRAME:]}"


def share(pattern: re.Pattern[str], texts: Sequence[str]) -> float:
    return sum(bool(pattern.search(text)) for text in texts) / max(1, len(texts))


def deviation(sizes: Sequence[int], mean: float) -> float:
    """Standard deviation over the mean."""
    return math.sqrt(sum((size - mean) ** 2 for size in sizes) / len(sizes)) / mean if mean else 0.0


def named_features(text: str) -> dict[str, float]:
    """All but the logarithms are in [0, 1]."""
    shape = cut(text)
    frame = around(text, shape)
    parts = [part.text[:FRAME] for part in shape.parts[:MOST_PARTS] if part.text]
    sizes = [len(part.split()) for part in parts] or [0]
    mean = sum(sizes) / len(sizes)
    n = len(shape.parts) if shape.kind != "paragraphs" or len(shape.parts) > 1 else 0
    listed = float(shape.kind in ("numbered", "bullets") and n >= 3)
    of_frame = {
        "each": capped(EACH, frame),
        "plural": capped(PLURAL, frame, 1),
        "chain": capped(CHAIN, frame),
        "prove": capped(PROVE, frame),
        "choose": capped(CHOOSE, frame),
        "rules": capped(RULES, frame),
        "one_work": capped(ONE_WORK, frame, 1),
    }
    of_parts = {
        "asking": sum(part.rstrip().endswith("?") for part in parts) / max(1, len(parts)) if n else 0.0,
        "ordering": share(ORDER, parts) if n else 0.0,
        "back": share(BACK, parts[1:]) if n else 0.0,
    }
    counts = of_frame | of_parts
    with_list = ("each", "plural", "ordering", "asking", "back", "chain", "choose", "rules", "one_work")
    return {
        "log_parts": math.log1p(n),
        **{kind: float(shape.kind == kind) for kind in ("numbered", "bullets", "files", "sections", "paragraphs")},
        "three_parts": float(n >= 3),
        **of_frame,
        **{f"{name}_parts": value for name, value in of_parts.items()},
        "log_part_words": math.log1p(mean),
        "even_parts": 1 / (1 + deviation(sizes, mean)),
        "log_words": math.log1p(len(text) / 6),
        "parts_share": sum(len(part.text) for part in shape.parts) / max(1, len(text)),
        "questions_around": min(3, frame.count("?")) / 3,
        "arithmetic": capped(ARITHMETIC, text[: 4 * FRAME], 4),
        "options": capped(OPTION, text[-4 * FRAME :], 4),
        "code": capped(CODE, text[: 8 * FRAME]),
        "tail": float(bool(shape.tail)),
        **{f"listed_{name}": listed * counts[name] for name in with_list},
        "documents_each": float(n >= 3 and not listed) * of_frame["each"],
    }


FEATURES = tuple(named_features(""))


def features(text: str) -> list[float]:
    """In the order of FEATURES."""
    return list(named_features(text).values())


@dataclass(frozen=True, slots=True)
class Decomposability:
    """Coefficients on raw features. The chance is calibrated so that a text is split from 0.5 on."""

    coefficients: tuple[float, ...]
    intercept: float

    def chance(self, text: str) -> float:
        """In [0, 1]."""
        z = self.intercept + sum(c * x for c, x in zip(self.coefficients, features(text), strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, z))))


@cache
def shipped() -> Decomposability:
    """The classifier beside this file."""
    made = json.loads(FILE.read_text("utf-8"))
    named = made["coefficients"]
    return Decomposability(tuple(named[name] for name in FEATURES), made["intercept"])


def splits(text: str) -> bool:
    """Whether the text should be offered to a planner at all."""
    return shipped().chance(text) >= 0.5
