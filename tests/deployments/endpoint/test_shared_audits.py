"""A certificate that audits retired is retired for every ingress, after a restart, and after a reload; a new one is not."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from classifiers import Rule
from deployments.endpoint.shared_audits import SharedAudits
from deployments.ledger.ledger import Ledger
from router.config import Escalation
from router.config import Ledger as Settings
from router.decide import certificates
from router.decide.certificates import Certificate
from router.decide.promises import Promises

pytestmark = pytest.mark.slow

MADE = Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, "balanced", created="2026-11-24", comparable=0.6, harmless=0.02)
CHEAP = replace(MADE, rule="cheap", created="2026-11-25")
FIRST, OTHER, AGAIN = {"balanced": MADE}, {"balanced": MADE, "cheap": CHEAP}, {"balanced": replace(MADE, created="2026-11-30")}


def promises(made) -> Promises:
    manifest = {"certificates": {name: one.to_dict() for name, one in made.items()}}
    return Promises(SimpleNamespace(manifest=manifest, cascades=dict.fromkeys(made, Rule("cascade", 0.2))), Escalation(), {})


def ledger(tmp_path) -> Ledger:
    return Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}"))


class Ingress:
    """One process: its promises, and what it shares."""

    def __init__(self, tmp_path, made=FIRST):
        self.promises, self.ledger = promises(made), ledger(tmp_path)
        self.shared = SharedAudits(self.ledger, lambda: self.promises)

    async def audit(self, times, differs=True, target="balanced"):
        for _ in range(times):
            self.promises.audited(target, differs)
            await self.shared.share()

    def reload(self, made):
        fresh = promises(made)
        fresh.inherit(self.promises)
        self.shared.exchange(fresh)
        self.promises = fresh


def run(scenario):
    asyncio.run(scenario)


def audits_until_alarm() -> int:
    drift, n = certificates.watch(MADE), 0
    while not drift.alarmed:
        drift, n = drift.update(True), n + 1
    return n


def test_two_ingresses_feed_one_alarm_and_the_next_start_knows(tmp_path):
    async def scenario():
        one, two = Ingress(tmp_path), Ingress(tmp_path)
        enough = audits_until_alarm()
        await one.audit(enough // 2)
        await two.audit(enough - enough // 2)
        assert two.promises.state("balanced") == "retired"
        await one.shared.share()
        assert one.promises.state("balanced") == "retired" and one.promises.covering("balanced", 0.0) == "retired"
        later = Ingress(tmp_path)
        assert later.promises.covering("balanced", 0.0) == "valid"  # it has not looked yet
        await later.shared.open()
        await later.shared.close()
        assert later.promises.covering("balanced", 0.0) == "retired"
        assert later.promises.status()["balanced"]["audits"] == enough

    run(scenario())


@pytest.mark.parametrize("made, state", [(FIRST, "retired"), (OTHER, "retired"), (AGAIN, "valid")])
def test_a_reload_revives_only_what_was_calibrated_again(tmp_path, made, state):
    async def scenario():
        one = Ingress(tmp_path)
        await one.audit(audits_until_alarm())
        one.reload(made)
        assert one.promises.state("balanced") == state
        assert one.promises.state("cheap") == ("valid" if made is OTHER else "none")

    run(scenario())


def test_without_a_ledger_a_reload_in_this_process_remembers_even_what_it_saw_long_ago():
    one = promises(FIRST)
    for _ in range(audits_until_alarm()):
        one.audited("balanced", True)
    between, back = promises(AGAIN), promises(FIRST)
    between.inherit(one)
    back.inherit(between)
    assert (between.state("balanced"), back.state("balanced")) == ("valid", "retired")


def test_what_an_operator_lifts_holds_again(tmp_path):
    async def scenario():
        one = Ingress(tmp_path)
        await one.audit(audits_until_alarm())
        from deployments.ledger import certificate_audits

        one.ledger.store.transact(lambda connection: certificate_audits.lift(connection, certificates.digest(MADE)))
        await one.shared.share()
        assert one.promises.state("balanced") == "valid" and one.promises.status()["balanced"]["retired"] == ""

    run(scenario())


def test_while_the_database_is_away_nothing_is_promised_and_no_audit_is_lost(tmp_path, monkeypatch):
    from sqlalchemy.exc import OperationalError

    async def scenario():
        one = Ingress(tmp_path)
        transact = one.ledger.store.transact

        def away(action):
            raise OperationalError("SELECT", {}, Exception("no route to host"))

        monkeypatch.setattr(one.ledger.store, "transact", away)
        one.promises.unread = True
        await one.audit(3)
        assert one.promises.covering("balanced", 0.0) == "uncovered" and len(one.promises.unsaved) == 3
        monkeypatch.setattr(one.ledger.store, "transact", transact)
        await one.shared.share()
        assert one.promises.covering("balanced", 0.0) == "valid" and not one.promises.unsaved
        two = Ingress(tmp_path)
        await two.shared.share()
        assert two.promises.status()["balanced"]["audits"] == 3

    run(scenario())
