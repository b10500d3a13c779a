"""Which learned artefact every ingress decides by: three slots in the database, each changed in one transaction."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from sqlalchemy import Connection, delete, select

from deployments.ledger.database import INSERT
from deployments.ledger.schema import bundles

Slot = Literal["promoted", "canary", "previous"]
"""promoted: decides for everybody. canary: for a share of the conversations. previous: what `promoted` replaced, kept ready"""
REPLACED = tuple(column.name for column in bundles.columns if not column.primary_key)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is in one slot."""

    slot: Slot
    digest: str
    """of the stored artefact; empty: the configured one, or none"""
    run_id: str = ""
    share: float = 1.0
    """of the conversations, in (0, 1]"""
    since_s: float = 0.0
    over: str = ""
    """digest of the artefact that the configuration named then; empty: none. Once it names another, the slot counts no more"""
    by: str = ""


def read(connection: Connection) -> dict[str, Bundle]:
    """By slot; only those that are filled."""
    return {row["slot"]: Bundle(**row) for row in connection.execute(select(bundles)).mappings()}


def put(connection: Connection, bundle: Bundle) -> None:
    """Fill a slot, whatever was in it."""
    statement = INSERT[connection.dialect.name](bundles).values(asdict(bundle))
    changed = {name: statement.excluded[name] for name in REPLACED}
    connection.execute(statement.on_conflict_do_update(index_elements=["slot"], set_=changed))


def clear(connection: Connection, slot: Slot) -> None:
    connection.execute(delete(bundles).where(bundles.c.slot == slot))


def locked(connection: Connection) -> dict[str, Bundle]:
    """As `read`; no other transaction changes these rows before this one ends."""
    return {row["slot"]: Bundle(**row) for row in connection.execute(select(bundles).with_for_update()).mappings()}


def promote(connection: Connection, digest: str, run_id: str, over: str, by: str, now_s: float) -> None:
    """Let this artefact decide for everybody; what did so becomes `previous`, the canary ends.

    Asked again of the same run, which goes on after a crash, it changes nothing.
    """
    found = locked(connection)
    clear(connection, "canary")
    old = found.get("promoted")
    if old is None or old.over != over:  # none was promoted, or not over the artefact that is configured now
        old = Bundle("promoted", "", over=over, by=by)
    elif (old.digest, old.run_id) == (digest, run_id):
        return
    put(connection, replace(old, slot="previous", since_s=now_s))
    put(connection, Bundle("promoted", digest, run_id, 1.0, now_s, over, by))


def rollback(connection: Connection, by: str, now_s: float) -> Bundle | None:
    """Let `previous` decide again; the canary ends. Returns what decides now; None: nothing was promoted over another.

    A second rollback finds no `previous` and changes nothing.
    """
    found = locked(connection)
    clear(connection, "canary")
    promoted, previous = found.get("promoted"), found.get("previous")
    if promoted is None or previous is None:
        return None
    back = replace(previous, slot="promoted", share=1.0, since_s=now_s, over=promoted.over, by=by)
    put(connection, back)
    clear(connection, "previous")
    return back
