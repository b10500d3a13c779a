"""An endpoint that keeps what it serves, over scripted tiers, and what it has kept."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from live import FlowMaker, OneFlow, ladder
from scripted_tier import Said, ScriptedTier
from sqlalchemy import Table, select
from starlette.testclient import TestClient

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.learning.kept.collector import Collector
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from router.cascade.flow import Cascade
from router.config import Escalation
from router.engine import Router
from router.types import Accept, GoUp

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "how much is six times seven"}]}
Script = Callable[[Mapping[str, Any]], Said]


class Judge:
    """Accepts an answer that is sure."""

    def next(self, answers):
        (tier, reply), *_ = answers.items()
        return Accept(tier) if min(reply.logprobs, default=0.0) > -1 else GoUp(("large",), "low confidence")


class Judged(OneFlow):
    """Every `auto` request is a cascade from `small` on."""

    def __init__(self, config, mode="buffer"):
        super().__init__(config, self.cascade)
        self.settings = Escalation(mode=mode, holdback_tokens=2)

    def decide(self, *given):
        decided = super().decide(*given)
        return decided if decided.target in self.names else replace(decided, tier="small", judge=Judge())

    def cascade(self, router, request, decided):
        return Cascade(request.body, self.names, Judge(), self.settings, request.stream).run(["small"])


class Place:
    """flow: none: one plain call to `large`; `buffer` or `holdback`: a cascade; a function: that. said: tier -> what it says.

    sections: further ones of the configuration.
    """

    def __init__(
        self,
        folder: Path,
        flow: str | FlowMaker = "",
        said: Mapping[str, Said | Script] | None = None,
        audits: float = 0.0,
        url: str = "",
        sections: Mapping[str, Any] | None = None,
        **learning: Any,
    ) -> None:
        settings = {"collect": "consented", "own_key": "all", "fill_share": 0.0, **learning}
        where = {"url": url or f"sqlite:///{folder / 'ledger.db'}", "journal_s": 0}
        self.config = ladder(learning=settings, ledger=where, escalation={"audit_rate": audits}, **sections or {})
        scripts = {name: (said or {}).get(name, Said("42")) for name in self.config.names}
        self.tiers = {n: ScriptedTier(n, s if callable(s) else lambda _, s=s: s) for n, s in scripts.items()}
        self.ledger = Ledger(self.config.ledger)
        tiers = {tier.name: tier for tier in self.config.tiers}
        self.models = {name: f"print-of-{name}" for name in tiers}
        self.collector = Collector(self.config.learning, self.ledger.store, tiers, self.models)
        keys = Keys(self.ledger.engine, insecure=True, learning=self.config.learning.own_key)
        self.accounts = Accounts(keys, self.ledger, tiers=tiers, collector=self.collector, models=self.models)
        count = dict.fromkeys(self.config.names, lambda text: len(text.split()))
        made = OneFlow(self.config, flow, kind="delegation") if callable(flow) else None
        self.router = made or (Judged(self.config, flow) if flow else Router(self.config, None, count))
        self.ingress = Ingress(self.router, self.tiers, self.accounts, 10_000_000)

    def client(self) -> TestClient:
        return TestClient(self.ingress.app(), base_url="http://127.0.0.1")

    def rows(self, table: Table = schema.completions) -> list[dict[str, Any]]:
        with self.ledger.engine.connect() as connection:
            found = [dict(row) for row in connection.execute(select(table)).mappings()]
        return sorted(found, key=lambda row: [str(row.get("role")), *(str(value) for value in row.values())])

    @property
    def dropped(self) -> dict[str, int]:
        return dict(+self.collector.counts.dropped)


def ask(client: TestClient, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
    answer = client.post("/v1/chat/completions", json={**CHAT, **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def chunks(answer: Any) -> list[dict[str, Any]]:
    """The chunks of a stream."""
    events = [line[5:].strip() for line in answer.text.split("\n") if line.startswith("data:")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def message(row: Mapping[str, Any]) -> Any:
    return json.loads(row["answer"])
