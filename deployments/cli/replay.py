"""stepdown replay: what another artefact, target or price would have made of a stored log."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from router.config import Config, Price


@click.command()
@click.argument("log", required=False)
@click.option("--config", default="pocket", show_default=True, help="The ladder, by file or name.")
@click.option("--artefact", default=None, type=click.Path(), help="Another trained router; by default the configured one.")
@click.option("--target", default=None, help="What `auto` would mean: cheap, balanced, quality, or a chance: 0.95.")
@click.option("--price", "given", multiple=True, help="TIER=USD per 1M tokens, TIER=IN:OUT, or TIER=USD/h per accelerator-hour.")
@click.option("--since", default=None, help="As for `stepdown costs`.  [default: the whole log]")
@click.option("--until", default=None, help="As for `stepdown costs`.")
@click.option("--key", default=None, help="Only this key's requests, by its id.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
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

    LOG is a ledger (its address, or an SQLite file) or what `stepdown costs --export` wrote; by default the configured
    ledger. Only requests whose prompts were kept can be decided again: set ledger.store to prompts.
    """
    import json

    from deployments.tiers import fingerprints
    from router import replay as again
    from router.config import load_config
    from router.engine import load_artefact

    old = load_config(config)
    new = again.repriced(again.retargeted(old, artefact and str(Path(artefact).resolve()), target), prices_of(given, old))
    router = again.router_for(new, load_artefact(new), old, fingerprints.of(new))
    found = again.Replay(router).run(map(again.Logged.from_row, rows(log, old, since, until, key))).report()
    click.echo(json.dumps(found) if as_json else text(found, new))


def prices_of(given: tuple[str, ...], config: Config) -> dict[str, Price]:
    """Raises BadInput."""
    from router.errors import BadInput

    found, old = {}, {tier.name: tier.price for tier in config.tiers}
    for option in given:
        tier, _, amount = option.partition("=")
        try:
            found[tier] = price_of(amount, old.get(tier, Price(usd_per_accelerator_hour=0)))
        except ValueError:
            raise BadInput(f"--price {option!r}: expected large=2.5, large=2.5:10, or large=3.9/h") from None
    return found


def price_of(amount: str, old: Price) -> Price:
    """Raises ValueError. What is not named stays as it was, save the price of cached input, which follows the input's."""
    if amount.endswith("/h"):
        return Price.model_validate(old.model_dump() | {"usd_per_accelerator_hour": float(amount[:-2])})
    given, _, made = amount.partition(":")
    listed = {"usd_per_1m_input": float(given), "usd_per_1m_output": float(made or given), "usd_per_1m_cached_input": None}
    return Price.model_validate(old.model_dump() | listed)


def rows(log: str | None, config: Config, since: str | None, until: str | None, key: str | None) -> Iterator[Mapping[str, Any]]:
    """The log's requests, whatever it is kept in. Raises BadInput."""
    from deployments.costs import ledgers
    from deployments.costs.decisions import every_request
    from deployments.costs.interval import asked_for

    when = asked_for(since or "1970-01-02", until)
    path = Path(log) if log and "://" not in log else None
    if path and not is_sqlite(path):
        yield from (row for row in lines(path) if when.since <= row["began_s"] < when.until and key in (None, row["key_id"]))
        return
    with ledgers.open_for_reading(config.ledger, f"sqlite:///{path}" if path else log) as engine:
        yield from every_request(engine, when, key)


def is_sqlite(path: Path) -> bool:
    from router.errors import BadInput

    try:
        with path.open("rb") as file:
            return file.read(15) == b"SQLite format 3"
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; give a ledger, or what `stepdown costs --export` wrote") from None


def lines(path: Path) -> Iterator[Mapping[str, Any]]:
    import json

    from router.errors import BadInput

    with path.open(encoding="utf-8") as file:
        for n, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                row["began_s"], row["key_id"]
            except (ValueError, KeyError, TypeError):
                raise BadInput(f"{path}, line {n}: no request of a log; make one with `stepdown costs --export`") from None
            yield row


def text(found: Mapping[str, Any], config: Config) -> str:
    """For people."""
    skipped = "".join(f"\n  {n:,} not: {why}" for why, n in found["skipped"].items())
    head = f"{found['replayed']:,} of {found['rows']:,} requests decided again{skipped}"
    if not found["replayed"]:
        return f"{head}\nNothing to compare. Prompts are kept only where ledger.store says so."
    quality, off = found["quality"], found["estimate"]["off"]
    asked = "".join(
        f"\n  {name:12} {of['log'] / found['replayed']:7.1%} -> {of['new'] / found['replayed']:.1%}"
        for name, of in found["tiers"].items()
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
