"""Ladders whose tiers have learned weights, without Ray: an ingress over scripted tiers, and applications that a test plays."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripted_tier import Said, ScriptedTier
from sqlalchemy import select
from starlette.testclient import TestClient

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.learning.kept.collector import Collector
from deployments.learning.lease import Lease
from deployments.learning.live import model_store, weights
from deployments.learning.live.active_router import BundleWatcher
from deployments.learning.live.started_on import configured, placed
from deployments.learning.live.variant_keeper import VariantKeeper
from deployments.learning.live.variant_tiers import Variants
from deployments.ledger.database import writing
from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import calls, completions
from deployments.replicas.variant_apps import AppState, app_of
from deployments.tiers.fingerprints import ladder_fingerprints
from router.config import SHIPPED, Config
from router.config import Ledger as Settings
from router.engine import Router, load_artefact

NAMES = ("small", "medium", "large")
ARTEFACT = SHIPPED.parent / "pocket" / "router"
NOTED: dict[str, Any] = {
    "parent": "",
    "run_id": "run-1",
    "method": "sequence",
    "dataset": "",
    "seed": 0,
    "licence": "",
    "made_s": 1.0,
}


def model_folder(folder: Path, text: str) -> Path:
    """The folder of a model, as far as anything here reads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(text.encode())
    return folder


def ladder_of(folder: Path, **sections: Any) -> Config:
    """Three tiers on vllm, whose models are in `folder`, and a store of weights beside them."""
    price = {n: {"usd_per_1m_input": i + 1.0, "usd_per_1m_output": i + 1.0} for i, n in enumerate(NAMES)}
    sources = {n: folder / f"model-{n}" for n in NAMES}
    for name, source in sources.items():
        if not source.exists():
            model_folder(source, name)
    tiers = [{"name": n, "engine": "vllm", "source": str(sources[n]), "context": 1000, "price": price[n]} for n in NAMES]
    return Config.model_validate({"tiers": tiers, "flywheel": {"weights": str(folder / "store")}, **sections})


def bundle(folder: Path, tier: int, weights: dict[str, str]) -> Path:
    """An artefact that always takes this tier, made for these weights."""
    shutil.copytree(ARTEFACT, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    rule = {**manifest["rules"]["balanced"], "kind": "tier", "value": tier}
    manifest |= {"rules": dict.fromkeys(manifest["rules"], rule)} | ({"weights": weights} if weights else {})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@dataclass
class PlayedApps:
    """Serve's applications. held: deployed ones do not start until it is false."""

    held: bool = False
    known: dict[str, AppState] = field(default_factory=dict)
    deployed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def states(self):
        return {
            app: AppState("RUNNING", 1) if its.status == "DEPLOYING" and not self.held else its for app, its in self.known.items()
        }

    def deploy(self, version, settings):
        self.deployed.append(app_of(version))
        self.known[app_of(version)] = AppState("DEPLOYING")

    def delete(self, app):
        self.deleted.append(app)
        del self.known[app]


class Place:
    """One ingress whose tiers say which weights they have; own: tier -> digest that the main application has."""

    def __init__(self, folder: Path, own=None, keys=None, apps=None, config=None, **sections) -> None:
        self.folder, self.apps = folder, apps or PlayedApps()
        self.config = config or ladder_of(folder, **sections)
        self.store = weights.root(self.config)
        self.ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}"))
        count, own = dict.fromkeys(NAMES, lambda text: len(text.split())), own or {}
        self.scripts: dict[str, Any] = {}
        """name of weights -> script, in place of one that says the name"""
        self.asked: dict[str, ScriptedTier] = {}

        def make(settings):
            return Router(settings, load_artefact(settings), count, fingerprints=ladder_fingerprints(settings))

        router = make(placed(self.config, own))
        tiers = {tier.name: tier for tier in self.config.tiers}
        accounts = Accounts(keys(self.ledger) if keys else Keys(None, insecure=True), self.ledger, tiers=tiers)
        accounts.models.update(router.fingerprints["models"])
        if self.config.learning.collect != "off":
            accounts.collector = Collector(self.config.learning, self.ledger.store, tiers, accounts.models)
        played = {n: self.scripted(n, f"own {n}") for n in NAMES}
        self.ingress = Ingress(router, played, accounts, 1_000_000)

        def handle(version, settings):
            return self.ingress.answering.watched(self.scripted(version.tier, version.name), alone=True)

        models = ladder_fingerprints(self.config)["models"]
        given = self.ledger.engine, self.config, own, configured(self.config), self.store, models, handle, self.apps
        self.variants = Variants(*given)
        self.keeper = VariantKeeper(self.variants, Lease(self.ledger.store.transact))
        self.ingress.stand_beside(self.variants, self.keeper)
        hooks = router, make, self.ingress.answering.use, accounts.refresh, self.variants
        self.ingress.watcher = self.watcher = BundleWatcher(self.ledger.engine, *hooks)

    def scripted(self, tier: str, name: str) -> ScriptedTier:
        self.asked[name] = ScriptedTier(tier, lambda body: self.scripts.get(name, lambda body: Said(name))(body))
        return self.asked[name]

    def wrote(self, action, *given):
        with writing(self.ledger.engine) as connection:
            return action(connection, *given)

    def learned(self, text: str, tier: str = "small") -> str:
        """Weights of a tier, kept and noted; returns their digest."""
        digest = weights.keep(model_folder(self.folder / f"learned-{text}", text), self.store)
        self.wrote(lambda c: model_store.save_weights(c, digest, {}, tier, **NOTED, numbers={}, trace_ids=[]))
        return digest

    def stored(self, name: str, tier: int = 0, weights=None) -> str:
        """A bundle in the database; returns its digest."""
        made = {"kind": "router", "parent": "", "run_id": name, "method": "light", "dataset": "", "seed": 0, "licence": ""}
        folder = bundle(self.folder / name, tier, weights or {})
        return self.wrote(lambda c: model_store.save(c, folder, **made, made_s=0.0, trace_ids=[]))

    @contextmanager
    def served(self):
        with TestClient(self.ingress.app()) as self.client:
            yield self

    def chat(self, model="auto", key=None, session=None, **more):
        headers = ({"authorization": f"Bearer {key}"} if key else {}) | ({"x-session-id": session} if session else {})
        body = {"model": model, "messages": [{"role": "user", "content": "What is 2 plus 3?"}], **more}
        return self.client.post("/v1/chat/completions", json=body, headers=headers)

    def said(self, model="auto", **more) -> str:
        answer = self.chat(model, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"]

    def told(self) -> dict:
        return self.client.get("/v1/status").json()["learning"]["in_use"]

    def models_of_calls(self) -> list[tuple[str, str]]:
        """(tier, fingerprint) of each call, the first one first."""
        with self.ledger.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(select(calls.c.tier, calls.c.model).order_by(calls.c.began_s))]

    def kept(self) -> list[tuple[str, str, str]]:
        with self.ledger.engine.connect() as connection:
            rows = select(completions.c.role, completions.c.tier, completions.c.model).order_by(completions.c.created_s)
            return [tuple(row) for row in connection.execute(rows)]

    def on_loop(self, work):
        """Run a coroutine function where the ingress runs."""
        return self.client.portal.call(work)
