"""Counts of audits that several processes share: none is lost, the alarm goes off once, and a restart goes on from there."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import Engine

from deployments.ledger import certificate_audits
from deployments.ledger.database import connect, migrate, writing
from router import config
from router.decide import certificates
from router.decide.certificates import Certificate
from router.decide.drift import Audited

pytestmark = pytest.mark.slow

MADE = Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, "balanced", comparable=0.6, harmless=0.02)
DIGEST = certificates.digest(MADE)


@pytest.fixture
def engine(url: str):
    made = connect(config.Ledger(url=url))
    migrate(made)
    yield made
    made.dispose()


def audit(engine: Engine, differs: bool, digest: str = DIGEST) -> Audited:
    with writing(engine) as connection:
        following = partial(certificates.count, MADE, differs=differs)
        return certificate_audits.add(connection, digest, "balanced", following)


def read(engine: Engine, *digests: str) -> dict[str, Audited]:
    with engine.connect() as connection:
        return certificate_audits.read(connection, digests)


def test_every_audit_of_every_process_counts_once(engine, url):
    others = [connect(config.Ledger(url=url)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: audit(others[i % 4], i % 20 == 0), range(40)))
    found = read(engine, DIGEST)[DIGEST]
    assert (found.audits, found.errors, found.retired) == (40, 2, "")
    for other in others:
        other.dispose()


def test_the_alarm_is_one_for_all_and_stays(engine, url):
    drift, alone = certificates.watch(MADE), 0
    while not drift.alarmed:
        drift, alone = drift.update(True), alone + 1
    other = connect(config.Ledger(url=url))
    for i in range(alone - 1):
        assert not audit((engine, other)[i % 2], True).retired
    assert "audited answers differed" in audit(other, True).retired
    retired = read(engine, DIGEST)[DIGEST]
    audit(engine, False)
    assert read(engine, DIGEST)[DIGEST] == retired and retired.audits == alone
    other.dispose()


def test_other_certificates_are_not_touched_and_a_lifted_one_begins_anew(engine):
    for _ in range(60):
        audit(engine, True)
    audit(engine, False, "another")
    found = read(engine, DIGEST, "another", "unknown")
    assert found[DIGEST].retired and found["another"] == Audited(1, 0) and found["unknown"] == Audited()
    with writing(engine) as connection:
        assert {row["digest"] for row in certificate_audits.listed(connection)} == {DIGEST, "another"}
        assert certificate_audits.lift(connection, DIGEST) and not certificate_audits.lift(connection, DIGEST)
    assert read(engine, DIGEST)[DIGEST] == Audited()


def test_when_it_was_retired_stays_known_though_audits_still_come(engine):
    while not audit(engine, True).retired:
        pass
    with engine.connect() as connection:
        before = certificate_audits.listed(connection)[0]["changed_s"]
    audit(engine, True)
    with engine.connect() as connection:
        assert certificate_audits.listed(connection)[0]["changed_s"] == before
