"""The keys in the ledger's database. A key is shown once, when it is made; kept is its SHA-256.

No slow hash is needed: a key of ours is 256 random bits, which nobody guesses.
"""

import hashlib
import json
import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Engine, Row, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.schema import budgets, hourly, keys
from router.config import Ledger
from router.errors import BadInput
from router.limits.key_limits import RIGHTS, Key, day_of, month_of

PREFIX = "sk-stepdown-"
LONGEST_NAME = 128
SETS = ("tiers", "targets", "rights")  # kept as lists in JSON
MOST = 10**9  # requests or tokens a minute; the column holds no more


@dataclass(frozen=True, slots=True)
class Stored:
    """A key as it is kept."""

    key: Key
    hash: str
    """SHA-256, hexadecimal"""
    created_s: float
    revoked_s: float | None


@dataclass(frozen=True, slots=True)
class Spent:
    """USD: what the ledger knows of calls, and what is set aside for requests in flight."""

    day: float = 0.0
    month: float = 0.0
    held: float = 0.0


def hashed(key: str) -> str:
    """What is kept of an API key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def opened(settings: Ledger) -> Engine:
    """The ledger's database, its tables there. Raises BadConfig, BadInput where it does not answer."""
    engine = connect(settings)
    try:
        migrate(engine)
    except SQLAlchemyError as error:
        why = str(error).partition("\n")[0]
        raise BadInput(f"the ledger's database, where keys are kept, does not answer: {why}; see ledger.url") from None
    return engine


def create(engine: Engine, key: Key, now_s: float) -> tuple[Key, str]:
    """Keep a new key; its id is made here. Returns it and what its holder sends, which is told this once. Raises BadInput."""
    check(key)
    secret = PREFIX + secrets.token_urlsafe(32)
    values = asdict(key) | {"id": f"key-{secrets.token_hex(4)}", "hash": hashed(secret), "created_s": now_s, "revoked_s": None}
    for field in SETS:
        values[field] = None if values[field] is None else json.dumps(sorted(values[field]))
    with writing(engine) as connection:
        named = (keys.c.name == key.name) & keys.c.revoked_s.is_(None)
        if connection.scalar(select(keys.c.id).where(named)):
            raise BadInput(f"there is a key named {key.name!r}; choose another name, or revoke that one first")
        connection.execute(insert(keys).values(**values))
    return of_row(values), secret


def check(key: Key) -> None:
    """Raises BadInput."""
    if not key.name.strip() or len(key.name) > LONGEST_NAME or not key.name.isprintable():
        raise BadInput(f"a key's name is 1 to {LONGEST_NAME} printable characters, found {key.name[:150]!r}")
    for value, what in ((key.requests_per_minute, "requests"), (key.tokens_per_minute, "tokens")):
        if value is not None and not 1 <= value <= MOST:
            raise BadInput(f"{what} per minute: found {value}, expected 1 to {MOST}; leave it out for no limit")
    for usd, what in ((key.usd_per_day, "day"), (key.usd_per_month, "month")):
        if usd is not None and not (math.isfinite(usd) and usd >= 0):
            raise BadInput(f"USD per {what}: found {usd}, expected 0 or more; leave it out for no limit")
    for given, what in ((key.tiers, "tiers"), (key.targets, "targets")):
        if given is not None and not given:
            raise BadInput(f"{what}: the list is empty, so the key could ask for nothing; leave it out for all")
    unknown = sorted(key.rights - set(RIGHTS))
    if unknown:
        raise BadInput(f"rights: no right {unknown[0]!r}; there are {', '.join(RIGHTS)}")


def of_row(values: dict) -> Key:
    """A row of the table as a key."""
    sets = {name: values[name] and frozenset(json.loads(values[name])) for name in SETS}
    return Key(**{name: values[name] for name in Key.__slots__} | sets)


def read(engine: Engine) -> list[Stored]:
    """All keys, revoked ones too, the oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(select(keys).order_by(keys.c.created_s, keys.c.id)).all()
    return [stored(row) for row in rows]


def stored(row: Row) -> Stored:
    return Stored(of_row(row._asdict()), row.hash, row.created_s, row.revoked_s)


def find(engine: Engine, wanted: str) -> Stored:
    """By id, or by name; of several with one name the one that is not revoked. Raises BadInput."""
    found = [k for k in read(engine) if wanted in (k.key.id, k.key.name)]
    if not found:
        raise BadInput(f"no key has the id or name {wanted!r}; `stepdown keys list` shows them all")
    return next((k for k in found if k.key.id == wanted), None) or min(found, key=lambda k: k.revoked_s is not None)


def revoke(engine: Engine, wanted: str, now_s: float) -> Stored:
    """From now on it is unknown. The row stays, so that reports keep its name. Raises BadInput."""
    found = find(engine, wanted)
    if found.revoked_s is not None:
        raise BadInput(f"key {found.key.id} ({found.key.name}) is revoked already")
    with writing(engine) as connection:
        connection.execute(update(keys).where(keys.c.id == found.key.id).values(revoked_s=now_s))
    return found


def usable(found: Iterable[Stored]) -> list[Stored]:
    return [k for k in found if k.revoked_s is None]


def spent(engine: Engine, now_s: float) -> dict[str, Spent]:
    """By key id, for the day and the month of now."""
    day, month = day_of(now_s), month_of(now_s)
    of_month = func.sum(hourly.c.cost_usd)
    of_day = func.sum(hourly.c.cost_usd).filter(hourly.c.hour >= int(day.began_s))
    sums = select(hourly.c.key_id, of_day, of_month).where(hourly.c.hour >= int(month.began_s)).group_by(hourly.c.key_id)
    holds = select(budgets.c.key_id, func.max(budgets.c.reserved_usd)).where(budgets.c.period.in_([day.name, month.name]))
    with engine.connect() as connection:
        paid: Sequence[Row] = connection.execute(sums).all()
        held = {row[0]: row[1] for row in connection.execute(holds.group_by(budgets.c.key_id))}
    found = {row[0]: Spent(row[1] or 0.0, row[2] or 0.0, held.pop(row[0], 0.0)) for row in paid}
    return found | {key_id: Spent(held=usd) for key_id, usd in held.items()}
