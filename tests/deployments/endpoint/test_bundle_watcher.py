"""What the database says decides on every ingress within seconds, and whatever goes wrong leaves in use what was in use."""

import asyncio
import json
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import waiting
import yaml
from scripted_tier import Said, ScriptedTier
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.reload import Reloader
from deployments.keys.admission import Keys
from deployments.learning.live import active_router, bundles, model_store
from deployments.learning.live.active_router import BundleWatcher
from deployments.learning.live.bundles import Bundle
from deployments.learning.live.model_store import digest_of
from deployments.learning.live.routers_in_use import InUse, Routers, position, wanted
from deployments.ledger.database import writing
from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import model_files, traces
from router.config import SHIPPED, load_config
from router.config import Ledger as Settings
from router.engine import Router, load_artefact

NAMES = ("small", "medium", "large")
ARTEFACT = SHIPPED.parent / "pocket" / "router"
until = partial(waiting.until, patience_s=30, every_s=0.02)


# -- which router decides: pure --------------------------------------------------------------------------------------------

PROMOTED = Bundle("promoted", "new", "run", over="mine")
CANARY = Bundle("canary", "newer", "next", 0.05, over="mine")
PREVIOUS = Bundle("previous", "old", "before", over="mine")


def slots(*given: Bundle) -> dict[str, Bundle]:
    return {one.slot: one for one in given}


def test_without_a_promotion_the_configured_artefact_decides():
    assert wanted({}, "mine").active == "" and wanted({}, "").active == ""


def test_all_slots_count_while_the_configured_artefact_is_the_one_they_replaced():
    found = wanted(slots(PROMOTED, CANARY, PREVIOUS), "mine")
    assert (found.active, found.canary, found.share, found.previous, found.ignored) == ("new", "newer", 0.05, "old", "")


def test_the_operators_change_has_the_last_word():
    found = wanted(slots(PROMOTED, CANARY, PREVIOUS), "changed")
    assert (found.active, found.canary, found.share, found.previous) == ("", None, 0.0, None)
    assert "changed afterwards" in found.ignored and "promoted" in found.ignored


def test_a_rollback_to_the_configured_artefact_is_never_called_ignored():
    assert wanted(slots(replace(PROMOTED, digest="")), "changed").ignored == ""


def test_a_canary_of_what_decides_already_is_none():
    assert wanted(slots(PROMOTED, replace(CANARY, digest="new")), "mine").canary is None


def test_a_conversation_stays_with_its_router_and_each_canary_draws_anew():
    active, canary = InUse(object(), "a" * 64), InUse(object(), "b" * 64)
    both = Routers(active, canary, 0.05)
    names = [f"conversation {n}" for n in range(20_000)]
    drawn = {name for name in names if both.of(name) is canary}
    assert len(drawn) == pytest.approx(1_000, abs=130)  # four standard deviations
    assert drawn == {name for name in names if both.of(name) is canary}
    assert drawn <= {name for name in names if Routers(active, canary, 0.2).of(name) is canary}  # a larger share only adds
    other = {name for name in names if position("c" * 64, name) < 0.05}
    assert len(drawn & other) < 120
    assert all(Routers(active, canary, 1.0).of(name) is canary for name in names[:100])


# -- an ingress over a real database ---------------------------------------------------------------------------------------


def always(folder: Path, tier: int) -> Path:
    """An artefact that always takes this tier."""
    shutil.copytree(ARTEFACT, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    rule = {**manifest["rules"]["balanced"], "kind": "tier", "value": tier}
    manifest["rules"] = dict.fromkeys(manifest["rules"], rule)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write(file: Path, **routing: Any) -> None:
    price = {n: {"usd_per_1m_input": i + 1.0, "usd_per_1m_output": i + 1.0} for i, n in enumerate(NAMES)}
    tiers = [{"name": n, "engine": "echo", "context": 1000, "price": price[n]} for n in NAMES]
    file.write_text(yaml.safe_dump({"tiers": tiers, "routing": routing}))


class Place:
    """One ingress, whose configuration lies in a file; several may share the database."""

    def __init__(self, folder: Path, said=lambda body: Said("one two three")) -> None:
        self.folder, self.file = folder, folder / "ladder.yaml"
        self.ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}"))
        config, count = load_config(self.file), dict.fromkeys(NAMES, lambda text: len(text.split()))
        self.made: list[str] = []

        def make(settings):
            self.made.append(settings.routing.artefact or "")
            return Router(settings, load_artefact(settings), count)

        router = make(config)
        self.accounts = Accounts(Keys(None, insecure=True), self.ledger, tiers={tier.name: tier for tier in config.tiers})
        self.ingress = Ingress(router, {n: ScriptedTier(n, said) for n in NAMES}, self.accounts, 1_000_000)
        self.watcher = BundleWatcher(self.ledger.engine, router, make, self.ingress.answering.use, self.accounts.refresh)
        self.ingress.watcher = self.watcher
        renewed = self.accounts.refresh, self.watcher.prepare
        self.ingress.reloader = Reloader(str(self.file), router, make, self.ingress.use, *renewed)

    def wrote(self, action, *given):
        with writing(self.ledger.engine) as connection:
            return action(connection, *given)

    def stored(self, name: str, tier: int) -> str:
        made = {"kind": "router", "parent": "", "run_id": name, "method": "light", "dataset": "", "seed": 0, "licence": ""}
        folder = always(self.folder / name, tier)
        return self.wrote(lambda c: model_store.save(c, folder, **made, made_s=0.0, trace_ids=[]))

    def promote(self, digest: str, over: str = "") -> None:
        self.wrote(bundles.promote, digest, "run", over, "test", 1.0)

    @contextmanager
    def served(self):
        with TestClient(self.ingress.app()) as self.client:
            yield self

    def tier(self, **more) -> str:
        body = {"model": "auto", "messages": [{"role": "user", "content": "What is 2 plus 3?"}], **more}
        answer = self.client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["model"]

    def told(self) -> dict:
        return self.client.get("/v1/status").json()["learning"]["in_use"]

    def rows(self) -> list[tuple[str, str]]:
        """(tier, digest of the router) of each trace."""
        with self.ledger.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(select(traces.c.tier, traces.c.router).order_by(traces.c.began_s))]


@pytest.fixture(autouse=True)
def often(monkeypatch, tmp_path):
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(active_router, "LOOK_EVERY_S", 0.02)


@pytest.fixture
def place(tmp_path):
    """No artefact is configured: `auto` is the largest tier."""
    write(tmp_path / "ladder.yaml")
    with Place(tmp_path).served() as made:
        yield made


@pytest.mark.slow
def test_a_promotion_is_used_within_seconds_and_a_rollback_too(place):
    assert place.tier() == "large" and place.told()["active"] == ""
    first, second = place.stored("first", 0), place.stored("second", 1)
    place.promote(first)
    until(lambda: place.tier() == "small")
    place.promote(second)
    until(lambda: place.tier() == "medium")
    assert place.told()["active"] == second
    made = len(place.made)
    place.wrote(bundles.rollback, "somebody", 2.0)
    until(lambda: place.tier() == "small")
    assert len(place.made) == made  # it was kept ready
    rows = place.rows()
    assert rows[0] == ("large", "") and rows[-1] == ("small", first) and ("medium", second) in rows


@pytest.mark.slow
def test_each_ingress_of_a_database_follows_and_a_restart_begins_with_it(place, tmp_path):
    with Place(tmp_path).served() as other:
        place.promote(place.stored("first", 0))
        until(lambda: place.tier() == other.tier() == "small")
    with Place(tmp_path).served() as later:
        assert later.tier() == "small"  # the first request


@pytest.mark.slow
def test_a_canary_decides_on_its_share_of_the_conversations_alone(place):
    canary = place.stored("canary", 0)
    place.wrote(bundles.put, Bundle("canary", canary, "run", 0.5))
    until(lambda: place.told().get("canary") == canary)
    hello = [{"role": "user", "content": "Hello"}]
    first = {
        f"s{n}": place.client.post(
            "/v1/chat/completions", json={"model": "auto", "messages": hello}, headers={"x-session-id": f"s{n}"}
        ).json()["model"]
        for n in range(40)
    }
    assert set(first.values()) == {"small", "large"}
    place.ingress.answering.sessions.known.clear()  # not by the memory of the conversation's tier
    again = {
        name: place.client.post(
            "/v1/chat/completions", json={"model": "auto", "messages": hello}, headers={"x-session-id": name}
        ).json()["model"]
        for name in first
    }
    assert again == first
    assert {router for tier, router in place.rows() if tier == "small"} == {canary}
    assert place.tier(model="medium") == "medium" and place.rows()[-1][1] == ""  # nobody decided
    place.wrote(bundles.clear, "canary")
    until(lambda: "canary" not in place.told())


@pytest.mark.slow
def test_the_operators_artefact_wins_and_it_is_said(place, tmp_path):
    place.promote(place.stored("first", 0))
    until(lambda: place.tier() == "small")
    write(place.file, artefact=str(always(tmp_path / "mine", 1)))
    until(lambda: place.tier() == "medium")
    assert place.rows()[-1] == ("medium", digest_of(tmp_path / "mine"))
    assert "changed afterwards" in place.told()["ignored"] and place.told()["configured"] == digest_of(tmp_path / "mine")
    write(place.file)
    until(lambda: place.tier() == "small")  # back to what was promoted
    until(lambda: "ignored" not in place.told())


@pytest.mark.slow
def test_a_reload_of_other_settings_keeps_what_was_promoted(place):
    first = place.stored("first", 0)
    place.promote(first)
    until(lambda: place.tier() == "small")
    write(place.file, target=0.999999)  # a chance, by which the same artefact takes a larger tier
    until(lambda: place.client.get("/v1/status").json()["target"] == "0.999999")
    assert place.told()["active"] == first
    assert place.tier() != "small" and place.rows()[-1][1] == place.told()["active"]


@pytest.mark.slow
def test_settings_that_the_promoted_artefact_cannot_follow_are_refused(place):
    place.promote(place.stored("first", 0))
    until(lambda: place.tier() == "small")
    folder = Path(place.ingress.router.config.routing.artefact)
    manifest = json.loads((folder / "manifest.json").read_text())
    shutil.rmtree(folder)
    place.wrote(lambda c: c.execute(update(model_files).values(content=b"evil")))
    answer = place.client.post("/v1/admin/reload")
    assert answer.status_code == 400 and "was changed after it was stored" in answer.text and manifest["rules"]
    assert place.tier() == "small"


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil, told",
    [("tampered", "was changed after it was stored"), ("other", "trained for tiers"), ("none", "not in the ledger's database")],
)
def test_a_broken_one_is_refused_and_what_decided_goes_on(place, tmp_path, caplog, spoil, told):
    place.promote(place.stored("first", 0))
    until(lambda: place.tier() == "small")
    if spoil == "other":
        folder = always(tmp_path / "other", 1)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "tiers": ["a", "b", "c"]}))
        made = {"kind": "router", "parent": "", "run_id": "r", "method": "light", "dataset": "", "seed": 0, "licence": ""}
        bad = place.wrote(lambda c: model_store.save(c, folder, **made, made_s=0.0, trace_ids=[]))
    else:
        bad = place.stored("bad", 1) if spoil == "tampered" else "e" * 64
        place.wrote(lambda c: c.execute(update(model_files).where(model_files.c.digest == bad).values(content=b"evil")))
    place.promote(bad)
    until(lambda: told in place.told().get("not_loaded", {}).get("promoted", ""))
    assert place.tier() == "small" and caplog.text.count("in the slot promoted is not used") == 1
    place.promote(place.stored("good", 2))
    until(lambda: place.tier() == "large")
    assert "promoted" not in place.told().get("not_loaded", {})  # what is broken is the previous one now


@pytest.mark.slow
def test_a_broken_canary_decides_nothing(place):
    place.wrote(bundles.put, Bundle("canary", "e" * 64, "run", 1.0))
    until(lambda: "not in the ledger's database" in place.told().get("not_loaded", {}).get("canary", ""))
    assert place.tier() == "large"


@pytest.mark.slow
def test_while_the_database_is_away_nothing_changes(place, monkeypatch):
    place.promote(place.stored("first", 0))
    until(lambda: place.tier() == "small")

    def down(connection):
        raise OperationalError("select", {}, Exception("the database is away"))

    monkeypatch.setattr(bundles, "read", down)
    until(lambda: place.told().get("database") == "the database is away")
    assert place.tier() == "small"
    monkeypatch.undo()
    until(lambda: "database" not in place.told())
    assert place.tier() == "small"


@pytest.mark.slow
def test_a_request_under_way_keeps_its_router(tmp_path):
    write(tmp_path / "ladder.yaml")
    going, go = threading.Event(), asyncio.Event()
    place = Place(tmp_path)
    original = place.ingress.answering.decide

    async def slowly(*given):
        decided = await original(*given)
        if not going.is_set():
            going.set()
            await asyncio.wait_for(go.wait(), 30)
        return decided

    place.ingress.answering.decide = slowly
    with place.served():
        got: list[str] = []
        thread = threading.Thread(target=lambda: got.append(place.tier()))
        thread.start()
        going.wait(30)
        place.promote(place.stored("first", 0))
        until(lambda: place.told()["active"])
        place.client.portal.call(go.set)
        thread.join(30)
        assert got == ["large"] and place.rows() == [("large", "")]
        assert place.tier() == "small"


@pytest.mark.slow
def test_an_audit_counts_for_the_router_that_decided(place):
    canary, promoted = place.stored("canary", 0), place.stored("promoted", 1)
    place.promote(promoted)
    place.wrote(bundles.put, Bundle("canary", canary, "run", 0.5))
    until(lambda: place.told().get("canary") == canary)
    routers = place.ingress.answering.routers
    promises = place.ingress.auditor.promises
    assert promises(canary) is routers.canary.promises is not routers.active.promises
    assert promises(promoted) is routers.active.promises and promises("") is routers.previous.promises
    assert promises("e" * 64) is None  # no longer in use: nobody's alarm hears of it
    assert routers.canary.promises.found is routers.active.promises.found  # what all audits found is known to all
    assert not any(one.unread for one in place.watcher.promises)


# -- as it is served -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_served_ingress_follows_shows_it_and_starts_what_learns(tmp_path, monkeypatch):
    """Without Ray: what `stepdown serve` builds, over echo tiers."""
    from deployments.app import ServedIngress
    from deployments.learning import started_process

    sleeps = (sys.executable, "-c", "import sys; sys.stdin.read()")
    monkeypatch.setattr(started_process.StartedProcess.__init__, "__defaults__", (sleeps, time.monotonic))
    file = tmp_path / "ladder.yaml"
    write(file)
    settings = {"ledger": {"url": f"sqlite:///{tmp_path / 'ledger.db'}"}, "learning": {"collect": "consented", "start": "auto"}}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | settings))
    config = load_config(file)
    made = ServedIngress(config.model_dump(mode="json"), "", True, {}, str(file))
    assert made.learning and made.flywheel
    made.learning.read = lambda engine, config, now_s: {"counts": {"kept": 7}}
    store = Place.__new__(Place)
    store.folder, store.ledger = tmp_path, Ledger(config.ledger)
    with TestClient(made.app(), base_url="http://localhost") as client:
        chat = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
        assert client.post("/v1/chat/completions", json=chat).json()["model"] == "large"
        store.promote(store.stored("first", 0))
        until(lambda: client.post("/v1/chat/completions", json=chat).json()["model"] == "small")
        until(lambda: made.flywheel.process is not None)
        pid = made.flywheel.process.pid
        for told in (client.get("/v1/status").json()["learning"], client.get("/costs/learning.json").json()):
            assert (told["collect"], told["start"], told["counts"]["kept"]) == ("consented", "auto", 7)
            assert told["in_use"]["active"] == digest_of(tmp_path / "first")
    assert not psutil.pid_exists(pid)
