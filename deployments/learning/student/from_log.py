"""From the kept requests in the ledger to the data that a student is trained on.

Requests are read a page at a time; only what is chosen is kept in memory. Where the student has not answered yet, its model is
asked offline.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from deployments.distil.answering import Report, answers, spec_of
from deployments.distil.comparing import as_answer
from deployments.distil.model_identity import identity_of
from deployments.learning.kept import feedback
from deployments.learning.kept.completions import Chosen, page, trace_of
from deployments.learning.kept.served_rows import built
from deployments.learning.live import weights
from deployments.tiers import fingerprints
from router.config import Config, Tier, VllmTier
from router.costs.prices import per_token
from router.distil.choosing import Collector, Pair
from router.distil.dataset import StudentData, build
from router.distil.licences import Permissions, permissions, strictest
from router.entry_points import load_function
from router.errors import BadConfig, BadInput
from router.flywheel.rows.cleaning import MOST_ROWS
from router.flywheel.rows.export_rows import Hook, redacted
from router.flywheel.served import Served

PAGE = 200  # requests
LONGEST_PRINT = 64  # characters of a fingerprint in the ledger


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which data is asked for."""

    student: str
    """a tier on vLLM"""
    teacher: str
    """a larger tier"""
    chosen: Chosen = field(default_factory=Chosen)
    """which requests: time, key, metadata"""
    seed: int = 0
    most: int = MOST_ROWS
    """of the drawn requests, and of the others"""
    weights: str = ""
    """digest of the student's weights; empty: the configured ones"""


class LogReader:
    """The requests of a log that one student may learn from. Raises BadInput for tiers that are not there, or may not."""

    def __init__(self, config: Config, wanted: Wanted) -> None:
        self.config, self.wanted = config, wanted
        self.student, self.teacher = student_of(config, wanted.student), tier_of(config, wanted.teacher, "teacher")
        check_order(config, self.student, self.teacher)
        self.permissions: Permissions = permissions(self.student, self.teacher, config.tiers)
        hook = config.learning.redact
        self.hook: Hook | None = load_function(hook, "learning.redact", BadConfig) if hook else None
        self.prints = {tier.name: fingerprints.model(tier)[:LONGEST_PRINT] for tier in (self.student, self.teacher)}

    @property
    def model(self) -> Path | str:
        """Where the student's model is. Raises BadInput where its weights are not kept."""
        named = self.wanted.weights
        return weights.find(named, weights.root(self.config)) if named else self.student.source

    def requests(self, engine: Engine) -> Iterator[tuple[Served, str]]:
        """Each with what somebody said its answer should have been; oldest first. Between pages no transaction is open."""
        after = None
        while True:
            with engine.connect() as connection:
                places = page(connection, self.wanted.chosen, PAGE, after)
                if not places:
                    return
                found, after = built(connection, places)
                said = feedback.of_traces(connection, [trace_of(id) for _, id in places])
            for served in found:
                yield self.of_these_models(served), feedback.correction_of(said.get(served.trace_id, [])) or ""

    def of_these_models(self, served: Served) -> Served:
        """The request without answers, and their grades, that the student and the teacher gave on other weights."""
        gone = {tier for tier, answer in served.answers.items() if self.is_other(tier, answer.model)}
        if not gone:
            return served
        answers = {name: one for name, one in served.answers.items() if name not in gone}
        return replace(served, answers=answers, grades={name: one for name, one in served.grades.items() if name not in gone})

    def is_other(self, tier: str, model: str) -> bool:
        if tier == self.student.name and self.wanted.weights:
            return True
        return tier in self.prints and model not in ("", self.prints[tier])

    def collected(self, engine: Engine, now_s: float) -> Collector:
        """What may be learned from, of all requests until now."""
        pair = Pair(self.student.name, self.teacher.name, self.teacher.name == self.config.names[-1])
        found = Collector(pair, self.permissions, now_s, self.wanted.seed, self.wanted.most)
        for served, correction in self.requests(engine):
            if (shown := self.shown(served, correction)) is None:
                found.left["learning.redact keeps nothing of it, or failed"] += 1
            else:
                found.add(*shown)
        return found

    def shown(self, served: Served, correction: str) -> tuple[Served, str] | None:
        """As it may be shown; None: it may not."""
        if self.hook is None:
            return served, correction
        with suppress(Exception):  # the hook is not ours, and an unredacted text must not leave
            found = redacted(served, correction or None, self.hook)
            return None if found is None else (found[0], found[1] or "")
        return None

    def asker(self, report: Report, folder: Path | None) -> Callable[[Sequence[Served]], Mapping[str, Any]]:
        """Asks the student's model offline. folder: where its answers are kept."""
        prices = per_token(self.student)

        def ask(rows: Sequence[Served]) -> Mapping[str, Any]:
            if not rows:
                return {}
            spec = spec_of(self.student, self.model if self.wanted.weights else "")
            asked = [{"id": one.trace_id, "messages": one.messages, "tools": one.tools, "sampling": one.sampling} for one in rows]
            found = answers(spec, asked, report, folder)
            return {id: as_answer(self.student.name, one, prices) for id, one in found.items()}

        return ask

    def about(self, made_s: float) -> dict[str, Any]:
        """What a data folder's manifest says of the two tiers."""
        source, teacher = self.student.model_source, self.teacher
        folder = Path(self.model) if self.wanted.weights else source.folder
        student = {"tier": self.student.name, "source": str(self.model), "weights": self.wanted.weights}
        return {
            "student": {**student, "fingerprint": self.prints[self.student.name], "context": self.student.context},
            "teacher": {"tier": teacher.name, "fingerprint": self.prints[teacher.name], "licence": teacher.licence.model_dump()},
            **identity_of(folder).as_json(),
            "chosen": {"key": self.wanted.chosen.key, "metadata": dict(self.wanted.chosen.metadata)},
            "made_s": made_s,
        }


def student_data(
    engine: Engine, config: Config, wanted: Wanted, now_s: float, report: Report, folder: Path | None = None
) -> tuple[StudentData, dict[str, Any]]:
    """The data, and what its manifest says of the two tiers. Raises BadInput.

    now_s: later requests are left out, so that the same call gives the same data. folder: keeps what the student was asked.
    """
    reader = LogReader(config, wanted)
    found = build(reader.collected(engine, now_s), reader.asker(report, folder))
    about = reader.about(now_s)
    declared = {tier.licence.id: tier.licence for tier in (*config.tiers, reader.teacher)}
    used = [declared[licence] for licence in found.licences if licence in declared]
    about["licence"] = strictest(used).id if used else ""
    about["name_begins"] = reader.permissions.beginnings(found.licences)
    return found, about


def tier_of(config: Config, name: str, what: str) -> Tier:
    """Raises BadInput."""
    found = next((tier for tier in config.tiers if tier.name == name), None)
    if found is None:
        raise BadInput(f"--{what} {name}: no such tier; there are {', '.join(config.names)}")
    return found


def student_of(config: Config, name: str) -> VllmTier:
    """Raises BadInput."""
    found = tier_of(config, name, "student")
    if not isinstance(found, VllmTier):
        raise BadInput(
            f"--student {name}: its engine is {found.engine}; only a tier on vllm has weights that can be trained here"
        )
    return found


def check_order(config: Config, student: Tier, teacher: Tier) -> None:
    """Raises BadInput."""
    if config.names.index(teacher.name) <= config.names.index(student.name):
        raise BadInput(
            f"--teacher {teacher.name} is not above --student {student.name}; a student learns from a larger tier: "
            f"{', '.join(config.names[config.names.index(student.name) + 1 :]) or 'there is none'}"
        )
