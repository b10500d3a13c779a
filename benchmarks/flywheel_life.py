"""A ladder's life without a ladder: recorded answers, a clock that is set, a real ledger and the real flywheel.

Each request is decided by the router that the bundles name, played with its real code from recorded answers, and written to the
ledger as an ingress would: trace, calls, completions, grades. Audits count with the certificate's own alarm.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, insert, update

from benchmarks.flywheel_offline import PRINTS, as_served
from deployments.learning import runs
from deployments.learning.flywheel import Flywheel
from deployments.learning.live import bundles, model_store
from deployments.learning.live.routers_in_use import position
from deployments.learning.steps.parts import RealParts
from deployments.ledger import certificate_audits, database
from deployments.ledger.rows import from_trace
from deployments.ledger.schema import certificates as audited
from deployments.ledger.schema import completions, fills, grades
from deployments.ledger.writes import write
from router.config import Config, load_config
from router.decide import certificates
from router.engine import Router
from router.flywheel.played import Played, play
from router.flywheel.served import Grade, Served
from router.trace import CallRow, Trace

BEGIN_S = 1_800_000_000.0
EVERY_S = 300.0  # between two requests: 288 a day
TOOK_S = 0.5
Row = dict[str, Any]
Change = Callable[[Served, np.random.Generator], Served]
"""what happens to a request's answers or grades before anybody sees them"""


def nothing(served: Served, random: np.random.Generator) -> Served:
    return served


def configured(folder: Path, audit_rate: float, classifier: str | None, **flywheel: Any) -> Config:
    """The pocket ladder with the settings of `day_one`; what no certificate covers goes up."""
    from benchmarks.day_one import SECTIONS

    settings = load_config("pocket").model_dump(mode="json", exclude_defaults=True)
    settings |= {
        "learning": SECTIONS["learning"],
        "flywheel": {**SECTIONS["flywheel"], "classifier": classifier, **flywheel},
        "routing": {"target": "balanced"},
        "escalation": {"mode": "buffer", "audit_rate": audit_rate, "without_certificate": "escalate"},
        "delegation": {"mode": "off"},
        "ledger": {"url": f"sqlite:///{folder / 'ledger.db'}?synchronous=NORMAL"},
    }
    return Config.model_validate(settings)


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request."""

    router: str
    """digest; empty: the top tier answered"""
    stage: str
    usd: float
    top_usd: float
    score: float
    """by its reference, as the next"""
    top_score: float


def shares(answered: Sequence[Answered]) -> Row:
    """Of the top tier's cost and exact match."""
    if not answered:
        return {"requests": 0}
    cost, quality = (sum(getattr(a, of) for a in answered) for of in ("usd", "score"))
    top_usd, top = sum(a.top_usd for a in answered), sum(a.top_score for a in answered)
    return {"requests": len(answered), "cost": round(cost / top_usd, 3), "quality": round(quality / top, 4)}


@dataclass
class Life:
    """One ladder. mix: rows of recorded answers, as `pocket_rows` gives them, without end; change: what happens to them now."""

    folder: Path
    config: Config
    mix: Iterator[Row]
    seed: int = 0
    step: int = 10
    """requests between two looks"""
    change: Change = nothing
    now_s: float = BEGIN_S
    answered: list[Answered] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    """why certificates were retired"""
    routers: dict[str, Router] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.engine: Engine = database.connect(self.config.ledger)
        database.migrate(self.engine)
        self.parts = RealParts(self.config, PRINTS)
        cache = self.folder / "cache"
        self.flywheel = Flywheel(
            self.config, self.engine, PRINTS, cache, lambda: self.now_s, by="simulation", seed=self.seed, parts=self.parts
        )
        self.cache = cache

    def copied(self, folder: Path, seed: int, audit_rate: float) -> "Life":
        """Another life that goes on from here, with other chances."""
        self.flywheel.close()
        with closing(sqlite3.connect(self.folder / "ledger.db")) as mine, closing(sqlite3.connect(folder / "ledger.db")) as other:
            mine.backup(other)
        shutil.copytree(self.cache, folder / "cache")
        ledger = self.config.ledger.model_copy(update={"url": f"sqlite:///{folder / 'ledger.db'}?synchronous=NORMAL"})
        escalation = self.config.escalation.model_copy(update={"audit_rate": audit_rate})
        config = self.config.model_copy(update={"ledger": ledger, "escalation": escalation})
        return Life(folder, config, self.mix, seed, self.step, self.change, self.now_s, list(self.answered))

    def close(self) -> None:
        self.flywheel.close()
        self.engine.dispose()

    # -- time ---------------------------------------------------------------------------------------------------------------

    def live(self, until: Callable[["Life"], bool], most: int) -> int:
        """Serve until then, `most` requests at most. Returns how many it took; raises RuntimeError if it did not come."""
        begin = len(self.answered)
        while not until(self):
            if len(self.answered) - begin >= most:
                raise RuntimeError(f"not after {most} requests; the run: {self.run}, {self.history()[-2:]}")
            self.serve(self.step)
            while self.flywheel.advance().did and not until(self):  # at once: after its end the next run would begin
                pass
        return len(self.answered) - begin

    def serve(self, count: int) -> None:
        with self.engine.connect() as connection:
            slots = bundles.read(connection)
            stage = self.run.stage if self.run else ""
        found = []
        for _ in range(count):
            self.now_s += EVERY_S
            found.append(self.one(slots, stage))
        with database.writing(self.engine) as connection:
            for served, played, digest in found:
                keep(connection, served, played, digest)

    def one(self, slots: Mapping[str, bundles.Bundle], stage: str) -> tuple[Served, Played, str]:
        row, place = next(self.mix), len(self.answered)
        served = self.change(replace(as_served(row, place, self.config, False), at_s=self.now_s), self.random)
        digest = slots["promoted"].digest if "promoted" in slots else ""
        canary = slots.get("canary")
        if canary and position(canary.digest, served.trace_id) < canary.share:
            digest = canary.digest
        router, top = self.router(digest), self.config.names[-1]
        played = play(router, served)
        self.audit(router, served, played)
        right = [float(served.answers[tier].text.strip() == row["answer"].strip()) for tier in (played.tier, top)]
        self.answered.append(Answered(digest, stage, played.cost_usd, served.answers[top].cost_usd, *right))
        return served, played, digest

    def router(self, digest: str) -> Router:
        if digest not in self.routers:
            self.routers[digest] = self.parts.router(model_store.fetch(self.engine, digest, self.cache) if digest else None)
        return self.routers[digest]

    def audit(self, router: Router, served: Served, played: Played) -> None:
        """Count one accepted answer in so many, as an ingress does."""
        top, promises = self.config.names[-1], router.flows.promises
        if played.tier == top or played.certificate != "valid" or self.random.random() >= self.config.escalation.audit_rate:
            return
        promises.audited(played.target, served.answers[played.tier].text.strip() != served.answers[top].text.strip())
        while promises.unsaved:
            found, differs = promises.unsaved.popleft()
            following = partial(certificates.count, found, differs=differs)
            digest = certificates.digest(found)
            with database.writing(self.engine) as connection:
                count = certificate_audits.add(connection, digest, found.rule, following)
                connection.execute(update(audited).where(audited.c.digest == digest).values(changed_s=self.now_s))
            self.alarms += [count.retired] if count.retired else []
            promises.take({digest: count})

    # -- what is there ------------------------------------------------------------------------------------------------------

    @property
    def run(self) -> runs.Run | None:
        with self.engine.connect() as connection:
            return runs.latest(connection)

    def history(self) -> list[tuple[str, str, str]]:
        """(stage, what, why) of the last run's events."""
        run = self.run
        with self.engine.connect() as connection:
            found = runs.events(connection, run.id) if run else []
        return [(event.stage, event.what, str(event.numbers.get("why", ""))) for event in found]

    @property
    def promoted(self) -> str:
        """Digest of the router that decides; empty: the top tier does."""
        with self.engine.connect() as connection:
            found = bundles.read(connection).get("promoted")
        return found.digest if found else ""


def keep(connection: Connection, served: Served, played: Played, digest: str) -> None:
    """Write a request as ingress and filler would, drawn, filled in and graded at once."""
    name, at_s = served.trace_id, served.at_s
    asked = dict(played.calls)
    calls = tuple(
        CallRow(f"{name}/{tier}", name, "k", "attempt" if played.flow == "cascade" else "answer", tier, outcome, at_s, TOOK_S)
        for tier, outcome in ((tier, "accepted" if tier == played.tier else "low confidence") for tier in asked)
    )
    calls = tuple(replace(call, cost_usd=asked[call.tier]) for call in calls)
    top_usd = list(served.answers.values())[-1].cost_usd
    known: Row = {"tier": played.tier, "target": played.target, "certificate": played.certificate, "flow": played.flow}
    known |= {"router": digest, "counterfactual_usd": top_usd, "calls": calls}
    write(connection, from_trace(Trace(name, "k", at_s, TOOK_S, "/v1/chat/completions", "auto", 200, **known)))
    connection.execute(insert(completions), [completion(served, played, tier, tier in asked) for tier in served.answers])
    drawn = {"trace_id": name, "drawn_s": at_s, "chance": 1.0, "state": "done", "why": "", "changed_s": at_s}
    connection.execute(insert(fills), drawn)
    scores = [
        {"trace_id": name, "tier": tier, "score": grade.score, "source": grade.source, "detail": "", "at_s": at_s}
        for tier, grade in served.grades.items()
    ]
    connection.execute(insert(grades), scores)


def completion(served: Served, played: Played, tier: str, was_asked: bool) -> Row:
    answer = served.answers[tier]
    own = tier == played.tier
    role = "answer" if own else ("draft" if was_asked else "fill")
    return {
        "id": f"chatcmpl-{served.trace_id}" if own else f"{served.trace_id}/{tier}",
        "trace_id": served.trace_id,
        "call_id": f"{served.trace_id}/{tier}",
        "key_id": served.key_id,
        "created_s": served.at_s,
        "conversation": "",
        "role": role,
        "tier": tier,
        "model": tier,
        "wanted": "auto",
        "messages": json.dumps(list(served.messages)) if own else None,
        "tools": None,
        "sampling": json.dumps(dict(served.sampling)) if own else None,
        "answer": json.dumps(dict(answer.message)),
        "finish": answer.finish,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "cost_usd": answer.cost_usd,
        "signals": json.dumps(dict(answer.signals)),
        "metadata": "{}",
        "consent": "all",
        "licence": "",
        "redaction": "",
        "expires_s": None,
    }


# -- changes ----------------------------------------------------------------------------------------------------------------


def spoilt(served: Served, tiers: Sequence[str]) -> Served:
    """These tiers' answers are wrong, though as sure as they were."""
    answers, graded = dict(served.answers), dict(served.grades)
    for tier in tiers:
        answers[tier] = replace(answers[tier], message={"role": "assistant", "content": f"{answers[tier].text}?"})
        graded[tier] = Grade(0.0, "agreement")
    return replace(served, answers=answers, grades=graded)


def corrupted(served: Served, tiers: Sequence[str], how: str, random: np.random.Generator) -> Served:
    """The same answers under wrong grades. how: flipped, random, or generous: nine wrong answers in ten count as right."""
    graded = dict(served.grades)
    for tier in tiers:
        right = bool(graded[tier].score)
        drawn = {"flipped": not right, "random": random.random() < 0.5, "generous": right or random.random() < 0.9}
        graded[tier] = Grade(float(drawn[how]), "agreement")
    return replace(served, grades=graded)
