"""Which kept requests may teach a student, what it is to learn of each, and how good its own answer was.

Rows come one by one, of any number; what is kept of them is bounded. Whatever is left out is counted with its reason.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unicodedata import name as character_name

from router.distil.licences import CORRECTION, Permissions
from router.distil.rows import Kind, Row, Student
from router.flywheel.grading.agreement import Known, Told, grade, is_sure
from router.flywheel.grading.filling import mean_logprob
from router.flywheel.rows.cleaning import MOST_ROWS, chance_fault, reference_fault, request_fault, unreadable
from router.flywheel.served import Answer, Grade, Served
from router.request.body import continues, several_wanted, wants_json

MOST_NAME = 64  # characters of a slice's value
LETTERS = 200  # by which a text's script is told
LEARNED = ("content", "tool_calls", "refusal", "reasoning")
"""what is learned of an answer's message"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Whose answers are looked at."""

    student: str
    teacher: str
    teacher_is_top: bool = True
    """grades compare with the top tier's answers; another teacher's answer must have been graded itself"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A request that may teach."""

    served: Served
    answer: Mapping[str, Any]
    """the assistant's message to learn"""
    licence: str
    correction: str = ""
    """what somebody said the answer should have been; empty: the teacher's answer is learned"""

    @property
    def rank(self) -> bytes:
        return rank_of(self.served.trace_id, 0)


def rank_of(trace_id: str, seed: int) -> bytes:
    """A place in a random order that depends on the id and the seed alone."""
    return hashlib.sha256(f"distil {seed} {trace_id}".encode()).digest()


class Bounded:
    """The `most` candidates with the highest rank."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.heap: list[tuple[Any, str, Candidate]] = []
        self.seen = 0

    def add(self, rank: Any, found: Candidate) -> None:
        self.seen += 1
        item = (rank, found.served.trace_id, found)
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, item)
        else:
            heapq.heappushpop(self.heap, item)

    @property
    def share(self) -> float:
        """Of what was added, what is kept."""
        return len(self.heap) / self.seen if self.seen else 1.0


class Collector:
    """Takes kept requests one by one, and keeps those that may teach: the newest drawn ones, and a sample of the others.

    now_s: rows after it are left out, so that the same call gives the same rows later. most: rows of each kind. may_teach: the
    licence gate. not_from: ids of keys that must not teach.
    """

    def __init__(
        self,
        pair: Pair,
        may_teach: Permissions,
        now_s: float,
        seed: int = 0,
        most: int = MOST_ROWS,
        not_from: Collection[str] = (),
    ) -> None:
        self.pair, self.may_teach, self.now_s, self.seed, self.not_from = pair, may_teach, now_s, seed, frozenset(not_from)
        self.left: Counter[str] = Counter()
        self.drawn, self.others = Bounded(most), Bounded(most)

    def add(self, served: Served, correction: str = "") -> None:
        found = self.candidate(served, correction)
        if isinstance(found, str):
            self.left[found] += 1
        elif served.drawn:
            self.drawn.add(served.at_s, found)
        else:
            self.others.add(rank_of(served.trace_id, self.seed), found)

    def candidate(self, served: Served, correction: str) -> Candidate | str:
        """Or why it may not teach."""
        why = request_fault(served, self.now_s) or chance_fault(served) or form_fault(served)
        if not why and served.key_id in self.not_from:
            why = "its key must not teach"
        found = why or self.to_learn(served, correction)
        if isinstance(found, str):
            return found
        known = tuple(tier for tier in (self.pair.student, self.pair.teacher) if tier in served.answers)
        return unreadable(served, known) or self.may_teach.fault(found.licence) or found

    def to_learn(self, served: Served, correction: str) -> Candidate | str:
        """The correction before the teacher's answer."""
        if correction.strip():
            return Candidate(served, {"role": "assistant", "content": correction}, CORRECTION, correction)
        answer, own = served.answers.get(self.pair.teacher), served.grades.get(self.pair.teacher)
        if answer is None:
            return "the teacher has not answered it"
        if own is None and not self.pair.teacher_is_top:
            return "the teacher's answer has no grade"
        if own is not None and own.score is None:
            return f"the teacher's answer cannot be graded: {own.detail or own.source}"
        if own is not None and own.score is not None and own.score < 1:
            return "the teacher's answer was not good"
        message = {name: answer.message[name] for name in LEARNED if answer.message.get(name)}
        if not message.keys() - {"reasoning"}:
            return "the teacher's answer is empty"
        whose = reference_fault(served, answer, "the teacher's")
        return whose or Candidate(served, {"role": "assistant", **message}, answer.licence)

    def found(self) -> list[Candidate]:
        """Oldest first, each request once."""
        for pool, why in ((self.drawn, "older than the newest that are used"), (self.others, "not drawn, and beyond the sample")):
            self.left[why] += pool.seen - len(pool.heap)
        both = {one.served.trace_id: one for _, _, one in (*self.others.heap, *self.drawn.heap)}
        return sorted(both.values(), key=lambda one: (one.served.at_s, one.served.trace_id))


def form_fault(served: Served) -> str:
    """Why a request cannot be learned from as one chat with one answer; empty: it can."""
    if served.flow == "delegation":
        return "its answer was put together from several"
    if continues(served.sampling) or several_wanted(served.sampling):
        return "it asks for several answers, or goes on with one"
    return ""


# -- how good the student's answer is --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Judged:
    """Compares students' answers with what is to be learned. means: of the teacher's log-probabilities, of all rows."""

    pair: Pair
    means: Sequence[float]
    prices: tuple[float, float] = (0.0, 0.0)
    left: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, pair: Pair, rows: Sequence[Candidate], left: Counter[str]) -> "Judged":
        means = [mean for row in rows if (mean := mean_logprob(row.served.answers.get(pair.teacher))) is not None]
        return cls(pair, means, left=left)

    def kept(self, row: Candidate) -> tuple[Answer, Grade] | None:
        """The student's kept answer with its grade; None: it has to be asked."""
        answer = row.served.answers.get(self.pair.student)
        return None if answer is None else (answer, self.grade(row, answer, row.served.grades.get(self.pair.student)))

    def grade(self, row: Candidate, answer: Answer, known: Grade | None = None) -> Grade:
        """The grade of a student's answer. known: which the log has."""
        if known is not None and known.score is not None and (not row.correction or known.source in ("feedback", "tests")):
            return known
        student, teacher = self.pair.student, self.pair.teacher
        answers = {student: answer, **({} if row.correction else {teacher: row.served.answers[teacher]})}
        told = Told(correction=row.correction)
        sure = row.correction != "" or is_sure(mean_logprob(row.served.answers.get(teacher)), self.means)
        body = row.served.body
        made = grade(Known((student, teacher), body, answers, student, told=told, sure=sure, judges=False), student)
        return Grade(None, "agreement", "the teacher was not sure of its answer") if isinstance(made, str) else made

    def row(self, one: Candidate, answer: Answer, made: Grade, group: str) -> Row | None:
        """The row of a data folder; None: it is not known which answer is better, and it is counted."""
        if made.score is None and not one.correction:
            self.left[f"which answer is better is not known: {made.detail or made.source}"] += 1
            return None
        served = one.served
        kind: Kind = "correction" if one.correction else ("failure" if made.score is not None and made.score < 1 else "success")
        taught = served.answers.get(self.pair.teacher)
        return Row(
            id=served.trace_id,
            messages=served.messages,
            answer=one.answer,
            kind=kind,
            student=Student(dict(answer.message), answer.finish, made.score, answer.output_tokens, answer.cost_usd),
            tools=served.tools,
            sampling=dict(served.sampling),
            weight=1 / served.chance if served.drawn else 1.0,
            drawn=served.drawn,
            group=group,
            conversation=served.conversation,
            key_id=served.key_id,
            at_s=served.at_s,
            slices=slices_of(served),
            licence=one.licence,
            teacher_tokens=taught.output_tokens if taught and not one.correction else 0,
            teacher_usd=taught.cost_usd if taught and not one.correction else 0.0,
        )


def slices_of(served: Served) -> dict[str, str]:
    """By what a request's results are looked at apart: its metadata, what it asks for, and its script."""
    form = "tools" if served.tools else ("json" if wants_json(served.sampling) else "text")
    own = {"form": form, "script": script_of(served)}
    return own | {str(name)[:MOST_NAME]: str(value)[:MOST_NAME] for name, value in sorted(served.metadata.items())}


def script_of(served: Served) -> str:
    """The script of most letters of the last message, such as latin or cyrillic; empty: it has no letters."""
    content = served.messages[-1].get("content")
    letters = [letter for letter in content[: 4 * LETTERS] if letter.isalpha()][:LETTERS] if isinstance(content, str) else []
    found = Counter(character_name(letter, "").partition(" ")[0].lower() for letter in letters)
    return found.most_common(1)[0][0] if found else ""


def with_answers(rows: Sequence[Candidate], student: str, answers: Mapping[str, Answer]) -> list[Candidate]:
    """The candidates with what the student was asked for afterwards. answers: by trace id."""
    return [
        replace(row, served=replace(row.served, answers={**row.served.answers, student: given}))
        if (given := answers.get(row.served.trace_id))
        else row
        for row in rows
    ]
