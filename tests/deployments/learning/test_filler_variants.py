"""Filling in where a tier has several weights: each that is compared is asked, under its own name, and graded by itself."""

import asyncio
import random
import time

import pytest
from kept_table_rows import AT_S, feedback_row, fill_row, row, store
from scripted_tier import Said, ScriptedTier
from sqlalchemy import select, update
from variants_made import NOTED, PlayedApps, bundle, ladder_of, model_folder

from deployments.learning import runs
from deployments.learning.filling import filler as module
from deployments.learning.filling.filler import Filler
from deployments.learning.kept import served_rows
from deployments.learning.live import bundles, model_store, variant_tiers, weights
from deployments.learning.live.variant_tiers import Variants
from deployments.learning.live.variants_wanted import Configured
from deployments.learning.live.weights_used import on
from deployments.ledger import schema
from deployments.ledger.database import writing
from deployments.ledger.ledger import Ledger
from deployments.replicas.variant_apps import AppState, app_of
from deployments.tiers.fingerprints import ladder_fingerprints, model
from deployments.traffic.watched_tier import Watched
from router.config import Ledger as Settings
from router.decide.abilities import Abilities
from router.errors import NoReplica
from router.flywheel.variants import Version, names_on, variant
from router.traffic.breaker import Breaker

pytestmark = pytest.mark.slow
NAMES = ("small", "medium", "large")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    waits = {"LOOK_EVERY_S": 0.01, "READY_S": 0.01, "EMPTY_S": 0.02, "COUNT_EVERY_S": 0.0, "SETTLED_S": 0.0, "RETRY_S": 0.0}
    for name, value in waits.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(variant_tiers, "LOOK_EVERY_S", 0.02)


class Place:
    """A filler over three tiers that say 42; `said` may say otherwise for the names of some weights."""

    def __init__(self, folder, **said):
        self.folder, self.said = folder, said
        self.config = ladder_of(folder, learning={"collect": "consented"})
        self.ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}"))
        self.store = weights.root(self.config)
        self.apps = PlayedApps()
        self.prints = ladder_fingerprints(self.config)
        self.asked: dict[str, ScriptedTier] = {}
        self.own = {}

    def tier(self, tier, name):
        def script(body):
            found = self.said.get(name, "42")
            return found(body) if callable(found) else Said(found)

        self.asked[name] = ScriptedTier(tier, script)
        return Watched(self.asked[name], Breaker(time.monotonic, random.random))

    def wrote(self, action, *given):
        with writing(self.ledger.engine) as connection:
            return action(connection, *given)

    def learned(self, text):
        """Weights of `small`; their digest and the name of a bundle on them."""
        digest = weights.keep(model_folder(self.folder / f"learned-{text}", text), self.store)
        folder = bundle(self.folder / f"bundle-{text}", 0, {"small": digest})
        made = {"kind": "router", "parent": "", "method": "light", "dataset": "", "seed": 0, "licence": "", "made_s": 1.0}

        def save(connection):
            model_store.save_weights(connection, digest, {}, "small", **NOTED, numbers={}, trace_ids=[])
            return model_store.save(connection, folder, **made, run_id="run-1", trace_ids=[])

        return digest, self.wrote(save)

    def fingerprint(self, digest):
        return model(on(self.config.tiers[0], self.store / digest))

    def tried(self, candidate, began_s=AT_S - 100, stage="shadow"):
        """A run under way with this candidate."""

        def begin(connection):
            how = {"kind": "student", "incumbent": "", "by": "me", "settings": {}, "stage": "training", "numbers": {}}
            run = runs.begin(connection, **how, now_s=began_s)
            event = {"what": "trained", "by": "me", "now_s": began_s + 1, "candidate": candidate}
            runs.event(connection, run, 1, stage=stage, **event)

        self.wrote(begin)

    def starts(self, digest, status="RUNNING"):
        self.apps.known[app_of(Version("small", digest))] = AppState(status, int(status == "RUNNING"), "no room")

    async def filler(self):
        models = self.prints["models"]
        given = self.ledger.engine, self.config, self.own, Configured(), self.store, models
        self.variants = Variants(*given, lambda version, _: self.tier(version.tier, version.name), self.apps)
        await self.variants.open()
        own = dict(models) | {tier: self.fingerprint(digest) for tier, digest in self.own.items()}
        tiers = {name: self.tier(name, name) for name in NAMES}
        prices = {name: (1e-6 * usd, 1e-6 * usd, 1e-6 * usd) for name, usd in zip(NAMES, (1.0, 4.0, 20.0), strict=True)}
        counts = dict.fromkeys(NAMES, lambda text: len(text.split()))
        how = Abilities(self.config.tiers), prices, {"models": own}, None, counts
        made = Filler(self.ledger, tiers, self.config, *how, clock=lambda: AT_S + 100)
        made.variants = self.variants
        return made

    def run(self, before, *then):
        """before: what the database holds; called with the tables made. then: conditions on the filler, or steps."""

        async def scenario():
            await self.ledger.open()
            before()
            filler = await self.filler()
            filler.start()
            try:
                for step in then or (self.over,):
                    async with asyncio.timeout(20):
                        while not await asyncio.to_thread(step, filler):
                            await asyncio.sleep(0.01)
            finally:
                await filler.close()
                await self.variants.close()
                await self.ledger.close()

        asyncio.run(scenario())

    def over(self, filler):
        return "waiting" not in self.states() and not filler.tasks and filler.rests == "there is nothing to fill in"

    def states(self):
        with self.ledger.engine.connect() as connection:
            return [found for (found,) in connection.execute(select(schema.fills.c.state))]

    def served(self, trace="a"):
        with self.ledger.engine.connect() as connection:
            return served_rows.one(connection, trace, versions=self.variants.versions)

    def scores(self, trace="a"):
        return {name: grade.score for name, grade in self.served(trace).grades.items()}

    def drawn(self, *names, tier="small", **other):
        fingerprint = other.pop("fingerprint", self.prints["models"][tier])
        rows = [row(name, tier=tier, **{"model": fingerprint, **other}) for name in names]
        store(self.ledger.engine, completions=rows, fills=[fill_row(name, at_s=AT_S) for name in names])


def test_incumbent_and_candidate_are_asked_and_each_is_graded_by_itself(tmp_path):
    place = Place(tmp_path)
    made = {}

    def before():
        digest, candidate = place.learned("new")
        made["name"], made["digest"] = variant("small", digest), digest
        place.said[made["name"]] = "43"
        place.tried(candidate)
        place.starts(digest)
        place.drawn("a")

    place.run(before)
    name = made["name"]
    assert place.scores() == {"small": 1.0, name: 0.0, "medium": 1.0, "large": 1.0}
    assert not place.asked["small"].bodies  # the client had its answer
    (probe, body) = place.asked[name].bodies
    assert probe["max_tokens"] == 1 and body["model"] == "small" and body["logprobs"]  # the replica knows no other name
    served = place.served()
    assert served.on({"small": made["digest"]}).grades["small"].score == 0.0 and served.on({}).grades["small"].score == 1.0
    with place.ledger.engine.connect() as connection:
        kept = select(schema.completions).where(schema.completions.c.tier == name)
        (found,) = connection.execute(kept).mappings()
        assert (found["role"], found["model"]) == ("fill", place.fingerprint(made["digest"]))
        called = select(schema.calls.c.tier, schema.calls.c.role).where(schema.calls.c.model == found["model"])
        assert connection.execute(called).all() == [("small", "fill")]  # paid as the tier
        for weights_of_it, n in (({}, 1), ({"small": made["digest"]}, 1), ({"small": "e" * 64}, 0)):
            assert connection.scalar(served_rows.complete(0.0, names_on(NAMES, weights_of_it))) == n


def test_in_a_canary_the_incumbents_weights_are_asked_too(tmp_path):
    place = Place(tmp_path)
    made = {}

    def before():
        digest, candidate = place.learned("new")
        made["name"] = variant("small", digest)
        place.tried(candidate, stage="canary")
        place.wrote(bundles.put, bundles.Bundle("canary", candidate, "run-1", 0.5))
        place.starts(digest)
        place.drawn("a", fingerprint=place.fingerprint(digest))  # the candidate answered this client

    place.run(before)
    assert len(place.asked["small"].bodies) == 1 and len(place.asked[made["name"]].bodies) == 1  # our first request alone
    assert place.served().answered_by == made["name"]
    assert place.scores().keys() == {"small", made["name"], "medium", "large"}


def test_nothing_is_filled_in_until_the_candidate_answers_and_then_all_is(tmp_path):
    place = Place(tmp_path)
    made = {}

    def before():
        made["digest"], candidate = place.learned("new")
        place.tried(candidate)
        place.drawn("a")

    name = lambda: variant("small", made["digest"])  # noqa: E731
    starts = lambda filler: place.starts(made["digest"]) or True  # noqa: E731
    place.run(before, lambda filler: filler.rests == f"{name()} is not started yet", starts, place.over)
    assert place.scores()[name()] == 1.0


def test_a_candidate_that_does_not_start_holds_nobody_up(tmp_path):
    place = Place(tmp_path)
    made = {}

    def before():
        made["digest"], candidate = place.learned("new")
        place.tried(candidate)
        place.starts(made["digest"], "DEPLOY_FAILED")
        place.drawn("a")

    place.run(before)
    found = place.served().grades[variant("small", made["digest"])]
    assert found.score is None and "does not start: no room" in found.detail and place.scores()["small"] == 1.0


def test_what_was_filled_in_since_the_run_began_is_looked_at_again_and_nothing_older(tmp_path):
    """Else a shadow on a quiet server would wait for new requests; older ones may be what the candidate was made of."""
    place = Place(tmp_path)
    made = {}

    def before():
        made["digest"], candidate = place.learned("new")
        place.drawn("a", "old")
        rows = [row(trace, "fill", tier, model=place.prints["models"][tier]) for trace in ("a", "old") for tier in NAMES[1:]]
        store(place.ledger.engine, completions=rows)
        old = schema.fills.c.trace_id == "old"
        place.wrote(lambda c: c.execute(update(schema.fills).values(state="done")))
        place.wrote(lambda c: c.execute(update(schema.fills).where(old).values(drawn_s=AT_S - 1000)))
        place.tried(candidate)
        place.starts(made["digest"])

    place.run(before, lambda filler: variant("small", made["digest"]) in place.scores(), place.over)
    assert len(place.asked[variant("small", made["digest"])].bodies) == 2 and not place.scores("old")
    with place.ledger.engine.connect() as connection:
        changed = dict(connection.execute(select(schema.fills.c.trace_id, schema.fills.c.changed_s)).all())
    assert changed == {"a": AT_S + 100, "old": AT_S}  # a stage takes it for graded now


def test_answers_of_unknown_weights_teach_nothing(tmp_path):
    """An operator has changed the model: what it said before is nobody's."""
    place = Place(tmp_path)
    place.run(lambda: place.drawn("a", text="41", model="another-model"))
    served = place.served()
    assert served.answered_by == "" and served.answers["small"].text == "42"  # it was asked anew
    assert len(place.asked["small"].bodies) == 1 and place.scores()["small"] == 1.0


def test_after_a_restart_on_promoted_weights_their_name_is_the_main_applications(tmp_path):
    place = Place(tmp_path)
    made = {}

    def before():
        digest, promoted = place.learned("new")
        place.own, made["name"] = {"small": digest}, variant("small", digest)
        place.wrote(bundles.put, bundles.Bundle("promoted", promoted, "run-1"))
        place.drawn("a", tier="large")

    place.run(before)
    assert place.scores().keys() == {made["name"], "medium", "large"}
    assert len(place.asked["small"].bodies) == 1 and not place.apps.deployed  # its own deployment has them


def test_feedback_on_an_answer_of_a_candidate_is_its_own(tmp_path):
    place = Place(tmp_path)
    made = {}

    def before():
        made["digest"], candidate = place.learned("new")
        place.tried(candidate, stage="canary")
        place.wrote(bundles.put, bundles.Bundle("canary", candidate, "run-1", 0.5))
        place.starts(made["digest"])
        place.said["small"] = "7"
        place.drawn("a", fingerprint=place.fingerprint(made["digest"]))

    told = lambda filler: store(place.ledger.engine, feedback=feedback_row("a", 0.0, at_s=AT_S + 150)) or True  # noqa: E731
    again = lambda filler: place.served().grades[variant("small", made["digest"])].source == "feedback"  # noqa: E731
    place.run(before, place.over, told, again)
    found = place.served().grades
    assert found[variant("small", made["digest"])].score == 0.0 and found["small"].source != "feedback"


def test_a_tier_that_answers_no_more_is_no_fault_of_the_request(tmp_path):
    place = Place(tmp_path)
    made = {}

    def before():
        made["digest"], candidate = place.learned("new")
        name = variant("small", made["digest"])
        answers = [Said("hello")]  # our first request
        place.said[name] = lambda body: answers.pop() if answers else Said(error=NoReplica("small", "nobody"))
        place.tried(candidate)
        place.starts(made["digest"])
        place.drawn("a")

    place.run(before, lambda filler: place.states() == ["failed"])
    with place.ledger.engine.connect() as connection:
        why = connection.scalar(select(schema.fills.c.why))
    assert variant("small", made["digest"]) in why
