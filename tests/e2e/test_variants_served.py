"""Learned weights on the real ladder: promoted and taken back under load without one failed request, and after a restart."""

import json
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from sqlalchemy import func, select
from waiting import until

from deployments.learning.live import bundles, model_store, weights
from deployments.learning.live.model_store import digest_of
from deployments.learning.live.weights_used import on
from deployments.ledger import schema
from deployments.ledger.database import connect, migrate, writing
from deployments.replicas.variant_apps import app_of
from deployments.serve.background import served
from deployments.tiers.fingerprints import model
from router.config import SHIPPED, load_config
from router.flywheel.variants import Version, variant

pytestmark = [pytest.mark.ray, pytest.mark.ladder, pytest.mark.slow]
POCKET = SHIPPED.parent / "pocket"
CLIENTS = 32
MADE = {"parent": "", "run_id": "run-1", "dataset": "", "seed": 0, "licence": "", "made_s": 1.0, "trace_ids": []}


def noisy(folder: Path) -> Path:
    """The pocket ladder's small model with a little noise in its weights: other weights that answer about the same."""
    shutil.copytree(POCKET / "models" / "small", folder)
    torch.manual_seed(1)
    file = folder / "model.safetensors"
    made = {name: part + 1e-4 * torch.randn_like(part) for name, part in load_file(file).items()}
    save_file(made, file, {"format": "pt"})
    return folder


class Place:
    """A configuration with a database and a store of its own, and a bundle on other weights in both."""

    def __init__(self, folder: Path) -> None:
        text = (SHIPPED / "pocket.yaml").read_text().replace("../pocket", str(POCKET))
        own = f"ledger: {{url: 'sqlite:///{folder / 'ledger.db'}'}}\nflywheel: {{weights: '{folder / 'store'}'}}\n"
        self.file = folder / "pocket.yaml"
        self.file.write_text(text + own)
        self.config = load_config(str(self.file))
        self.engine = connect(self.config.ledger)
        migrate(self.engine)
        store = weights.root(self.config)
        self.digest = weights.keep(noisy(folder / "noisy"), store)
        self.app, self.name = app_of(Version("small", self.digest)), variant("small", self.digest)
        self.prints = {"configured": model(self.config.tiers[0]), "learned": model(on(self.config.tiers[0], store / self.digest))}
        artefact = shutil.copytree(POCKET / "router", folder / "bundle")
        manifest = json.loads((artefact / "manifest.json").read_text())
        (artefact / "manifest.json").write_text(json.dumps(manifest | {"weights": {"small": self.digest}}))
        self.over = digest_of(POCKET / "router")
        self.wrote(lambda c: model_store.save_weights(c, self.digest, {}, "small", **MADE, method="noise", numbers={}))
        self.bundle = self.wrote(lambda c: model_store.save(c, artefact, **MADE, kind="router", method="light"))

    def wrote(self, action, *given):
        with writing(self.engine) as connection:
            return action(connection, *given)

    def models_since(self, at_s: float, until_s: float) -> set[str]:
        """Fingerprints of `small`'s calls that began then."""
        called = schema.calls.c.tier == "small", schema.calls.c.began_s > at_s, schema.calls.c.began_s < until_s
        with self.engine.connect() as connection:
            return set(connection.scalars(select(schema.calls.c.model).where(*called)))

    def replicas(self) -> float:
        """The most that `small` held at a time."""
        with self.engine.connect() as connection:
            return connection.scalar(select(func.max(schema.windows.c.replicas)).where(schema.windows.c.tier == "small"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("variants"))


class Clients:
    """Thirty-two that ask without a pause, streams and whole answers, the router and `small` by name."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.headers, self.going = f"{url}/chat/completions", {"authorization": f"Bearer {key}"}, True
        self.results: Counter[str] = Counter()
        self.threads = [threading.Thread(target=self.ask, args=(n,), daemon=True) for n in range(CLIENTS)]

    def ask(self, n: int) -> None:
        with httpx.Client(headers=self.headers, timeout=120) as client:
            while self.going:
                text = f"What is {n} plus {sum(self.results.values()) % 90}?"
                body = {"model": "small" if n % 2 else "auto", "max_tokens": 16, "messages": [{"role": "user", "content": text}]}
                try:
                    self.results[self.once(client, body | {"stream": n % 4 < 2})] += 1
                except Exception as error:  # noqa: BLE001 whatever it is, it is a failed request
                    self.results[repr(error)] += 1

    def once(self, client: httpx.Client, body: dict) -> str:
        if not body["stream"]:
            answer = client.post(self.url, json=body)
            return "ok" if answer.status_code == 200 and answer.json()["choices"] else answer.text
        with client.stream("POST", self.url, json=body) as answer:
            text = answer.read().decode()
        return "ok" if answer.status_code == 200 and text.rstrip().endswith("[DONE]") and "error" not in text else text

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        for thread in self.threads:
            thread.join(130)


def replica_runs(app: str) -> bool:
    """Whether a replica's process of this application is there."""
    names = (" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
    return any(f"ServeReplica:{app}" in name for name in names)


def test_both_swaps_under_load_lose_no_request_and_after_a_restart_one_engine_is_enough(place):
    with served(str(place.file), timeout_s=900) as (url, key):
        http = httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=120)
        told = lambda: http.get(f"{url}/status").json()["learning"]["in_use"]  # noqa: E731
        hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        with Clients(url, key) as clients:
            until(lambda: clients.results["ok"] > 100, 300)
            began_s = time.time()
            place.wrote(bundles.promote, place.bundle, "run-1", place.over, "test", time.time())
            until(lambda: told()["active"] == place.bundle, 600)
            swapped_s, before = time.time(), sum(clients.results.values())
            until(lambda: sum(clients.results.values()) > before + 200, 300)
            assert told()["variants"][place.name]["state"] == "up"
            assert http.post(f"{url}/chat/completions", json={"model": place.name, **hello}).status_code == 200
            back_s = time.time()
            place.wrote(bundles.rollback, "test", time.time())
            until(lambda: told()["active"] == place.over, 30)
            after_s, before = time.time(), sum(clients.results.values())
            until(lambda: sum(clients.results.values()) > before + 200, 300)
        print(f"{clients.results}; up after {swapped_s - began_s:.1f} s, back after {after_s - back_s:.1f} s")
        assert set(clients.results) == {"ok"}
        until(lambda: place.models_since(after_s, time.time()) == {place.prints["configured"]}, 30)
        assert place.models_since(0, began_s) == {place.prints["configured"]}
        assert place.models_since(swapped_s + 1, back_s - 1) == {place.prints["learned"]}
        assert place.replicas() > 1  # two engines are paid twice
        until(lambda: "variants" not in told() and not replica_runs(place.app), 120)
        place.wrote(bundles.promote, place.bundle, "run-2", place.over, "test", time.time())
        place.wrote(bundles.clear, "previous")
        until(lambda: replica_runs(place.app), 120)
    until(lambda: not replica_runs(place.app), 60)  # `stepdown serve` has stopped it too
    with served(str(place.file), timeout_s=900) as (url, key):
        http = httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=120)
        shown = http.get(f"{url}/status").json()["learning"]["in_use"]
        assert shown["active"] == place.bundle and shown["own_weights"] == {"small": place.digest}
        at_s = time.time()
        assert http.post(f"{url}/chat/completions", json={"model": "small", **hello}).status_code == 200
        until(lambda: place.models_since(at_s, time.time()) == {place.prints["learned"]}, 30)
        time.sleep(5)
        assert not replica_runs(place.app)
