"""stepdown costs: the figures of the cost page in a terminal."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from classifiers.files import replaced
from deployments.cli.shared import AS_JSON, LADDER, PATH, aligned, show
from deployments.costs import ledgers
from deployments.costs.decisions import every_request
from deployments.costs.interval import asked_for, utc_text
from router.config import load_config


@click.command()
@LADDER
@click.option("--ledger", default=None, help="Another ledger: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.")
@click.option("--by", default=None, type=click.Choice(["tier", "key", "day"]), help="Only this table; up to 48 h, day is hourly.")
@click.option(
    "--since", default=None, help="Start of the period: 7d, 24h, 2w, 2026-11-24, 2026-11-24T13:00 (UTC).  [default: 7d]"
)
@click.option("--until", default=None, help="End of the period, in the same forms; a date includes that day.  [default: now]")
@click.option("--key", default=None, help="Only requests of the key with this id.")
@click.option("--tier", default=None, help="Only requests that this tier answered, and calls to it.")
@click.option("--export", default=None, type=PATH, help="Write the requests with their calls to this file, as JSONL.")
@AS_JSON
def costs(
    config: str,
    ledger: str | None,
    by: str | None,
    since: str | None,
    until: str | None,
    key: str | None,
    tier: str | None,
    export: Path | None,
    as_json: bool,
) -> None:
    """Show what requests cost, by token price and in accelerator time, and what the largest tier alone would have cost.

    The ledger is the one that --config names. The JSON is that of GET /costs.json.
    """
    from deployments.costs.report import BY, report

    settings, when = load_config(config), asked_for(since, until)
    with ledgers.open_for_reading(settings.ledger, ledger) as engine:
        if export:
            click.echo(f"{written(export, every_request(engine, when, key))} requests written to {export}")
            return
        found = report(engine, settings, *when.asked, key, tier, (by,) if by else BY)
    show(found, text(found, by), as_json)


def written(path: Path, rows: Iterable[Any]) -> int:
    """Write JSONL; an existing file is replaced once the new one is complete. Returns how many rows."""
    with replaced(path) as fresh, fresh.open("w", encoding="utf-8") as file:
        return sum(1 for row in rows if file.write(json.dumps(row) + "\n"))


def unasked(totals: dict[str, Any]) -> str:
    """Which part of the cost no client asked for; empty: none."""
    parts = [(totals["audits"], "audit_usd", "for audits"), (totals["learning_calls"], "learning_usd", "to learn from")]
    found = [f"{usd(totals[name])} USD {what}" for n, name, what in parts if n]
    return f", of which {', '.join(found)}" if found else ""


def usd(amount: float) -> str:
    return f"{amount:,.2f}" if abs(amount) >= 1 else f"{amount:.6f}".rstrip("0").rstrip(".")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def text(found: dict[str, Any], by: str | None) -> str:
    return "\n".join([*summary(found), *(line for name in found["by"] if by in (None, name) for line in table(found, name))])


def summary(found: dict[str, Any]) -> list[str]:
    """The whole report in a few lines."""
    totals, gpu, top = found["totals"], found["gpu"], found["tiers"][-1]
    error = found["covers"]["error"]
    off = "its error is not measured yet"
    if error["mean_absolute"] is not None:
        off = (
            f"off by {error['mean_absolute']:.0%} a request ({error['mean_signed']:+.0%} with its sign), "
            f"{error['bias']:+.0%} in sum, measured on {error['requests']:,}"
        )
    chosen = "".join(f", {name} {found[name]}" for name in ("key", "tier") if found[name])
    return [
        f"{found['since_utc']} to {found['until_utc']}{chosen}",
        f"requests        {totals['requests']:,} ({totals['failed']:,} failed), {totals['escalations']:,} escalations, "
        f"{totals['delegations']:,} delegated, {totals['audits']:,} audits",
        f"tokens          {totals['input_tokens']:,} in ({totals['cached_tokens']:,} cached), {totals['output_tokens']:,} out",
        f"token price     {usd(totals['cost_usd'])} USD" + unasked(totals),
        f"always {top:8} {usd(totals['counterfactual_usd'])} USD, for {percent(found['covers']['of_cost'])} of the cost; {off}",
        f"saved           {usd(totals['saving_usd'])} USD, {percent(totals['saving_share'])}",
        f"accelerators    {gpu['held_s']:,.0f} s held, {percent(gpu['busy_share'])} busy; "
        f"{usd(gpu['held_usd'])} USD: busy {usd(gpu['busy_usd'])}, idle {usd(gpu['idle_usd'])}, "
        f"nobody's {usd(gpu['nobody_usd'])}"
        + (f", less {usd(-gpu['over_usd'])} measured beyond what was held" if gpu["over_usd"] < 0 else ""),
        found["note"],
    ]


def cells(row: dict[str, Any], name: str) -> list[str]:
    first = utc_text(row[name])[:16].replace("T", " ") if name == "day" else row.get("name") or row[name] or "-"
    counts = [f"{row['requests']:,}", f"{row['tokens']:,}"]
    money = [usd(row["cost_usd"]), percent(row["shares"]["cost"]), usd(row["saving_usd"])]
    return [first, *counts, *money, f"{row['busy_s']:,.1f}", f"{row['idle_s']:,.1f}"]


def table(found: dict[str, Any], name: str) -> list[str]:
    """One line for each tier, key or day."""
    heads = [name if found["step_s"] == 86400 or name != "day" else "hour"]
    heads += ["requests", "tokens", "USD", "of cost", "saved USD", "busy s", "idle s"]
    return ["", *aligned([heads, *(cells(row, name) for row in found["by"][name])], right=True)]
