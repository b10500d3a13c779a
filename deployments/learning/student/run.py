"""Makes a candidate bundle: data, weights, their gates, their answers, a router for them, its gates. One step after the other.

Each step leaves its result in the run's folder with hashes of what it was made of, so that a run that was killed at any moment
goes on there, on this machine, and comes to the same end.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from classifiers.files import atomic_write
from deployments.journal import Steps, hash_of
from deployments.learning.student.parts import DataMade, Gates, Learned, Lesson, RouterAsked, RouterMade, StudentParts
from router.distil.fair_rows import fair
from router.distil.regrading import regraded
from router.errors import BadInput
from router.flywheel.ladder_gate import Paid
from router.flywheel.rows.outcome_rows import line_of
from router.flywheel.served import Answer, Served

DATA = "data"
TRAINING = "training"
GATES = "gates"
ANSWERS = "answers"
ROUTER = "candidate"
KEPT_ANSWERS = "answers.jsonl"
SHORT = 12  # digits of a hash in the name of a folder
MOST_ROWS = 6_000  # of the newest requests of which a router is made, each of which the new weights have to answer
SHOWN = {"data": "data", "train": "weights", "gates": "gates of the model", "answers": "answers", "router": "router"}
"""steps in their order, in words"""
Told = Callable[[str, int, int, Mapping[str, Any]], None]
"""(step, done, of, figures): how far a step is"""
Ended = Callable[[str, str, Mapping[str, Any]], None]
"""(step, what came of it in words, figures)"""


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it."""

    dataset: str = ""
    """digest of the data that the student learned from, and of the weights where they were adopted; empty: there is none"""
    router: RouterMade | None = None
    data: DataMade | None = None
    learned: Learned | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    whys: tuple[str, ...] = ()
    """why it is refused; empty: it passed every gate, and its artefact is in the folder `candidate`"""


@dataclass
class StudentRun:
    """One run in its folder. rows: reads the newest graded requests, as the weights in use answered them, oldest first."""

    engine: Engine
    lesson: Lesson
    parts: StudentParts
    folder: Path
    rows: Callable[[], Sequence[Served]]
    told: Told = lambda step, done, of, figures: None
    ended: Ended = lambda step, why, figures: None

    def made(self) -> Made:
        """Do what is not done yet. Raises BadInput, and what the parts raise."""
        with Steps(self.folder, lambda line: None) as steps:
            self.steps = steps
            data = self.data()
            dataset = self.lesson_digest(data)
            if before := self.lesson.tried.get(dataset):
                why = f"{before} failed with the same data set, which is not tried again"
                return Made(dataset, data=data, numbers=self.numbers(data), whys=(why,))
            learned = self.learned(data)
            gates = self.gates(data, learned)
            numbers = self.numbers(data, learned, gates)
            if whys := gates.whys:
                return Made(dataset, None, data, learned, numbers, tuple(whys))
            return self.with_router(Made(dataset, None, data, learned, numbers), gates)

    def lesson_digest(self, data: DataMade) -> str:
        """The same data set for other weights is another lesson."""
        adopt = self.lesson.student.adopt
        return hash_of([data.dataset, adopt]) if adopt else data.dataset

    # -- steps ---------------------------------------------------------------------------------------------------------

    def report(self, step: str) -> Callable[[int, int, Mapping[str, Any]], None]:
        return lambda done, of, figures: self.told(step, done, of, figures)

    def data(self) -> DataMade:
        lesson = self.lesson
        asked = {"run": lesson.run_id, "began": lesson.began_s, "student": lesson.student.as_json(), "weights": lesson.weights}

        def make() -> dict[str, Any]:
            return asdict(self.parts.data(self.engine, lesson, self.folder / DATA, self.report("data")))

        found = DataMade.from_json(self.steps.run("data", {**asked, "seed": lesson.seed}, [DATA], make))
        self.ended("data", f"data: {said(found.numbers)}", {"dataset": found.dataset, **found.numbers})
        return found

    def learned(self, data: DataMade) -> Learned:
        lesson, adopt = self.lesson, self.lesson.student.adopt

        def make() -> dict[str, Any]:
            if adopt:
                return asdict(self.parts.adopted(lesson))
            folder = self.folder / TRAINING / hash_of(asked)[:SHORT]  # belongs to one training for good
            return asdict(self.parts.train(lesson, self.folder / DATA, folder, self.report("train")))

        asked = {"the data": data.dataset, "adopt": adopt, "recipe": dict(lesson.student.recipe), "seed": lesson.seed}
        if (before := self.steps.result("train")) and not self.parts.kept(before["digest"]):
            self.steps.forget("train", "its weights are no longer in the store")
        found = Learned(**self.steps.run("train", asked, [], make))
        why = f"weights {found.digest[:12]}: {found.tokens:,} tokens in {found.seconds:.0f} s"
        self.ended("train", why, {"weights": found.digest, "tokens": found.tokens, "seconds": found.seconds, **found.numbers})
        return found

    def gates(self, data: DataMade, learned: Learned) -> Gates:
        def make() -> dict[str, Any]:
            given = self.folder / DATA, learned.digest, self.folder / GATES
            return asdict(self.parts.gates(self.lesson, *given, self.report("gates")))

        asked = {"the data": data.dataset, "the weights": learned.digest, "replaced": self.lesson.parent}
        return self.passed("gates", Gates(**self.steps.run("gates", asked, [], make)))

    def passed(self, step: str, gates: Gates) -> Gates:
        shown = ", ".join(f"{gate['name']} {'passed' if gate['passed'] else 'failed'}" for gate in gates.gates)
        self.ended(step, f"{SHOWN[step]}: {shown}", {"gates": list(gates.gates)})
        return gates

    # -- the router ----------------------------------------------------------------------------------------------------

    def with_router(self, made: Made, gates: Gates) -> Made:
        assert made.data is not None and made.learned is not None
        rows, left = fair(self.rows(), frozenset(made.data.trained_ids), made.data.until_s)
        rows = rows[-MOST_ROWS:]
        if not rows:
            raise BadInput("no graded request is left that the student was not trained on; collect more traffic and try again")
        answers = self.answers(rows, made.learned)
        tier = self.lesson.student.tier
        found = regraded(rows, tier, answers, self.lesson.tiers)
        left = {**left, **found.left_out}
        learned = made.learned
        shadow_usd = self.lesson.shadow_pairs * mean_usd(found.rows, tier)
        paid = Paid(self.parts.training_usd(self.lesson, learned), self.lesson.labels_usd, shadow_usd)

        def make() -> dict[str, Any]:
            shutil.rmtree(self.folder / ROUTER, ignore_errors=True)
            before = {row.trace_id: row for row in rows}
            weights = {**self.lesson.weights, tier: learned.digest}
            return asdict(self.parts.router(RouterAsked(found.rows, before, self.lesson, weights, paid), self.folder / ROUTER))

        asked = {
            "the answers": hash_of([line_of(asdict(answer)) for _, answer in sorted(answers.items())]),
            "the requests": hash_of([[row.trace_id, row.at_s] for row in rows]),
            "the weights": learned.digest,
            "paid": asdict(paid),
        }
        result = self.steps.run("router", asked, [ROUTER], make)
        router = RouterMade(**{**result, "gates": Gates(**result["gates"]), "trace_ids": tuple(result["trace_ids"])})
        self.passed("router", router.gates)
        every = (*gates.gates, *router.gates.gates)
        own = {"router_rows": len(found.rows), "router_left_out": left, "paid": paid.as_json(), **router.numbers}
        numbers = {**made.numbers, **own, "gates": list(every)}
        numbers["weights"] = {**numbers["weights"], **books(paid, router.gates)}
        whys = (router.why,) if router.why else tuple(router.gates.whys)
        return replace(made, router=router, numbers=numbers, whys=whys)

    def answers(self, rows: Sequence[Served], learned: Learned) -> dict[str, Answer]:
        """By trace id, as the new weights answer."""
        path = self.folder / KEPT_ANSWERS

        def make() -> dict[str, Any]:
            found = self.parts.answers(self.lesson, rows, learned.digest, self.folder / ANSWERS, self.report("answers"))
            lines = [line_of({"id": id, **asdict(answer)}) for id, answer in sorted(found.items())]
            atomic_write(path, "".join(line + "\n" for line in lines))
            return {"answers": len(found)}

        asked = {"the requests": hash_of([[row.trace_id, list(row.messages)] for row in rows]), "the weights": learned.digest}
        count = self.steps.run("answers", asked, [KEPT_ANSWERS], make)["answers"]
        self.ended("answers", f"answers: {count:,} of {len(rows):,} requests", {"answers": count})
        found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return {one.pop("id"): Answer(**one) for one in found}

    # -- what is written down ------------------------------------------------------------------------------------------

    def numbers(self, data: DataMade, learned: Learned | None = None, gates: Gates | None = None) -> dict[str, Any]:
        lesson = self.lesson
        found: dict[str, Any] = {"student": lesson.student.as_json(), "data": dict(data.numbers), "licence": data.licence}
        if learned is not None:
            usd = self.parts.training_usd(lesson, learned)
            own: dict[str, Any] = {"digest": learned.digest, "tier": lesson.student.tier, "parent": lesson.parent}
            own |= {"method": learned.method, "training_usd": usd, "seconds": learned.seconds, "tokens": learned.tokens}
            own |= learned.numbers
            found["weights"] = own | {"learned": dict(gates.slices) if gates else {}, "rows": dict(data.numbers)}
        if gates is not None:
            found["gates"] = list(gates.gates)
        return found


def said(numbers: Mapping[str, Any]) -> str:
    """Rows by side and kind in words."""
    counts = numbers.get("counts") or {}
    return ", ".join(f"{sum(by.values()):,} {side}" for side, by in counts.items()) or "made"


def mean_usd(rows: Sequence[Served], tier: str) -> float:
    """Of a tier's answers."""
    return sum(row.answers[tier].cost_usd for row in rows) / len(rows) if rows else 0.0


def books(paid: Paid, gates: Gates) -> dict[str, Any]:
    """What a generation cost, and what it saves."""
    by = {gate["name"]: gate for gate in gates.gates}
    ladder, payback = by.get("ladder") or {}, by.get("payback") or {}
    saves = {"saves_usd_day": payback.get("saved_usd_a_day"), "payback_days": payback.get("days")}
    return {"cost_usd": paid.usd, **paid.as_json(), **saves, "saved_share": ladder.get("share"), "at": ladder.get("at")}
