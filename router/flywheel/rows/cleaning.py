"""Which kept requests may teach or measure a router: each one that may not, with the reason."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from classifiers.text.prompt import content_text
from router.errors import BadInput
from router.flywheel.rows.near_duplicates import plain
from router.flywheel.served import Answer, Grade, Served
from router.learn.chats import chat_of, is_whole
from router.trace import AUDITS, LEARNING

MOST_ROWS = 30_000  # the newest; more would make a router little better and its training much longer
LONGEST = 1_000_000  # characters of a request and its answers
CUT = frozenset({"length", "abort", "error", "content_filter"})  # finish reasons of an answer that is no reference
ECHO = 80  # first characters of a system prompt by which an answer that repeats it is known


def clean(rows: Sequence[Served], tiers: tuple[str, ...], now_s: float, left: Counter[str]) -> list[Served]:
    """The rows that may be used, oldest first, their grades made to fit each other. `left` counts the others by reason."""
    found: dict[str, Served] = {}
    for row in rows:
        if why := "given twice" if row.trace_id in found else fault(row, tiers, now_s):
            left[why] += 1
        elif (graded := reconciled(row, tiers)) is None:
            left["the top tier's answer was wrong, and what the others are worth is not known"] += 1
        else:
            found[row.trace_id] = graded
    kept = sorted(found.values(), key=lambda row: (row.at_s, row.trace_id))
    left["older than the newest rows that are used"] += max(0, len(kept) - MOST_ROWS)
    return kept[-MOST_ROWS:]


def fault(row: Served, tiers: tuple[str, ...], now_s: float) -> str:
    """Why a row may not be used; empty: it may.

    What only a smaller tier did badly (it was cut off, it repeated its instructions) is no fault: its grade says so, and without
    such rows the smaller tiers would look better than they are.
    """
    if why := request_fault(row, now_s):
        return why
    if not row.complete(tiers):
        return "some tier has no answer or no grade"
    return chance_fault(row) or reference_fault(row, row.answers[tiers[-1]]) or unreadable(row, tiers)


def request_fault(row: Served, now_s: float) -> str:
    """Why nothing can be learned from a request, whatever was answered; empty: something can."""
    if row.key_id in (LEARNING, AUDITS):
        return "our own traffic"
    if row.at_s > now_s:
        return "newer than this run"
    if row.status != 200:
        return "an error"
    return "answered by another tier than was chosen (degraded)" if row.degraded else ""


def chance_fault(row: Served) -> str:
    return "" if 0 < row.chance <= 1 else "the chance of being drawn is not known"


def reference_fault(row: Served, answer: Answer, whose: str = "the top tier's") -> str:
    """Why an answer is no measure of others; empty: it is one."""
    if answer.finish in CUT:
        return f"{whose} answer was cut off"
    return f"{whose} answer repeats the system prompt" if echoes(row, answer.text) else ""


def unreadable(row: Served, tiers: tuple[str, ...]) -> str:
    """Why the row's texts cannot be learned from; empty: they can."""
    try:
        asked = chat_of({"messages": list(row.messages)})
    except BadInput:
        return "its messages cannot be read"
    size = sum(len(content_text(message.get("content"))) for message in asked)
    if not size:
        return "nothing is asked"
    if size + sum(len(row.answers[tier].text) for tier in tiers) > LONGEST:
        return f"longer than {LONGEST:,} characters"
    return "" if is_whole(row.body) else "its messages cannot be read"


def echoes(row: Served, answer: str) -> bool:
    """Whether an answer repeats the request's system prompt."""
    said = [message for message in row.messages if message.get("role") in ("system", "developer")]
    told = [plain(content_text(message.get("content")))[:ECHO] for message in said]
    return any(len(text) == ECHO and text in plain(answer) for text in told)


def reconciled(row: Served, tiers: tuple[str, ...]) -> Served | None:
    """The row with grades that fit each other; None: they cannot.

    Most grades compare with the top tier's answer. Where somebody said what that one was worth, an answer that is the same is
    worth as much; what one that differs is worth is only known if somebody said so, or the client's tests did.
    """
    top = row.grades[tiers[-1]]
    if top.source not in ("feedback", "tests") or top.score is None or top.score >= 1:
        return row
    fixed: dict[str, Grade] = {}
    for tier in tiers[:-1]:
        grade = row.grades[tier]
        if grade.source in ("feedback", "tests"):
            continue
        if grade.source != "agreement" or grade.score != 1:
            return None
        fixed[tier] = replace(grade, score=top.score, detail="the same as the top tier's, which was graded")
    return replace(row, grades={**row.grades, **fixed})
