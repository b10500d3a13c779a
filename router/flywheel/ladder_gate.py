"""The gates of a bundle whose tiers have new weights: what the ladder costs with it, at the quality that it has without it.

Both bundles play the same rows, each with the answers of its own weights and by its own router. So a better model that is judged
by a router for another one shows what it really costs. What the ladder costs is told by all rows that trained neither weights nor
router, those of the certificate too, as a difference of a few hundredths needs thousands of rows; the other gates look at the
test rows alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from classifiers import Artifact
from classifiers.choose import Floats
from router.config import Config
from router.errors import BadInput
from router.flywheel import gates
from router.flywheel.candidate import target_of
from router.flywheel.gates import FEWEST, SURE, Draws, Gate, Way
from router.flywheel.rows.dataset import Dataset
from router.flywheel.rows.tables import tables_of
from router.flywheel.served import Served
from router.learn import evaluation as ev
from router.learn.evaluation import Frontier
from router.learn.outcomes import Outcomes

OF_TEST_ROWS = ("quality", "ladder", "calibration", "payback")
QUALITIES = (0.98, 0.99)
"""shares of the top tier's quality at which the cost is told"""


@dataclass(frozen=True)
class Paid:
    """What was paid for a candidate, in USD."""

    training: float = 0.0
    labels: float = 0.0
    """answers and grades that the log was filled in with"""
    shadow: float = 0.0
    """answers that a shadow will ask for, at least"""

    @property
    def usd(self) -> float:
        return self.training + self.labels + self.shadow

    def as_json(self) -> dict[str, float]:
        return {"training_usd": self.training, "labels_usd": self.labels, "shadow_usd": self.shadow}


@dataclass(frozen=True)
class Bundle:
    """A router, and the answers of the weights that it is for."""

    artefact: Artifact | None
    """None: always the top tier"""
    rows: Mapping[str, Served] = field(default_factory=dict)
    """by trace id; those that are missing are as in the data set"""


def ladder_gates(data: Dataset, candidate: Artifact, incumbent: Bundle, config: Config, paid: Paid) -> list[Gate]:
    """The gates `certificate`, `quality`, `ladder`, `calibration` and `payback`. data: its rows have the candidate's answers."""
    stands = gates.certificate_gate(candidate, config)
    if len(data.test) < FEWEST:
        few = f"{len(data.test)} test rows; at least {FEWEST} are needed"
        return [stands, *(Gate(name, False, {"n": len(data.test)}, few) for name in OF_TEST_ROWS)]
    with TemporaryDirectory(prefix="stepdown-gates-") as place:
        try:
            test = both(candidate, incumbent, data.test, data, config, Path(place))
            unseen = both(candidate, incumbent, (*data.certify, *data.test), data, config, Path(place))
        except BadInput as error:
            return [stands, *(Gate(name, False, {}, f"the test rows cannot be played: {error}") for name in OF_TEST_ROWS)]
    settings = config.flywheel
    allowed = settings.margin if incumbent.artefact else max(settings.margin, settings.alpha)
    found = ladder_gate(unseen, settings.alpha, incumbent.artefact is not None)
    at = {"new": costs_at(unseen.ours, unseen.top, unseen.draws), "old": costs_at(unseen.theirs, unseen.top, unseen.draws)}
    ours, theirs, table, known, draws = test
    payback = gates.payback_gate(found.numbers["usd_a_request"], data.requests_a_day, paid.usd)
    return [
        stands,
        gates.quality_gate(ours, theirs, draws, allowed),
        replace(found, numbers={**found.numbers, "at": at}),
        gates.calibration_gate(ours, theirs if incumbent.artefact else None, table, draws, known),
        replace(payback, numbers={**payback.numbers, **paid.as_json()}),
    ]


class Both(NamedTuple):
    """What two bundles do with the same rows."""

    ours: Way
    theirs: Way
    table: Outcomes
    """of the candidate's weights"""
    known: Outcomes
    """of the incumbent's"""
    draws: Draws

    @property
    def top(self) -> tuple[Floats, Floats]:
        """(n,) cost and score of the top tier's answers, whose weights both have."""
        return self.table.costs[:, -1], self.table.scores[:, -1]


def both(candidate: Artifact, incumbent: Bundle, rows: Sequence[Served], data: Dataset, config: Config, folder: Path) -> Both:
    """Raises BadInput."""
    before = [incumbent.rows.get(row.trace_id, row) for row in rows]
    ours, table = played(candidate, rows, data, config, folder / "new.jsonl")
    theirs, known = played(incumbent.artefact, before, data, config, folder / "old.jsonl")
    return Both(ours, theirs, table, known, Draws(table))


def played(artefact: Artifact | None, rows: Sequence[Served], data: Dataset, config: Config, path: Path) -> tuple[Way, Outcomes]:
    """What a router does with the rows. Raises BadInput."""
    table = tables_of(rows, data, path)[0]
    if artefact is None:
        return gates.always_top(table), table
    return gates.way(artefact, table, path, target_of(config), config, also=True), table


def ladder_gate(unseen: Both, alpha: float, routed: bool) -> Gate:
    """The lower bound of the USD that a request costs less, at the incumbent's quality or at that which is promised, is above 0.

    alpha: the share of answers that may be worse than the top tier's. Where the incumbent reaches more than is promised, both
    ladders are compared at the promise: near the top tier's own quality a hundredth of quality costs as much as all below it, so
    that no number of rows would tell two ladders apart there. routed: the incumbent has a router. The top tier's quality is only
    reached by asking it alone, so where there is none the costs are those of what is served, and gate `quality` looks after it.
    """
    draws, top = unseen.draws, unseen.top
    if routed:
        quality = np.minimum(draws.mean(unseen.theirs.score), (1 - alpha) * draws.mean(top[1]))
        spent = frontier(unseen.theirs, top, draws).cost_at(quality)
        saved = spent - frontier(unseen.ours, top, draws).cost_at(quality)
        mean, low, before = float(saved[0]), float(np.quantile(saved[1:], 1 - SURE)), float(spent[0])
        how = f"at {float(quality[0]) / float(draws.mean(top[1])[0]):.1%} of the top tier's quality"
    else:
        before, how = float(draws.mean(unseen.theirs.cost)[0]), "as served"
        mean, low = draws.low(unseen.theirs.cost - unseen.ours.cost)
    share = mean / before if before else 0.0
    numbers = {"usd_a_request": mean, "low": low, "before_usd": before, "share": share, "n": draws.n}
    said = f"{share:.0%} of {before:.3g} USD a request saved {how}, at least {low:.3g} USD with {SURE:.0%}"
    return Gate("ladder", low > 0, numbers, said)


def frontier(found: Way, top: tuple[Floats, Floats], draws: Draws) -> Frontier:
    """Costs and qualities that a bundle reaches, by draw: as served, at other prices, and by asking the top tier alone."""
    return gates.frontier(draws, (found.cost, found.score), *found.instead, top)


def costs_at(found: Way, top: tuple[Floats, Floats], draws: Draws) -> dict[str, Any]:
    """Cost at shares of the top tier's quality, 1 being the top tier's cost: `0.99` -> [estimate, low, high], bounds of 95 %."""
    reached, best, unit = frontier(found, top, draws), draws.mean(top[1]), draws.mean(top[0])
    least = Frontier(reached.cost / unit[:, None], reached.quality)
    return {f"{share:g}": ev.estimate(least.cost_at(share * best)).rounded(4) for share in QUALITIES}
