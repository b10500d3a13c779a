"""The generations of each tier's weights: when and from what each was made, what it learned, cost and saves, and what became of
it.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from deployments.learning.live import bundles, model_store
from deployments.learning.live.model_store import Weights
from deployments.learning.live.weights_used import weights_of
from deployments.ledger.schema import runs
from router.errors import BadInput

OWN = ("digest", "tier", "parent", "run_id", "method", "dataset", "licence", "made_s")
COST = ("cost_usd", "training_usd", "labels_usd", "shadow_usd", "seconds", "tokens")
SAVED = ("saves_usd_day", "payback_days", "saved_share", "at")
BOOKS = ("rows", "trained_rows", "learned", *COST, *SAVED)
UNDER_WAY = {"shadow": "shadow", "waiting": "shadow", "canary": "canary"}
IN_USE = ("promoted", "done")
"""stages of a run whose candidate everybody got"""


def generations(connection: Connection) -> list[dict[str, Any]]:
    """Newest first. Plain JSON."""
    listed = model_store.weights_listed(connection)
    if not listed:
        return []
    stages = {id: stage for id, stage in connection.execute(select(runs.c.id, runs.c.stage))}
    used = weights_in_use(connection)
    return [generation(one, stages.get(one.run_id, ""), used) for one in reversed(listed)]


def generation(one: Weights, stage: str, used: Mapping[str, str]) -> dict[str, Any]:
    """stage: of the run that made it. used: tier -> digest of the weights that everybody gets."""
    own = {name: getattr(one, name) for name in OWN}
    return {**own, **{name: one.numbers.get(name) for name in BOOKS}, "state": state(one, stage, used)}


def state(one: Weights, stage: str, used: Mapping[str, str]) -> str:
    """shadow, canary, promoted, replaced, rolled back, refused, undecided or failed; empty: its run is not known."""
    if stage in IN_USE:
        return "promoted" if used.get(one.tier) == one.digest else "replaced"
    return UNDER_WAY.get(stage, stage)


def weights_in_use(connection: Connection) -> dict[str, str]:
    """tier -> digest of learned weights, by the promoted bundle."""
    promoted = bundles.read(connection).get("promoted")
    if promoted is None or not promoted.digest:
        return {}
    try:
        return weights_of(model_store.manifest(connection, promoted.digest))
    except BadInput:  # it was deleted: then nobody gets it
        return {}
