"""stepdown replay: decide a stored log again with another artefact, target or price."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from deployments.cli.shared import AS_JSON, LADDER, show
from deployments.costs import ledgers
from deployments.costs.decisions import every_request
from deployments.costs.interval import asked_for
from deployments.tiers.fingerprints import ladder_fingerprints
from router.config import Config, Price, load_config
from router.errors import BadInput
from router.learn.tables import each_row


@click.command()
@click.argument("log", required=False)
@LADDER
@click.option("--artefact", default=None, type=click.Path(), help="Another trained router.  [default: the configured one]")
@click.option("--target", default=None, help="What `auto` would mean: cheap, balanced, quality, or a chance: 0.95.")
@click.option("--price", "given", multiple=True, help="TIER=USD per 1M tokens, TIER=IN:OUT, or TIER=USD/h per accelerator-hour.")
@click.option("--since", default=None, help="As for `stepdown costs`.  [default: the whole log]")
@click.option("--until", default=None, help="As for `stepdown costs`.  [default: now]")
@click.option("--key", default=None, help="Only requests of the key with this id.")
@AS_JSON
def replay(
    log: str | None,
    config: str,
    artefact: str | None,
    target: str | None,
    given: tuple[str, ...],
    since: str | None,
    until: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Decide every request of LOG again and report the change in cost, tier shares and estimated quality.

    LOG is a ledger (its address, or an SQLite file) or a file that `stepdown costs --export` wrote; by default it is the
    configured ledger. Only requests whose prompts were kept can be decided again: set ledger.store to prompts.
    """
    from router import replay as again  # loads scikit-learn, as does the next
    from router.engine import load_artefact

    old = load_config(config)
    new = again.repriced(again.retargeted(old, artefact and str(Path(artefact).resolve()), target), prices_of(given, old))
    router = again.router_for(new, load_artefact(new), old, ladder_fingerprints(new))
    found = again.Replay(router).run(map(again.Logged.from_row, rows(log, old, since, until, key))).report()
    show(found, text(found, new), as_json)


def prices_of(given: tuple[str, ...], config: Config) -> dict[str, Price]:
    """New prices by tier, from `--price`. Raises BadInput."""
    found, old = {}, {tier.name: tier.price for tier in config.tiers}
    for option in given:
        tier, _, amount = option.partition("=")
        try:
            found[tier] = price_of(amount, old.get(tier, Price(usd_per_accelerator_hour=0)))
        except ValueError:
            raise BadInput(f"--price {option!r}: expected large=2.5, large=2.5:10, or large=3.9/h") from None
    return found


def price_of(amount: str, old: Price) -> Price:
    """The old price with the given part replaced; cached input then costs the same as input. Raises ValueError."""
    if amount.endswith("/h"):
        return Price.model_validate(old.model_dump() | {"usd_per_accelerator_hour": float(amount[:-2])})
    given, _, made = amount.partition(":")
    listed = {"usd_per_1m_input": float(given), "usd_per_1m_output": float(made or given), "usd_per_1m_cached_input": None}
    return Price.model_validate(old.model_dump() | listed)


def rows(log: str | None, config: Config, since: str | None, until: str | None, key: str | None) -> Iterator[Mapping[str, Any]]:
    """The log's requests, from a ledger or an exported file. Raises BadInput."""
    when = asked_for(since or "1970-01-02", until)
    path = Path(log) if log and "://" not in log else None
    if path and not is_sqlite(path):
        for row in lines(path):
            if when.since <= row["began_s"] < when.until and key in (None, row["key_id"]):
                yield row
        return
    with ledgers.open_for_reading(config.ledger, f"sqlite:///{path}" if path else log) as engine:
        yield from every_request(engine, when, key)


def is_sqlite(path: Path) -> bool:
    """False also for what cannot be read, which `each_row` explains."""
    try:
        with path.open("rb") as file:
            return file.read(15) == b"SQLite format 3"
    except OSError:
        return False


def lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The requests in an exported file, checked. Raises BadInput with the line."""
    n = 0
    try:
        for n, row in each_row(path):
            check_line(row, f"{path}: line {n}")
            yield row
        if not n:
            raise BadInput(f"{path}: no requests")
    except BadInput as error:
        raise BadInput(f"{error}; expected a ledger, or a file that `stepdown costs --export` wrote") from None


def check_line(row: Mapping[str, Any], where: str) -> None:
    from router.replay import logged_row

    missing = [name for name in ("began_s", "key_id") if name not in row]
    if missing:
        raise BadInput(f"{where}: not a request of a log: {missing[0]} is missing")
    try:
        logged_row(row)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def text(found: Mapping[str, Any], config: Config) -> str:
    """For people."""
    skipped = "".join(f"\n  {n:,} not: {why}" for why, n in found["skipped"].items())
    head = f"{found['replayed']:,} of {found['rows']:,} requests decided again{skipped}"
    if not found["replayed"]:
        return f"{head}\nNothing to compare. Prompts are kept only where ledger.store says so."
    quality, off = found["quality"], found["estimate"]["off"]
    asked = "".join(
        f"\n  {name:12} {counts['log'] / found['replayed']:7.1%} -> {counts['new'] / found['replayed']:.1%}"
        for name, counts in found["tiers"].items()
    )
    judged = "not known: no request was routed"
    if quality["rows"]:
        judged = f"{quality['log']:.4f} -> {quality['new']:.4f} by this artefact (the log said {quality['then']:.4f})"
    return "\n".join(
        [
            head,
            f"paid            {found['paid_usd']:.6g} USD",
            f"at these prices {found['log_usd']:.6g} USD",
            f"expected        {found['new_usd']:.6g} USD, {found['change_share'] or 0:+.1%}",
            f"the estimate is off by {off or 0:+.1%} on the log itself, and is scaled by that",
            f"quality         {judged}",
            f"asked first, auto:{config.routing.target}{asked}",
            f"moved up {found['moved']['up']:,}, down {found['moved']['down']:,}",
        ]
    )
