"""stepdown keys: make, list, show and revoke keys. Works whether or not the server is running."""

import time
from datetime import UTC, datetime

import click

from deployments.cli.shared import aligned
from deployments.keys import key_store
from deployments.keys.key_store import Spent, Stored, open_key_store
from router.config import Config, load_config
from router.decide.targets import TARGETS, as_chance
from router.errors import BadInput
from router.limits.consent import CONSENTS, Consent
from router.limits.key_limits import RIGHTS, Key

CONFIG = click.option("--config", default="pocket", show_default=True, help="The configuration whose ledger keeps the keys.")


def names(text: str) -> frozenset[str]:
    """`a,b` as a set."""
    return frozenset(part.strip() for part in text.split(",") if part.strip())


@click.group()
def keys() -> None:
    """Make, list, show and revoke the keys of clients."""


@keys.command()
@click.argument("name")
@click.option("--tiers", type=names, metavar="A,B", help="Tiers and services that may answer its requests.  [default: all]")
@click.option("--targets", type=names, metavar="A,B", help="Targets that it may use, such as cheap,0.97.  [default: all]")
@click.option("--rpm", type=int, help="Limit of requests a minute.")
@click.option("--tpm", type=int, help="Limit of tokens a minute, prompt and answer together.")
@click.option("--usd-day", type=float, help="Budget of a day (UTC) in USD.")
@click.option("--usd-month", type=float, help="Budget of a month (UTC) in USD.")
@click.option("--rights", type=names, metavar="A,B", default="", help=f"Further rights: {', '.join(RIGHTS)}.")
@click.option(
    "--learning",
    type=click.Choice(CONSENTS),
    default="never",
    show_default=True,
    help="Which of its requests may be kept to learn from, if learning.collect allows any: none; those with `store: true`; all.",
)
@CONFIG
def create(
    name: str,
    tiers: frozenset[str] | None,
    targets: frozenset[str] | None,
    rpm: int | None,
    tpm: int | None,
    usd_day: float | None,
    usd_month: float | None,
    rights: frozenset[str],
    learning: Consent,
    config: str,
) -> None:
    """Make a key for NAME and print it. It cannot be shown again."""
    loaded = load_config(config)
    check_names(loaded, tiers, targets)
    wanted = Key("", name, tiers, targets, rpm, tpm, usd_day, usd_month, rights, learning)
    made, secret = key_store.create(open_key_store(loaded.ledger), wanted, time.time())
    click.echo(f"key {made.id} for {made.name}; only its hash is kept, so note it now:", err=True)
    click.echo(secret)


@keys.command("list")
@CONFIG
def list_(config: str) -> None:
    """List all keys with their limits and what they have spent."""
    engine = open_key_store(load_config(config).ledger)
    found, spent = key_store.read_keys(engine), key_store.spent(engine, time.time())
    if not found:
        click.echo("no keys yet; make one: stepdown keys create NAME")
        return
    head = (
        "ID",
        "NAME",
        "TIERS",
        "TARGETS",
        "RPM",
        "TPM",
        "USD/DAY",
        "TODAY",
        "USD/MONTH",
        "MONTH",
        "LEARNING",
        "CREATED",
        "REVOKED",
    )
    for line in aligned([head, *(cells(k, spent.get(k.key.id, Spent())) for k in found)]):
        click.echo(line.rstrip())


@keys.command()
@click.argument("key")
@CONFIG
def show(key: str, config: str) -> None:
    """Show one KEY, by id or name."""
    engine = open_key_store(load_config(config).ledger)
    found = key_store.find(engine, key)
    spent = key_store.spent(engine, time.time()).get(found.key.id, Spent())
    for label, value in described(found, spent).items():
        click.echo(f"{label:<20}{value}")


@keys.command()
@click.argument("key")
@CONFIG
def revoke(key: str, config: str) -> None:
    """Refuse a KEY (id or name) from now on; running servers see it within 5 seconds."""
    found = key_store.revoke(open_key_store(load_config(config).ledger), key, time.time())
    click.echo(f"revoked {found.key.id} ({found.key.name}); running servers refuse it within 5 s")


def check_names(config: Config, tiers: frozenset[str] | None, targets: frozenset[str] | None) -> None:
    """Raises BadInput for a tier or target that the configuration does not have."""
    unknown = sorted((tiers or frozenset()) - set(config.served_names))
    if unknown:
        raise BadInput(
            f"--tiers: no tier or service {unknown[0]!r}; this configuration has {', '.join(config.served_names)} (see --config)"
        )
    unknown = sorted(t for t in targets or () if t not in TARGETS and as_chance(t) is None)
    if unknown:
        raise BadInput(f"--targets: no target {unknown[0]!r}; use {', '.join(TARGETS)}, or a chance from 0 to 1")


# -- printing --------------------------------------------------------------------------------------------------------------


def described(found: Stored, spent: Spent) -> dict[str, str]:
    key = found.key
    return {
        "id": key.id,
        "name": key.name,
        "tiers": joined(key.tiers),
        "targets": joined(key.targets),
        "requests a minute": limit(key.requests_per_minute),
        "tokens a minute": limit(key.tokens_per_minute),
        "USD a day": limit(key.usd_per_day),
        "  spent today": usd(spent.day),
        "USD a month": limit(key.usd_per_month),
        "  spent this month": usd(spent.month),
        "USD set aside now": usd(spent.held),
        "rights": joined(key.rights) if key.rights else "none",
        "learning": key.learning,
        "created": at(found.created_s),
        "revoked": at(found.revoked_s),
    }


def cells(found: Stored, spent: Spent) -> tuple[str, ...]:
    """A line of the list: as `described`, without what only `show` prints."""
    values = described(found, spent)
    return tuple(value for label, value in values.items() if label not in ("rights", "USD set aside now"))


def joined(names: frozenset[str] | None) -> str:
    return "all" if names is None else ",".join(sorted(names))


def limit(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def usd(value: float) -> str:
    return f"{value:.4g}"


def at(unix_s: float | None) -> str:
    return "-" if unix_s is None else f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%MZ}"
