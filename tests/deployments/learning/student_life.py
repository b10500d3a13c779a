"""Runs for a student without a model: parts that write a few bytes as weights, and a world whose filler asks them."""

import json
from dataclasses import replace
from pathlib import Path

from life import NOW, PRICE, QUICK, Always, Killed, World, completion, keep, pair, served
from sqlalchemy import insert, select

from deployments.learning.flywheel import Flywheel
from deployments.learning.live import weights
from deployments.learning.live.weights_used import weights_of
from deployments.learning.student.asked import StudentAsked
from deployments.learning.student.parts import DataMade, Gates, Learned, RouterMade
from deployments.ledger.database import writing
from deployments.ledger.schema import completions, fills, grades
from router import config
from router.errors import BadInput
from router.flywheel.played import CannotPlay
from router.flywheel.served import Answer
from router.flywheel.variants import variant

STUDENT = StudentAsked("small", "large")
PRINTS = {"models": {"small": "small", "large": "large"}}
STEPS = ("data", "train", "gates", "answers", "router")
LICENCE = {"id": "apache-2.0", "train_on_outputs": "any"}


def passed(*names):
    return tuple({"name": name, "passed": True, "why": "it is good", "saved_usd_a_day": 2.0, "days": 3.0} for name in names)


def ladder(folder, url="sqlite:///unused.db", flywheel=None, licence=LICENCE):
    """small is on vllm, with a model of a few bytes."""
    model = folder / "base"
    model.mkdir(parents=True, exist_ok=True)
    (model / "model.safetensors").write_bytes(b"the first weights")
    tiers = [
        {"name": "small", "engine": "vllm", "source": str(model), "context": 512, "price": PRICE},
        {"name": "large", "engine": "echo", "context": 512, "price": PRICE, "licence": licence},
    ]
    given = {"tiers": tiers, "ledger": {"url": url}, "learning": {"collect": "consented"}}
    return config.Config.model_validate({**given, "flywheel": {**QUICK, "weights": str(folder / "weights"), **(flywheel or {})}})


class Taught:
    """The parts of a student's run. fails: step -> what it raises. refuses: gates that fail. killed: (step, "before" or "after")
    at which the process dies, once."""

    def __init__(self, store, taught=b"better", fails=None, refuses=(), killed=None) -> None:
        self.store, self.taught, self.fails, self.refuses, self.killed = store, taught, fails or {}, refuses, killed
        self.did, self.hooks = [], {}

    def begin(self, step, when="before"):
        if self.killed == (step, when):
            self.killed = None
            raise Killed(step)
        if when == "before":
            self.did.append(step)
            self.hooks.get(step, int)()
            if step in self.fails:
                raise self.fails[step]

    def data(self, engine, lesson, folder, report):
        self.begin("data")
        with engine.connect() as connection:
            ids = sorted(connection.scalars(select(fills.c.trace_id)))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.jsonl").write_text(json.dumps(ids))
        self.begin("data", "after")
        numbers = {"counts": {"train": {"failure": 20, "success": 20}}, "left_out": {}}
        return DataMade(f"lesson of {len(ids)}", tuple(ids[:40]), tuple(ids[40:50]), 0.0, "apache-2.0", numbers)

    def train(self, lesson, data, folder, report):
        self.begin("train")
        report(1_200_000, 2_400_000, {"loss": 0.31})
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / "model" / "model.safetensors").write_bytes(self.taught)
        self.begin("train", "after")
        digest = weights.keep(folder / "model", self.store)
        return Learned(digest, {"model.safetensors": "hash"}, "sequence, all weights", 60.0, 2_400_000, {"trained_rows": 40})

    def adopted(self, lesson):
        self.begin("adopted")
        return Learned(lesson.student.adopt, {}, "adopted")

    def gates(self, lesson, data, digest, folder, report):
        self.begin("gates")
        weights.find(digest, self.store)
        slices = {"all": {"before": 0.6, "after": 0.8, "n": 100, "won": 22, "lost": 2}}
        return Gates(self.judged("gain", "lost", "form"), slices)

    def judged(self, *names):
        return tuple({**gate, "passed": gate["name"] not in self.refuses} for gate in passed(*names))

    def answers(self, lesson, rows, digest, folder, report):
        self.begin("answers")
        message = {"role": "assistant", "content": "yes"}
        found = {row.trace_id: Answer("small", "fill", message, "stop", 3, 1, 0.0005) for row in rows}
        self.begin("answers", "after")
        return found

    def router(self, asked, folder):
        self.begin("router")
        assert set(asked.before) >= {row.trace_id for row in asked.rows}
        folder.mkdir(parents=True)
        manifest = {"made_of": len(asked.rows), "weights": dict(asked.weights)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        self.begin("router", "after")
        ids = tuple(row.trace_id for row in asked.rows)
        gates = Gates(self.judged("certificate", "quality", "ladder", "calibration", "payback"))
        return RouterMade("router's rows", ids, "linear", gates, {"certificate": None})

    def kept(self, digest):
        return (self.store / digest).is_dir()

    def training_usd(self, lesson, learned):
        return 0.25

    def forget(self, digest):
        self.did.append(f"forgot {digest[:4]}")


class StudentParts(Always):
    """Candidate and incumbent take small, each on its own weights."""

    def __init__(self, store, whys=(), **taught) -> None:
        super().__init__(whys)
        self.student = Taught(store, **taught)

    def compare(self, candidate: Path, incumbent: Path | None, least_chance: float):
        ours, theirs = weights_of(candidate), weights_of(incumbent) if incumbent else {}

        def compared(row):
            mine, other = row.on(ours), row.on(theirs)
            if "small" not in mine.answers:
                raise CannotPlay("no answer of small is kept")
            played = pair(mine)
            return replace(played, graded=mine.complete(("small", "large")) and other.complete(("small", "large")))

        return compared


class StudentWorld(World):
    """A filler that asks the candidate's weights as well. late: it does so only when somebody says."""

    def __init__(self, engine, config, folder, late=False, new_score=1.0, **taught) -> None:
        super().__init__(engine, config, parts=StudentParts(folder / "weights", **taught))
        self.late, self.new_score = late, new_score

    def flywheel(self, cache):
        given = self.config, self.engine, PRINTS, cache, self.clock
        return Flywheel(*given, by="test", parts=self.parts, wrote=self.wrote)

    def live(self, cache, most=120, student=STUDENT):
        """Until the first run for the student has ended."""
        one = self.flywheel(cache)
        keep(self.engine, [f"a{n}" for n in range(120)], self.clock(), source="agreement")
        for _ in range(most):
            try:
                found = one.advance("a person" if self.latest() is None else "", student=student)
            except Killed:
                self.clock.now_s += 20
                one = self.flywheel(cache)
                continue
            run = self.latest()
            if run is not None and run.closed:
                one.close()
                return run
            if not found.did:
                self.goes_on(run)
        raise AssertionError(f"no end: {self.latest()}")

    def goes_on(self, run):
        before = self.traces()
        super().goes_on(run)
        if not self.late:
            self.fill(self.traces() - before)

    def traces(self):
        with self.engine.connect() as connection:
            return set(connection.scalars(select(fills.c.trace_id)))

    def fill(self, traces):
        """The candidate's answers to these requests, with their grades."""
        if not traces or not self.latest() or not self.latest().candidate:
            return
        name = variant("small", self.weights())
        at_s, model = self.clock(), self.model()
        score = 0.0 if self.latest().stage == "promoted" and not self.ends_well else self.new_score
        with writing(self.engine) as connection:
            for trace in sorted(traces):
                row = completion(trace, "fill", name, at_s, "", 0.0005)
                connection.execute(insert(completions), [row | {"id": f"{trace}/{name}", "model": model}])
                graded = {"trace_id": trace, "tier": name, "score": score, "source": "agreement", "detail": "", "at_s": at_s}
                connection.execute(insert(grades), [graded])

    def weights(self):
        from deployments.learning.live import model_store

        with self.engine.connect() as connection:
            return model_store.weights_listed(connection)[-1].digest

    def model(self):
        from deployments.tiers.fingerprints import model

        small = next(tier for tier in self.config.tiers if tier.name == "small")
        return model(small.model_copy(update={"source": str(self.parts.student.store / self.weights())}))


__all__ = ["NOW", "BadInput", "served"]
