"""Keeps API keys in the ledger's database. A key is shown once, when it is made; only its SHA-256 is stored.

A slow hash is not needed: a key is 256 random bits, which nobody can guess.
"""

import hashlib
import json
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from deployments.ledger.database import connect, driver_message, migrate, writing
from deployments.ledger.schema import budgets, hourly, keys
from router.config import Ledger
from router.errors import BadInput
from router.limits.consent import CONSENTS
from router.limits.key_limits import RIGHTS, Key, day_of, month_of
from router.trace import UNASKED

PREFIX = "sk-stepdown-"
LONGEST_NAME = 128
SETS = ("tiers", "targets", "rights")  # fields of Key that are stored as JSON lists
MOST_A_MINUTE = 10**9  # requests or tokens; the column holds no more


@dataclass(frozen=True, slots=True)
class Stored:
    """A key and what is stored with it."""

    key: Key
    hash: str
    """SHA-256, hexadecimal"""
    created_s: float
    revoked_s: float | None


@dataclass(frozen=True, slots=True)
class Spent:
    """USD that calls cost by the ledger, and USD that is set aside for requests in flight."""

    day: float = 0.0
    month: float = 0.0
    held: float = 0.0


def hashed(key: str) -> str:
    """The hash under which an API key is stored."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def open_key_store(settings: Ledger) -> Engine:
    """The ledger's database with its tables up to date. Raises BadConfig, and BadInput where it does not answer."""
    engine = connect(settings)
    try:
        migrate(engine)
    except SQLAlchemyError as error:
        why = driver_message(error)
        raise BadInput(f"the ledger's database, which holds the keys, does not answer: {why}; see ledger.url") from None
    return engine


def create(engine: Engine, key: Key, now_s: float) -> tuple[Key, str]:
    """Store a new key under a new id. Returns it and its secret, which is shown only now. Raises BadInput."""
    check(key)
    secret = PREFIX + secrets.token_urlsafe(32)
    values = asdict(key) | {"id": f"key-{secrets.token_hex(4)}", "hash": hashed(secret), "created_s": now_s, "revoked_s": None}
    for field in SETS:
        values[field] = None if values[field] is None else json.dumps(sorted(values[field]))
    with writing(engine) as connection:
        if connection.scalar(select(keys.c.id).where(keys.c.name == key.name, keys.c.revoked_s.is_(None))):
            raise BadInput(f"there is a key named {key.name!r}; choose another name, or revoke that one first")
        connection.execute(insert(keys).values(**values))
    return key_of(values), secret


def check(key: Key) -> None:
    """Raises BadInput."""
    if not key.name.strip() or len(key.name) > LONGEST_NAME or not key.name.isprintable():
        raise BadInput(f"a key's name is 1 to {LONGEST_NAME} printable characters, found {key.name[:150]!r}")
    for value, what in ((key.requests_per_minute, "requests"), (key.tokens_per_minute, "tokens")):
        if value is not None and not 1 <= value <= MOST_A_MINUTE:
            raise BadInput(f"{what} per minute: found {value}, expected 1 to {MOST_A_MINUTE}; leave it out for no limit")
    for usd, what in ((key.usd_per_day, "day"), (key.usd_per_month, "month")):
        if usd is not None and not (math.isfinite(usd) and usd >= 0):
            raise BadInput(f"USD per {what}: found {usd}, expected 0 or more; leave it out for no limit")
    for given, what in ((key.tiers, "tiers"), (key.targets, "targets")):
        if given is not None and not given:
            raise BadInput(f"{what}: the list is empty, so the key could not ask for anything; leave it out for all")
    unknown = sorted(key.rights - set(RIGHTS))
    if unknown:
        raise BadInput(f"rights: no right {unknown[0]!r}; there are {', '.join(RIGHTS)}")
    if key.learning not in CONSENTS:
        raise BadInput(f"learning: found {key.learning!r}, expected one of {', '.join(CONSENTS)}")


def key_of(values: Mapping[str, Any]) -> Key:
    """The key in a row of the table."""
    sets = {name: values[name] and frozenset(json.loads(values[name])) for name in SETS}
    return Key(**{name: values[name] for name in Key.__slots__} | sets)


def read_keys(engine: Engine) -> list[Stored]:
    """All keys, revoked ones included, the oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(select(keys).order_by(keys.c.created_s, keys.c.id)).all()
    return [Stored(key_of(row._asdict()), row.hash, row.created_s, row.revoked_s) for row in rows]


def find(engine: Engine, wanted: str) -> Stored:
    """Find a key by id or name; of several with the same name the one that is not revoked. Raises BadInput."""
    found = [k for k in read_keys(engine) if wanted in (k.key.id, k.key.name)]
    if not found:
        raise BadInput(f"no key has the id or name {wanted!r}; `stepdown keys list` shows them all")
    return next((k for k in found if k.key.id == wanted), None) or min(found, key=lambda k: k.revoked_s is not None)


def revoke(engine: Engine, wanted: str, now_s: float) -> Stored:
    """Make a key unknown from now on. Its row stays, so that reports keep its name. Raises BadInput."""
    found = find(engine, wanted)
    if found.revoked_s is not None:
        raise BadInput(f"key {found.key.id} ({found.key.name}) is revoked already")
    with writing(engine) as connection:
        connection.execute(update(keys).where(keys.c.id == found.key.id).values(revoked_s=now_s))
    return found


def usable(found: Iterable[Stored]) -> list[Stored]:
    return [k for k in found if k.revoked_s is None]


def spent(engine: Engine, now_s: float) -> dict[str, Spent]:
    """key id -> what it has spent this day and month, as its budgets count it: without calls that no key asked for."""
    day, month = day_of(now_s), month_of(now_s)
    of_month = func.sum(hourly.c.cost_usd)
    of_day = func.sum(hourly.c.cost_usd).filter(hourly.c.hour >= int(day.began_s))
    asked = (hourly.c.hour >= int(month.began_s)) & (hourly.c.role.not_in(UNASKED))
    sums = select(hourly.c.key_id, of_day, of_month).where(asked).group_by(hourly.c.key_id)
    current = select(budgets).where(budgets.c.period.in_([day.name, month.name]))
    with engine.connect() as connection:
        found = {row[0]: Spent(row[1] or 0.0, row[2] or 0.0) for row in connection.execute(sums)}
        rows = connection.execute(current).all()
    for row in rows:
        paid = found.get(row.key_id, Spent())
        is_day = row.period == day.name  # a budget may know of calls whose rows are still in the spool
        found[row.key_id] = Spent(
            max(paid.day, row.spent_usd) if is_day else paid.day,
            paid.month if is_day else max(paid.month, row.spent_usd),
            max(paid.held, row.reserved_usd),
        )
    return found
