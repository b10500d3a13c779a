"""A log of kept, graded requests in a real database, routers that need no training, and a world that goes on while a run does."""

import json
from pathlib import Path

from sqlalchemy import insert, select

from deployments.learning import runs
from deployments.learning.flywheel import Flywheel
from deployments.learning.live import bundles
from deployments.learning.steps import pairs
from deployments.learning.steps.parts import Trained
from deployments.ledger.database import writing
from deployments.ledger.rows import from_trace
from deployments.ledger.schema import completions, fills, grades
from deployments.ledger.writes import write
from router import config
from router.flywheel.pairs import Pair
from router.flywheel.played import Played
from router.trace import Trace

NOW = 1_800_000_000.0
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
QUICK = {
    "alpha": 0.1,
    "least_pairs": 100,
    "margin": 0.1,
    "shadow_pairs": 60,
    "canary_s": 100,
    "canary_requests": 10,
    "canary_share": 0.5,
    "keep_old_s": 1_000,
}


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW

    def __call__(self) -> float:
        return self.now_s


def ladder(url="sqlite:///unused.db", flywheel=None, **sections):
    tiers = [{"name": name, "engine": "echo", "context": 512, "price": PRICE} for name in ("small", "large")]
    learning = {"collect": "consented"} | sections.pop("learning", {})
    given = {"tiers": tiers, "ledger": {"url": url}, "learning": learning, "flywheel": QUICK | (flywheel or {}), **sections}
    return config.Config.model_validate(given)


# -- the log ---------------------------------------------------------------------------------------------------------------


def completion(trace_id, role, tier, at_s, conversation, cost_usd):
    asked = role == "answer"
    return {
        "id": f"chatcmpl-{trace_id}" if asked else f"{trace_id}/{tier}",
        "trace_id": trace_id,
        "call_id": f"{trace_id}/1",
        "key_id": "key",
        "created_s": at_s,
        "conversation": conversation,
        "role": role,
        "tier": tier,
        "model": tier,
        "wanted": "auto",
        "messages": json.dumps([{"role": "user", "content": f"question {trace_id}"}]) if asked else None,
        "tools": None,
        "sampling": "{}" if asked else None,
        "answer": json.dumps({"role": "assistant", "content": "yes"}),
        "finish": "stop",
        "input_tokens": 3,
        "output_tokens": 1,
        "cost_usd": cost_usd,
        "signals": None,
        "metadata": "{}",
        "consent": "all",
        "licence": "",
        "redaction": "",
        "expires_s": None,
    }


def keep(engine, names, at_s, small=1.0, conversation="", source="judge"):
    """Requests that the client got large's answer to, and that were filled in and graded. small: the score of its answers."""
    kept, drawn, graded = [], [], []
    for name in names:
        kept.append(completion(name, "answer", "large", at_s - 1, conversation, 0.01))
        kept.append(completion(name, "fill", "small", at_s, "", 0.001))
        drawn.append({"trace_id": name, "drawn_s": at_s - 1, "chance": 0.1, "state": "done", "why": "", "changed_s": at_s})
        for tier, score in (("small", small), ("large", 1.0)):
            graded.append({"trace_id": name, "tier": tier, "score": score, "source": source, "detail": "", "at_s": at_s})
    with writing(engine) as connection:
        for table, rows in ((completions, kept), (fills, drawn), (grades, graded)):
            connection.execute(insert(table), rows)


def served(engine, names, at_s, router, status=200):
    """Requests in the ledger that an artefact decided."""
    with writing(engine) as connection:
        for name in names:
            known = {"status": status, "tier": "small", "target": "balanced", "router": router, "counterfactual_usd": 0.01}
            write(connection, from_trace(Trace(name, "key", at_s, 0.5, "/v1/chat/completions", "auto", **known)))


# -- routers ---------------------------------------------------------------------------------------------------------------


class Always:
    """Parts whose candidate takes the smallest tier and whose incumbent takes the largest. whys: why a candidate is refused."""

    def __init__(self, whys=()) -> None:
        self.whys = whys
        self.asked = []

    def train(self, asked):
        self.asked.append(asked)
        dataset = f"data set of {len(asked.rows)}"
        if before := asked.tried.get(dataset):
            return Trained(dataset, whys=(f"{before} failed with it",))
        asked.folder.mkdir(parents=True)
        (asked.folder / "manifest.json").write_text(json.dumps({"made_of": dataset}))
        gates = [{"name": "saving", "passed": not self.whys, "why": "", "saved": 0.5}]
        return Trained(dataset, tuple(row.trace_id for row in asked.rows), "linear", {"gates": gates}, tuple(self.whys))

    def compare(self, candidate: Path, incumbent: Path | None, least_chance: float):
        assert (candidate / "manifest.json").exists()
        return pair


def pair(row):
    def played(tier):
        answer = row.answers[tier]
        return Played(tier, ((tier, answer.cost_usd),), answer.cost_usd, row.grades[tier].score, "", "balanced")

    return Pair(played("small"), played("large"), row.answers["large"].cost_usd, row.complete(("small", "large")))


# -- a life ----------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process dies."""


class World:
    """Traffic and people, as they react to what they see. kill_at: the process dies after so many events; None: never."""

    def __init__(self, engine, config, kill_at=None, ends_well=True, parts=None) -> None:
        self.engine, self.config, self.kill_at, self.ends_well = engine, config, kill_at, ends_well
        self.parts = parts or Always()
        self.clock, self.written, self.turn, self.asked_for = Clock(), 0, 0, False

    def flywheel(self, cache):
        return Flywheel(self.config, self.engine, {}, cache, self.clock, by="test", parts=self.parts, wrote=self.wrote)

    def wrote(self, what):
        self.written += 1
        if self.written == self.kill_at:
            raise Killed(what)

    def live(self, cache, most=80):
        """Until the first run has ended. Returns it."""
        one = self.flywheel(cache)
        for _ in range(most):
            try:
                found = one.advance()
            except Killed:
                self.clock.now_s += 20  # the dead process's lease runs out
                one = self.flywheel(cache)
                continue
            run = self.latest()
            if run is not None and run.closed:
                one.close()
                return run
            if not found.did:
                self.goes_on(run)
        raise AssertionError(f"no end: {self.latest()}")

    def latest(self):
        with self.engine.connect() as connection:
            return runs.latest(connection)

    def goes_on(self, run):
        """What happens while the flywheel waits."""
        self.clock.now_s += 11
        stage, names = (run.stage if run else "collecting"), [f"r{self.turn}-{n}" for n in range(30)]
        self.turn += 1
        if stage == "waiting":
            self.promote(run)
        elif stage == "canary":
            served(self.engine, names[:15], self.clock(), run.candidate)
            served(self.engine, [f"{name}-old" for name in names[:15]], self.clock(), "")
            self.clock.now_s += 60
        elif stage == "promoted" and self.ends_well:
            self.clock.now_s += 600
        else:
            keep(self.engine, names, self.clock(), 0.0 if stage == "promoted" else 1.0)

    def promote(self, run):
        from deployments.learning.steps import by_hand

        if not self.asked_for:
            by_hand.promote(self.engine, run.id, "a person", self.clock())
            self.asked_for = True

    def history(self, run):
        """(stage, what) of its events; the attempts at training but the last left out."""
        with self.engine.connect() as connection:
            found = [(event.stage, event.what) for event in runs.events(connection, run.id)]
        return [one for one in found if one[1] not in ("training", "looked")]

    def compared(self, run):
        with self.engine.connect() as connection:
            return [(one.trace_id, one.stage, one.d) for one in pairs.listed(connection, run.id)]

    def slots(self):
        with self.engine.connect() as connection:
            return {slot: (one.digest, one.share) for slot, one in bundles.read(connection).items()}

    def rows(self, table):
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]


def store(engine, rows, at_s):
    """Requests as the pure parts' tests have them: the largest tier's answer went to the client."""
    kept, drawn, graded = [], [], []
    for row in rows:
        for tier, answer in row.answers.items():
            role = "answer" if tier == row.answered_by else "fill"
            one = completion(row.trace_id, role, tier, at_s - 1, "", answer.cost_usd)
            one |= {
                "answer": json.dumps(dict(answer.message)),
                "signals": json.dumps(dict(answer.signals)),
                "finish": answer.finish,
            }
            one |= {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}
            if role == "answer":
                one |= {"messages": json.dumps(list(row.messages)), "sampling": json.dumps(dict(row.sampling))}
            kept.append(one)
        drawn.append(
            {"trace_id": row.trace_id, "drawn_s": at_s - 1, "chance": 1.0, "state": "done", "why": "", "changed_s": at_s}
        )
        for tier, grade in row.grades.items():
            graded.append(
                {"trace_id": row.trace_id, "tier": tier, "score": grade.score, "source": "agreement", "detail": "", "at_s": at_s}
            )
        at_s += 60
    with writing(engine) as connection:
        for table, found in ((completions, kept), (fills, drawn), (grades, graded)):
            connection.execute(insert(table), found)
