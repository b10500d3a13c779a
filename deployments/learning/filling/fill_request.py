"""Fills in and grades one kept request: asks the tiers that have no answer, then whatever its grades still need.

Each answer is in the database before the next tier is asked, so that a process that is killed loses only the call under way.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sqlalchemy import Connection

from deployments.learning.filling import fill_rows
from deployments.learning.filling.asking import Asker
from deployments.learning.filling.fill_rows import Material
from deployments.learning.live.variant_tiers import Variants
from deployments.ledger.store import Store
from router.cascade.code_tests import CodeCheck
from router.config import Tier
from router.errors import LedgerDown, RequestFailed
from router.flywheel.grading import agreement, blind_judge
from router.flywheel.grading.agreement import Known, Need, Verdict
from router.flywheel.grading.comparing import calls_of
from router.flywheel.grading.filling import comparable_answers, mean_logprob, plain_body, second_body, tests_of, to_ask
from router.flywheel.served import Answer, Grade
from router.flywheel.variants import in_order, tier_of
from router.types import Role

log = logging.getLogger("stepdown")
T = TypeVar("T")
SEEN = 1_000  # mean log-probabilities of the top tier that are remembered
ROUNDS = 4  # of asking what grades need: a second sample, then verdicts


class Outage(Exception):
    """A tier could not answer, though it may later; the message says which and why."""


class Refused(Exception):
    """A tier says that the request itself is wrong; the message is the outcome's code."""


@dataclass(slots=True)
class Grader:
    """Works on requests one by one; several may be under way. tiers: cheapest first. clock: Unix time.

    A tier that runs on several weights is asked on each whose answers are compared, by their names (`small@3f2a9c41e0d2`), and
    each answer has its own grade.
    """

    store: Store
    tiers: Mapping[str, Tier]
    asker: Asker
    check: CodeCheck | None
    tests_timeout_s: float
    judges: bool
    clock: Callable[[], float]
    variants: Variants | None = None
    """None: each tier has its configured weights alone"""
    seen: list[float] = field(default_factory=list)
    """mean log-probabilities of the top tier's answers so far, the latest last"""

    @property
    def names(self) -> list[str]:
        """Who is asked, by the names of their weights, cheapest first."""
        return list(self.variants.wanted.asked if self.variants else ()) or list(self.tiers)

    @property
    def top(self) -> str:
        return self.names[-1]

    def graded(self, *names: Iterable[str]) -> list[str]:
        """Whose answers are graded together: these and the top tier's, which comes last."""
        return list(in_order(list(self.tiers), [*(name for some in names for name in some), self.top]))

    async def fill(self, trace_id: str) -> None:
        """Fill in and grade a request that was drawn. Raises Outage, Broken, Halted, TooDear, LedgerDown, database errors."""
        found = await self.read(trace_id)
        if found is None:
            await self.write(lambda c: fill_rows.settle(c, [trace_id], "dropped", "it is not kept any more", self.clock()))
            return
        body = await asyncio.to_thread(plain_body, found.served)
        asked, answers = self.names, comparable_answers(found.served, found.as_sent)
        missing = await self.cannot(found, body, asked)
        for tier in to_ask(asked, answers, missing):
            try:
                answer, call_id = await self.ask(tier, body, trace_id, answers)
            except Refused as refused:
                missing[tier] = f"it refused the request: {refused}"
                continue
            answers[tier] = answer
            await self.keep(found, answer, call_id)
        grades = await self.grades(found, body, answers, missing, self.graded(asked, answers))
        await self.write(lambda c: fill_rows.done(c, trace_id, grades, self.summary(grades), self.clock()))

    async def grade_again(self, trace_id: str) -> None:
        """Grade by what is known, where feedback has come or drafts and audits have answered. Raises as `fill`."""
        found = await self.read(trace_id)
        if found is None:
            return
        body = await asyncio.to_thread(plain_body, found.served)
        answers = comparable_answers(found.served, found.as_sent)
        own = found.served.answers.get(found.served.answered_by)  # the score that was given is of this answer
        answers |= {own.tier: own} if own and own.tier not in answers else {}
        missing = {tier: grade.detail for tier, grade in found.served.grades.items() if tier not in answers}
        names = self.graded(() if found.served.grades else self.names, answers, found.served.grades)
        grades = await self.grades(found, body, answers, missing, names)
        known = {tier: grade for tier, grade in grades.items() if tier in answers or found.served.drawn}
        await self.write(lambda c: fill_rows.grade(c, trace_id, known, self.clock()))

    def summary(self, grades: Mapping[str, Grade]) -> str:
        """What is missing; empty: nothing is."""
        return "; ".join(f"{tier}: {grade.detail}" for tier, grade in grades.items() if grade.score is None)

    # -- answers ---------------------------------------------------------------------------------------------------------

    async def cannot(self, found: Material, body: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
        """Tiers that may not or cannot answer, each with the reason."""
        allowed = found.tiers
        barred = {name: "not allowed for this key" for name in names if allowed is not None and tier_of(name) not in allowed}
        lost = self.variants.lost() if self.variants else {}
        return await asyncio.to_thread(self.asker.cannot, body, names) | lost | barred

    async def ask(
        self, tier: str, body: Mapping[str, Any], trace_id: str, answers: Mapping[str, Answer], role: Role = "fill"
    ) -> tuple[Answer, str]:
        """Raises Refused where the tier will not take the request, Outage where it does not answer now."""
        try:
            return await self.asker.ask(tier, body, role, trace_id, answers)
        except LedgerDown:
            raise
        except RequestFailed as error:
            if error.status >= 500 or error.status == 429:
                raise Outage(f"{tier}: {error.outcome}") from error
            raise Refused(error.outcome) from error

    async def keep(self, found: Material, answer: Answer, call_id: str) -> None:
        licence = self.tiers[tier_of(answer.tier)].licence.id
        await self.write(lambda c: fill_rows.keep_answer(c, found.asked, answer, call_id, licence))

    # -- grades ----------------------------------------------------------------------------------------------------------

    async def grades(
        self,
        found: Material,
        body: Mapping[str, Any],
        answers: Mapping[str, Answer],
        missing: Mapping[str, str],
        names: Sequence[str],
    ) -> dict[str, Grade]:
        """Ask what grading needs, as far as it may be asked, and grade these names."""
        served, pays = found.served, found.served.drawn
        known = Known(
            names,
            body,
            answers,
            served.answered_by,
            missing,
            found.told,
            await self.passed(tests_of(served), answers),
            self.trusted(answers.get(self.top), served.grades),
            no_second="" if pays else "the request was not drawn",
            verdicts={} if found.told.correction else verdicts_of(served.grades),
            judges=self.judges and pays,
        )
        for _ in range(ROUNDS):
            needs = await asyncio.to_thread(agreement.wanted, known)
            if not needs:
                break
            known = await self.asked_for(known, needs, served.trace_id)
        return await asyncio.to_thread(agreement.grades, known)

    def trusted(self, top: Answer | None, before: Mapping[str, Grade]) -> bool:
        """Whether the top tier is sure of its answer, or was found to agree with itself when it was graded before."""
        mean = mean_logprob(top)
        sure = agreement.is_sure(mean, self.seen)
        if mean is not None and not before:
            self.seen = [*self.seen[-SEEN + 1 :], mean]
        return sure or any(grade.source == "agreement" and grade.score is not None for grade in before.values())

    async def asked_for(self, known: Known, needs: Mapping[str, Need], trace_id: str) -> Known:
        """What is known once the needs are met. Raises Outage."""
        if "second" in needs.values():
            known = await self.sampled_again(known, trace_id)
        for tier in [tier for tier, need in needs.items() if need == "judge"]:
            known = replace(known, verdicts={**known.verdicts, tier: await self.judged(known, tier, trace_id)})
        return known

    async def sampled_again(self, known: Known, trace_id: str) -> Known:
        try:
            second, _ = await self.ask(self.top, second_body(known.body), trace_id, known.answers)
        except Refused as refused:
            return replace(known, no_second=f"it refused a second sample: {refused}")
        return replace(known, second=second)

    async def judged(self, known: Known, tier: str, trace_id: str) -> Verdict:
        """The top tier's verdict on one tier's answer, asked twice."""
        answer, beside = blind_judge.said(known.answers[tier]), blind_judge.said(agreement.reference(known))
        if answer.strip() == beside.strip():
            return Verdict(1.0, "the same text")
        found: list[bool | None] = []
        for body in blind_judge.bodies(known.body["messages"], answer, beside):
            asked = {**body, "model": tier_of(self.top)}
            if why := (await asyncio.to_thread(self.asker.cannot, asked, [self.top])).get(self.top):
                return Verdict(None, f"the judge cannot read it: {why}")
            try:
                reply, _ = await self.ask(self.top, body, trace_id, {}, "judge")
            except Refused as refused:
                return Verdict(None, f"the judge refused: {refused}")
            found.append(blind_judge.verdict(reply.text))
        score = blind_judge.score(*found)
        return Verdict(score, "the judge said neither yes nor no" if score is None else "")

    async def passed(self, tests: str, answers: Mapping[str, Answer]) -> dict[str, bool | None]:
        """tier -> whether its answer's code passes the tests that came with the request; None: that cannot be told."""
        found: dict[str, bool | None] = {}
        for tier, answer in answers.items() if tests and self.check else ():
            if not calls_of(answer):
                found[tier] = await self.tested(answer.text, tests)
        return found

    async def tested(self, text: str, tests: str) -> bool | None:
        assert self.check
        try:
            async with asyncio.timeout(self.tests_timeout_s):
                passed = await asyncio.to_thread(self.check, text, tests)
        except Exception as error:  # noqa: BLE001 the operator's function may raise anything
            log.warning("escalation.tests could not tell: %s", type(error).__name__)
            return None
        return passed if isinstance(passed, bool) else None

    # -- the database ----------------------------------------------------------------------------------------------------

    async def read(self, trace_id: str) -> Material | None:
        def reading() -> Material | None:
            with self.store.engine.connect() as connection:
                return fill_rows.material(connection, trace_id, self.variants.versions if self.variants else None)

        return await asyncio.to_thread(reading)

    async def write(self, action: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self.store.transact, action)


def verdicts_of(grades: Mapping[str, Grade]) -> dict[str, Verdict]:
    """What the judge has said before of the answers beside the top tier's."""
    return {tier: Verdict(grade.score, grade.detail) for tier, grade in grades.items() if grade.source == "judge"}
