"""What audits have found of certificates, in the ledger's database: one alarm for all ingresses, which survives a restart.

Each audit is a transaction of its own, which locks the certificate's row, so that no audit is lost and the alarm sees every
count. Audits are rare: a share of the accepted answers, made one at a time and while the largest tier is idle.
"""

import time
from collections.abc import Callable, Iterable

from sqlalchemy import Connection, delete, select, update

from deployments.ledger.database import INSERT
from deployments.ledger.rows import Row
from deployments.ledger.schema import certificates
from router.decide.drift import Audited

COUNTS = (certificates.c.audits, certificates.c.errors, certificates.c.retired)


def add(connection: Connection, digest: str, rule: str, following: Callable[[Audited], Audited]) -> Audited:
    """Count one audit. Returns what is found now. following: what was found -> what is found with this audit."""
    empty = {"digest": digest, "rule": rule[:128], "audits": 0, "errors": 0, "retired": "", "changed_s": time.time()}
    connection.execute(INSERT[connection.dialect.name](certificates).values(empty).on_conflict_do_nothing())
    row = connection.execute(select(*COUNTS).where(certificates.c.digest == digest).with_for_update()).one()
    found = following(before := Audited(*row))
    if found == before:  # of a retired certificate `changed_s` stays when that was: the flywheel learns from requests since then
        return found
    values = {"audits": found.audits, "errors": found.errors, "retired": found.retired, "changed_s": time.time()}
    connection.execute(update(certificates).where(certificates.c.digest == digest).values(values))
    return found


def read(connection: Connection, digests: Iterable[str]) -> dict[str, Audited]:
    """What was found of each of these certificates; nothing of those that are not there."""
    wanted = list(digests)
    rows = connection.execute(select(certificates.c.digest, *COUNTS).where(certificates.c.digest.in_(wanted)))
    return dict.fromkeys(wanted, Audited()) | {digest: Audited(*rest) for digest, *rest in rows}


def listed(connection: Connection) -> list[Row]:
    """All rows, the last changed first."""
    return [dict(row) for row in connection.execute(select(certificates).order_by(certificates.c.changed_s.desc())).mappings()]


def lift(connection: Connection, digest: str) -> bool:
    """Forget what was found of a certificate, so that it is no longer retired. False: nothing was known of it."""
    return connection.execute(delete(certificates).where(certificates.c.digest == digest)).rowcount > 0
