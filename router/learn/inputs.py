"""Shared by the learning commands: reads tables and artefacts, parses prices, and checks options before any work."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from classifiers import CLASSIFIERS, DEFAULT, Artifact, BadArtifact, Rule, load
from classifiers.artifact import MANIFEST, manifest_text, read_manifest
from classifiers.files import atomic_write
from classifiers.replies.signals import PREFIX, Seen
from router.errors import BadInput
from router.learn.evidence import read_seen
from router.learn.outcomes import Outcomes, join, parse_tiers, read_outcomes
from router.learn.tables import did_you_mean

T = TypeVar("T")


def known_classifier(name: str | None) -> str:
    """The name itself, or the default for None. Raises BadInput."""
    if name is None:
        return DEFAULT
    if name not in CLASSIFIERS:
        hint = did_you_mean(name, CLASSIFIERS) or "no such classifier;"
        raise BadInput(f"--classifier {name!r}: {hint} known: {', '.join(CLASSIFIERS)}")
    return name


def _by_tier(option: str, text: str, read: Callable[[str], T], form: str) -> dict[str, T]:
    """`small=…,large=…` -> tier: value, parsed by `read`."""
    try:
        return {k.strip(): read(v) for k, _, v in (part.partition("=") for part in text.split(","))}
    except ValueError:
        raise BadInput(f"{option} {text!r}: expected {form}") from None


def _usd(text: str) -> float:
    """A finite amount of at least 0. Raises ValueError."""
    amount = float(text)
    if not (math.isfinite(amount) and amount >= 0):
        raise ValueError(text)
    return amount


def parse_costs(text: str | None) -> dict[str, float]:
    """`small=0.001,large=0.02` -> tier: USD for a request."""
    form = "TIER=USD,TIER=USD, for example small=0.001,large=0.02"
    return _by_tier("--costs", text, _usd, form) if text else {}


def read_all(paths: Sequence[Path], tiers: str, costs: Mapping[str, float] | None = None) -> Outcomes:
    """All files as one table."""
    names = parse_tiers(tiers)
    check_costs(costs or {}, list(names))
    return join([read_outcomes(path, names, costs) for path in paths])


def check_costs(costs: Mapping[str, float], tiers: Sequence[str]) -> None:
    """Refuse a cost of an unknown tier: with a mistyped name the file's own costs would count, unnoticed."""
    for name in costs:
        if name not in tiers:
            raise BadInput(f"--costs: no tier {name!r}; {did_you_mean(name, tiers) or 'tiers: ' + ', '.join(tiers)}")


def check_order(what: str, usd: Mapping[str, float]) -> None:
    """Refuse tiers that are not listed cheapest first: the last one is what the others are measured against. Raises BadInput."""
    for (small, less), (large, more) in pairwise(usd.items()):
        if less > more:
            order = ",".join(sorted(usd, key=lambda name: usd[name]))
            raise BadInput(
                f"--tiers: expected cheapest first, but by their {what} {small!r} ({less:.4g} USD) costs more than "
                f"{large!r} ({more:.4g} USD); the order is {order}"
            )


def check_costs_rise(table: Outcomes) -> None:
    """`check_order` by the mean cost of the rows that all tiers answered, else of each tier's rows."""
    whole = table.costs[~np.isnan(table.costs).any(axis=1)]
    mean = np.nanmean(whole if len(whole) else table.costs, axis=0)
    check_order("mean costs", dict(zip(table.tiers, mean.tolist(), strict=True)))


def training_rows(table: Outcomes) -> Outcomes:
    """The rows that are not marked as test."""
    rows = table.take(table.splits != "test")
    if not len(rows):
        raise BadInput("every row is marked split=test; nothing is left to train on")
    return rows


def _price(text: str) -> tuple[float, float]:
    """`0.1` or `0.1:0.3`: USD per million input and output tokens."""
    first, _, second = text.partition(":")
    return _usd(first), _usd(second or first)


def parse_prices(text: str) -> dict[str, tuple[float, float]]:
    """`small=0.1,large=0.5:1.5` -> tier: USD per million (input, output) tokens."""
    return _by_tier("--prices", text, _price, "TIER=USD or TIER=USD:USD, for example small=0.1,large=3:9")


def ladder_of(tiers: str | None, config: Path | None, prices: str | None) -> tuple[list[str], dict[str, tuple[float, float]]]:
    """Tier names, cheapest first, and their USD per million (input, output) tokens: by the options, else the configuration."""
    from router.config import load_config

    found: dict[str, tuple[float, float]] = {}
    ladder = load_config(config).tiers if config else []
    for tier in ladder:
        usd_input, usd_output = tier.price.usd_per_1m_input, tier.price.usd_per_1m_output
        if usd_input is not None and usd_output is not None:
            found[tier.name] = (usd_input, usd_output)
    found |= parse_prices(prices) if prices else {}
    names = [name.strip() for name in tiers.split(",")] if tiers else [tier.name for tier in ladder] or list(found)
    if not names:
        raise BadInput("give --config, or --tiers and --prices")
    unknown = [name for name in names if ladder and name not in [tier.name for tier in ladder]]
    if unknown:
        known = ", ".join(tier.name for tier in ladder)
        raise BadInput(
            f"--tiers: {config} has no tier {unknown[0]!r}; {did_you_mean(unknown[0], known.split(', ')) or f'it has {known}'}"
        )
    if len(set(names)) < len(names) or not all(names):
        raise BadInput(f"--tiers {tiers!r}: expected different names, cheapest first: small,large")
    missing = [name for name in names if name not in found]
    if missing:
        raise BadInput(_no_price(missing, config))
    check_order("prices", {name: sum(found[name]) for name in names})
    return names, {name: found[name] for name in names}


def _no_price(missing: Sequence[str], config: Path | None) -> str:
    """The message for tiers without a price per token."""
    tiers = ", ".join(repr(name) for name in missing)
    give = "--prices " + ",".join(f"{name}=USD" for name in missing) + " (USD per million tokens, or IN:OUT)"
    if config is None:
        return f"no price of tier {tiers}; give {give}, or --config"
    return f"{config}: no price per token of tier {tiers}; a price by the accelerator hour prices no request, so give {give}"


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on a terminal and nothing elsewhere; call the yielded function with (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def fresh_output(folder: Path, reads: Sequence[Path] = ()) -> None:
    """Check, before any work, that an artefact can be written there. Raises BadInput.

    Only an artefact is ever replaced, and never with a file in it that the command reads.
    """
    whole = folder.resolve()
    nearest = next(place for place in (whole, *whole.parents) if place.exists())
    if whole in (Path.cwd(), *Path.cwd().parents):
        raise BadInput(f"{folder}: the folder that the command runs in, or one above it, cannot be replaced; choose another name")
    if whole.exists() and not (whole.is_dir() and (whole / MANIFEST).exists()):
        raise BadInput(f"{folder}: exists and is not an artefact (it has no {MANIFEST}); choose another name")
    if not nearest.is_dir():
        raise BadInput(f"{folder}: {nearest} is no folder; choose another place")
    inside = [path for path in reads if whole in path.resolve().parents]
    if inside:
        raise BadInput(f"{folder}: it would be replaced, and {inside[0]} with it, which this command reads; choose another name")
    _try_to_write((nearest if nearest != whole else whole.parent) / f".{whole.name}.{os.getpid()}.new")


def fresh_file(path: Path, *reads: Path) -> None:
    """Check, before any work, that a file can be written there, and is none that the command reads. Raises BadInput."""
    if path.is_dir():
        raise BadInput(f"{path}: is a folder, expected the name of a file to write")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"{path}: there is no folder {path.parent}; make it first")
    if path.resolve() in [other.resolve() for other in reads]:
        raise BadInput(f"{path}: is the file that this command reads; choose another output")
    _try_to_write(path.with_name(f".{path.name}.{os.getpid()}.new"))


def fresh_folder(folder: Path) -> None:
    """Check, before any work, that files can be written into a folder, which need not exist. Raises BadInput."""
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise BadInput(f"{folder}: {nearest} is no folder; choose another place")
    _try_to_write(nearest / f".stepdown.{os.getpid()}.new")


def _try_to_write(path: Path) -> None:
    try:
        path.touch()
        path.unlink()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; choose another place, or make this one writable") from None


def open_artefact(path: Path) -> Artifact:
    """Load the artefact. Raises BadInput."""
    try:
        return load(path)
    except BadArtifact as error:
        raise BadInput(str(error)) from None


def measured_rows(paths: Sequence[Path], tiers: str | None, of: Sequence[str], split: str | None, costs: str | None) -> Outcomes:
    """The rows on which an artefact with the tiers `of` is measured."""
    names = parse_tiers(tiers) if tiers else {tier: tier for tier in of}
    if list(names) != list(of):
        raise BadInput(f"--tiers names {list(names)}, the artefact was trained for {list(of)}")
    given = parse_costs(costs)
    check_costs(given, of)
    table = join([read_outcomes(path, names, given) for path in paths])
    if split is not None:
        found = sorted(set(table.splits.tolist()))
        table = table.take(table.splits == split)
        if not len(table):
            raise BadInput(f"no row has split {split!r}; the table has {found}")
    return table


def answers_of(paths: Sequence[Path], tiers: str | None, table: Outcomes, prefix: int = PREFIX) -> Seen:
    """The signals of the answers, one row for each row of `table`. Raises BadInput where the table has none."""
    names = parse_tiers(tiers) if tiers else {tier: tier for tier in table.tiers}
    seen = read_seen(paths, names, table, prefix)
    if seen is None:
        raise BadInput("the outcomes hold no answers: give pred|NAME or out_tok|NAME by tier, or what `stepdown label` writes")
    return seen


def rewrite_rule(folder: Path, name: str, rule: Rule) -> None:
    """Replace one named rule in an artefact's manifest; the model stays the same."""
    manifest = read_manifest(folder)
    manifest["rules"][name] = rule.to_dict()
    rewrite_manifest(folder, manifest)


def rewrite_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace an artefact's manifest, whole or not at all; the model stays the same."""
    atomic_write(folder / MANIFEST, manifest_text(manifest))
