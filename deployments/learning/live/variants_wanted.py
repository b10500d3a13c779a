"""Which weights have to answer, by the ledger's database: those of what decides, of what may come back, and of what is tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from deployments.learning import runs
from deployments.learning.live import bundles, model_store
from deployments.learning.live.routers_in_use import wanted as slots_wanted
from deployments.learning.live.weights_used import weights_of
from deployments.learning.runs import Run
from router.config import Config, VllmTier
from router.errors import BadInput
from router.flywheel.variants import Version, in_order, names_on

TRIED = ("shadow", "waiting", "canary", "promoted")
"""stages in which a run's candidate is compared"""
Weights = Mapping[str, str]
"""tier -> digest; a tier that is missing has its configured weights"""


@dataclass(frozen=True, slots=True)
class Configured:
    """What the configuration names."""

    artefact: str = ""
    """its digest; empty: none"""
    weights: Weights = field(default_factory=dict)
    """that it was made for"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which weights are needed."""

    up: frozenset[Version] = frozenset()
    """that must be able to answer"""
    asked: tuple[str, ...] = ()
    """names, cheapest tier first, whose answers are compared: the filler asks them"""
    since_s: float | None = None
    """requests drawn since then are looked at again where one of `asked` has not answered them; None: none are"""
    unread: tuple[str, ...] = ()
    """artefacts whose weights cannot be read, each with the reason"""


def wanted(connection: Connection, config: Config, configured: Configured, cache: dict[str, Weights]) -> Wanted:
    """cache: digest of an artefact -> its weights, which never change.

    Only requests drawn since the run began are looked at again: its candidate may have been made of those before.
    """
    slots = slots_wanted(bundles.read(connection), configured.artefact)
    run = runs.latest(connection)
    tried = run if run and not run.closed and run.stage in TRIED and run.candidate else None
    deciding = [slots.active, *([] if slots.canary is None else [slots.canary])]
    compared = [*deciding, *([tried.candidate, tried.incumbent] if tried else [])]
    unread: list[str] = []
    known: dict[str, Weights] = {}
    for digest in dict.fromkeys([*compared, *([] if slots.previous is None else [slots.previous])]):
        try:
            known[digest] = weights_behind(connection, digest, configured, cache)
        except BadInput as error:
            unread.append(str(error))
    tiers = [tier.name for tier in config.tiers if isinstance(tier, VllmTier)]
    up = frozenset(Version(tier, weights.get(tier, "")) for weights in known.values() for tier in tiers)
    names = [name for digest in compared if digest in known for name in names_on(tuple(config.names), known[digest])]
    asked = in_order(config.names, names)
    return Wanted(up, asked, again_s(tried, asked, config), tuple(unread))


def weights_behind(connection: Connection, digest: str, configured: Configured, cache: dict[str, Weights]) -> Weights:
    """Those that an artefact was made for; no artefact has the configured one's. Raises BadInput."""
    if digest in ("", configured.artefact):
        return configured.weights
    if digest not in cache:
        cache[digest] = weights_of(model_store.manifest(connection, digest))
    return cache[digest]


def again_s(tried: Run | None, asked: tuple[str, ...], config: Config) -> float | None:
    """See `Wanted.since_s`. Where each tier has one set of weights, every request has had its answers already."""
    return tried.began_s if tried and len(asked) > len(config.names) else None
