"""Does a text ask for several things that can be done apart? A small linear classifier over its structure.

Chains (each step needs the one before) and questions about one whole stay with one tier: there splitting loses quality.
The coefficients beside this file are made by `benchmarks/decomposability.py`.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from classifiers.parts.cut import ASKS, Cut, cut

FILE = Path(__file__).with_suffix(".json")
FRAME = 400  # characters at the beginning and end of what stands around the parts
MOST_PARTS = 24  # that are looked at


def words(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


EACH = words(
    "each",
    "every",
    "per",
    "individually",
    "separately",
    "one by one",
    "independently",
    "respectively",
    "apiece",
    "in turn",
    "for all",
    "all (?:of )?(?:these|the|them|those)",
    "both",
    "any order",
    "unrelated",
    "independent",
)
PLURAL = words(
    "(?:these|those|following|my|some|few|several|the|all|\\d+|three|four|five|six|seven|eight|ten) (?:\\w+ ){0,2}"
    "(?:tasks|questions|items|jobs|requests|problems|exercises|sentences|reviews|products|topics|words|phrases|emails|tickets|"
    "names|files|documents|articles|sections|chapters|paragraphs|comments|messages|functions|texts|passages|things|queries|"
    "countries|companies|titles|headlines|abstracts|entries|records|posts|letters|calculations|sums|snippets|modules|reports|"
    "transcripts|pages|excerpts|captions|todos|quizzes)"
)
CHAIN = words(
    "then",
    "next",
    "after that",
    "afterwards",
    "finally",
    "previous",
    "preceding",
    "step by step",
    "result",
    "results",
    "so far",
    "the (?:sum|answer|number|output|value|total) (?:of|from|you)",
    "double it",
    "halve it",
    "subtract",
    "from there",
    "start with",
    "begin with",
    "continue",
    "carry on",
    "based on (?:that|the)",
    "build on",
    "using (?:that|the (?:result|answer))",
)
PROVE = words(
    "prove",
    "proof",
    "debug",
    "derive",
    "deduce",
    "why",
    "reason(?:ing)?",
    "explain how",
    "root cause",
    "traceback",
    "trace",
    "stack trace",
    "refactor",
    "design",
    "architecture",
    "plan",
    "strategy",
    "argue",
    "puzzle",
    "clues?",
    "who lives",
    "houses",
)
CHOOSE = words(
    "which (?:of|one|is|are|option|statement)?",
    "best",
    "rank",
    "compare",
    "contrast",
    "order",
    "sort",
    "choose",
    "pick",
    "select",
    "decide",
    "prioriti[sz]e",
    "most",
    "least",
    "worst",
    "odd one",
    "correct (?:answer|option|statement)",
    "differences?",
    "in common",
    "combine",
    "merge",
    "overall",
    "together",
    "trend",
    "versus",
    "vs",
    "rearrange",
    "consistent",
    "contradict\\w*",
)
RULES = words(
    "rules",
    "requirements",
    "constraints",
    "guidelines",
    "hints",
    "steps",
    "options",
    "premises",
    "facts",
    "instructions",
    "criteria",
    "conditions",
    "notes",
    "ingredients",
    "bullet points",
    "assumptions",
    "given",
    "statements",
    "clues",
    "must",
    "should",
    "preferences",
    "points",
    "background",
    "log",
    "timeline",
    "agenda",
)
ONE_WORK = words(
    "(?:write|draft|create|compose|make|build|implement|give|prepare|produce|turn) (?:me |it |this |these |them |up )?(?:into )?"
    "(?:an?|one|the) (?:\\w+ ){0,2}(?:essay|story|function|program|email|poem|letter|report|class|script|speech|plan|"
    "post|article|summary|app|page|song|dialogue|query|schedule|paragraph|"
    "blog|cover letter|recipe|sentence|table|timeline|proposal|component)"
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
OPTION = re.compile(r"^\s*\(?[A-Ja-j][.):]\s", re.MULTILINE)
CODE = re.compile(
    r"^\s*(?:def |class |import |from \w+ import|Traceback|#include|public |function |const |at \w+\.)|[{};]\s*$", re.MULTILINE
)

FEATURES = (
    "log_parts",
    "numbered",
    "bullets",
    "files",
    "sections",
    "paragraphs",
    "three_parts",
    "each",
    "plural",
    "chain",
    "prove",
    "choose",
    "rules",
    "one_work",
    "asking_parts",
    "ordering_parts",
    "back_parts",
    "log_part_words",
    "even_parts",
    "log_words",
    "parts_share",
    "questions_around",
    "arithmetic",
    "options",
    "code",
    "tail",
    "listed_each",
    "listed_plural",
    "listed_ordering",
    "listed_asking",
    "listed_back",
    "listed_chain",
    "listed_choose",
    "listed_rules",
    "listed_one_work",
    "documents_each",
)


def capped(pattern: re.Pattern[str], text: str, most: int = 3) -> float:
    """How often it is found, up to `most`, as a share of that."""
    found = 0
    for found, _ in enumerate(pattern.finditer(text), 1):
        if found == most:
            break
    return found / most


def around(text: str, shape: Cut) -> str:
    """What frames the parts: the text before and after them; of a text without structure its first and last paragraph."""
    if shape.kind == "paragraphs" and not shape.head and not shape.tail:
        ends = text.strip().split("\n\n", 1)[0], text.strip().rsplit("\n\n", 1)[-1]
        return f"{ends[0][:FRAME]}\n{ends[1][-FRAME:]}" if ends[0] != ends[1] else f"{text[:FRAME]}\n{text[FRAME:][-FRAME:]}"
    head = shape.head if len(shape.head) <= 2 * FRAME else f"{shape.head[:FRAME]}\n{shape.head[-FRAME:]}"
    return f"{head}\n{shape.tail[-FRAME:]}"


def share(pattern: re.Pattern[str], texts: Sequence[str]) -> float:
    return sum(bool(pattern.search(text)) for text in texts) / max(1, len(texts))


def features(text: str) -> list[float]:
    """In the order of FEATURES; all but logarithms in [0, 1]."""
    shape = cut(text)
    frame = around(text, shape)
    parts = [part.text[:FRAME] for part in shape.parts[:MOST_PARTS] if part.text]
    sizes = [len(part.split()) for part in parts] or [0]
    n = len(shape.parts) if shape.kind != "paragraphs" or len(shape.parts) > 1 else 0
    mean = sum(sizes) / len(sizes)
    listed = float(shape.kind in ("numbered", "bullets") and n >= 3)
    documents = float(n >= 3 and not listed)
    each, plural, chain = capped(EACH, frame), capped(PLURAL, frame, 1), capped(CHAIN, frame)
    choose, rules, one_work = capped(CHOOSE, frame), capped(RULES, frame), capped(ONE_WORK, frame, 1)
    asking = sum(part.rstrip().endswith("?") for part in parts) / max(1, len(parts)) if n else 0.0
    ordering = share(ORDER, parts) if n else 0.0
    back = share(BACK, parts[1:]) if n else 0.0
    return [
        math.log1p(n),
        *(float(shape.kind == kind) for kind in ("numbered", "bullets", "files", "sections")),
        float(shape.kind == "paragraphs"),
        float(n >= 3),
        each,
        plural,
        chain,
        capped(PROVE, frame),
        choose,
        rules,
        one_work,
        asking,
        ordering,
        back,
        math.log1p(mean),
        1 / (1 + deviation(sizes, mean)),
        math.log1p(len(text) / 6),
        sum(len(part.text) for part in shape.parts) / max(1, len(text)),
        min(3, frame.count("?")) / 3,
        capped(ARITHMETIC, text[: 4 * FRAME], 4),
        capped(OPTION, text[-4 * FRAME :], 4),
        capped(CODE, text[: 8 * FRAME]),
        float(bool(shape.tail)),
        listed * each,
        listed * plural,
        listed * ordering,
        listed * asking,
        listed * back,
        listed * chain,
        listed * choose,
        listed * rules,
        listed * one_work,
        documents * each,
    ]


def deviation(sizes: Sequence[int], mean: float) -> float:
    """Standard deviation over the mean."""
    return math.sqrt(sum((size - mean) ** 2 for size in sizes) / len(sizes)) / mean if mean else 0.0


@dataclass(frozen=True, slots=True)
class Decomposability:
    """Coefficients on raw features; the chance is calibrated so that 0.5 is where to begin."""

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
