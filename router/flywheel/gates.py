"""What a candidate has to pass on the test rows before it may be tried in the shadow: paired with what is served now.

A test of some dozens of rows cannot prove much. So each gate refuses what these rows speak against, and the firm promises are
the certificate's, which is made on more rows, and the shadow's, which looks at as many as it needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from classifiers import Artifact, choose_many
from classifiers.choose import Floats
from classifiers.replies.posterior import Posterior
from router.cascade.next_step import plan
from router.config import Config
from router.decide.certificates import HOLDBACK, Certificate, find_certificate
from router.errors import BadInput
from router.flywheel.candidate import target_of
from router.flywheel.rows.dataset import Dataset
from router.flywheel.rows.tables import answers, tables_of
from router.learn import cascades as ca
from router.learn import evaluation as ev
from router.learn.evaluation import Frontier
from router.learn.outcomes import Outcomes
from router.learn.simulate import PRICES, Rows, States, all_tiers, play

OF_TEST_ROWS = ("quality", "saving", "calibration", "payback")
FEWEST = 20  # test rows
N_DRAWS = 1_000
SURE = 0.95  # of each one-sided bound
LONGEST_PAYBACK_DAYS = 30.0
TOLERATED_ECE = 0.05  # beyond what a perfectly calibrated router shows on so few rows


@dataclass(frozen=True)
class Gate:
    """One condition, and what decided it."""

    name: str
    passed: bool
    numbers: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    """one sentence, also where it is passed"""


@dataclass(frozen=True)
class Way:
    """What one router does with the test rows. Arrays (n,): cost in USD, score of the answer. chances: (n, n_tiers)."""

    cost: Floats
    score: Floats
    chances: Floats
    instead: tuple[tuple[Floats, Floats], ...] = ()
    """cost and score at other prices of cost, by which two routers are compared at one quality"""


def offline_gates(
    dataset: Dataset,
    candidate: Artifact,
    incumbent: Artifact | None,
    config: Config,
    paid_usd: float = 0.0,
    requests_a_day: float | None = None,
) -> list[Gate]:
    """The gates `certificate`, `quality`, `saving`, `calibration` and `payback`.

    incumbent: what decides now; None: always the top tier, also where the incumbent's promise was found broken. paid_usd: for
    labels and training. requests_a_day: that the router will decide; default: as in the log.
    """
    stands = certificate_gate(candidate, config)
    if len(dataset.test) < FEWEST:
        few = f"{len(dataset.test)} test rows; at least {FEWEST} are needed"
        return [stands, *(Gate(name, False, {"n": len(dataset.test)}, few) for name in OF_TEST_ROWS)]
    target = target_of(config)
    with TemporaryDirectory(prefix="stepdown-gates-") as place:
        path = Path(place) / "test.jsonl"
        try:
            table = tables_of(dataset.test, dataset, path)[0]
            ours = way(candidate, table, path, target, config, also=incumbent is not None)
            theirs = way(incumbent, table, path, target, config) if incumbent else always_top(table)
        except BadInput as error:
            return [stands, *(Gate(name, False, {}, f"the test rows cannot be played: {error}") for name in OF_TEST_ROWS)]
    draws = Draws(table)
    saved = saving_gate(ours, theirs, draws)
    allowed = config.flywheel.margin if incumbent else max(config.flywheel.margin, config.flywheel.alpha)
    a_day = dataset.requests_a_day if requests_a_day is None else requests_a_day
    return [
        stands,
        quality_gate(ours, theirs, draws, allowed),
        saved,
        calibration_gate(ours, theirs if incumbent else None, table, draws),
        payback_gate(saved.numbers["usd_a_request"], a_day, paid_usd),
    ]


# -- playing the test rows ------------------------------------------------------------------------------------------------------


def way(artefact: Artifact, table: Outcomes, path: Path, target: str, config: Config, also: bool = False) -> Way:
    """What a router does with the test rows: as a cascade where answers are judged, else by its first decision.

    also: `Way.instead` too, which takes a second.
    """
    rows, _ = ca.rows_to_judge(artefact, table, answers(path, table, artefact))
    if config.escalation.looks and artefact.posterior is not None and target in artefact.cascades:
        found = cascaded(artefact, rows, table, target)
        return replace(found, instead=at_prices(artefact.posterior, rows, table)) if also else found
    if target not in artefact.rules:
        return always_top(table)
    tier = choose_many(rows.prior, rows.guessed, artefact.rules[target])
    at = np.arange(len(table))
    return Way(table.costs[at, tier], table.scores[at, tier], rows.prior)


def cascaded(artefact: Artifact, rows: Rows, table: Outcomes, target: str) -> Way:
    """Every row played by the target's rule; what does not reach its threshold goes up."""
    played, threshold = ca.played_by(artefact, rows, target), artefact.cascades[target].threshold
    top = len(artefact.tiers) - 1
    up = (played.tier < top) & ~(np.isnan(threshold) | (played.chance >= threshold))
    if threshold > 1:  # nothing below the top could be accepted, so it is asked at once
        return Way(table.costs[:, -1], table.scores[:, -1], rows.prior)
    usd = played.cost * table.costs[:, -1].mean() + np.where(up, table.costs[:, -1], 0.0)
    return Way(usd, np.where(up, table.scores[:, -1], played.scores(rows)), rows.prior)


def at_prices(posterior: Posterior, rows: Rows, table: Outcomes) -> tuple[tuple[Floats, Floats], ...]:
    """Cost and score of each row at several prices of cost, without a threshold."""
    states, ground, unit = States(posterior, rows), all_tiers(posterior.n_tiers, ca.BEST_OF), table.costs[:, -1].mean()
    every = [play(states, plan(posterior, price, ground)) for price in PRICES[::4].tolist()]
    return tuple((played.cost * unit, played.scores(rows)) for played in every)


def always_top(table: Outcomes) -> Way:
    """What an empty ladder does: the top tier answers everything."""
    return Way(table.costs[:, -1], table.scores[:, -1], np.full(table.scores.shape, np.nan))


class Draws:
    """Bootstrap over groups (conversations and near-duplicates): rows of one group are drawn together."""

    def __init__(self, table: Outcomes) -> None:
        _, member = np.unique(table.groups, return_inverse=True)
        drawn = ev.draws(int(member.max()) + 1, N_DRAWS)
        self.weights: Floats = drawn[:, member] * table.shares
        sizes: Floats = np.bincount(member, weights=table.shares).astype(np.float64)
        self.n = ev.effective(sizes)
        """groups of equal weight that would prove as much"""

    def mean(self, values: Floats) -> Floats:
        """(N_DRAWS + 1,) weighted means of values (n,), the estimate first."""
        return np.asarray(self.weights @ values / self.weights.sum(axis=1))

    def low(self, values: Floats) -> tuple[float, float]:
        """The mean of values (n,), and its one-sided lower bound."""
        means = self.mean(values)
        return float(means[0]), float(np.quantile(means[1:], 1 - SURE))

    def high(self, values: Floats) -> tuple[float, float]:
        """The mean of values (n,), and its one-sided upper bound."""
        means = self.mean(values)
        return float(means[0]), float(np.quantile(means[1:], SURE))


# -- gates ----------------------------------------------------------------------------------------------------------------------


def certificate_gate(candidate: Artifact, config: Config) -> Gate:
    """There is a certificate, and as strict as it is to be; of streams too where they are judged by their beginning."""
    target, settings = target_of(config), config.flywheel
    found = find_certificate(candidate.manifest, target)
    if not isinstance(found, Certificate) or found.retired:
        why = found.retired if isinstance(found, Certificate) else getattr(found, "reason", "no answer is judged")
        return Gate("certificate", False, {}, f"auto:{target} has no certificate: {why}")
    held = find_certificate(candidate.manifest, target + HOLDBACK)
    numbers = {"n": found.n, "k": found.k, "bound": found.bound, "alpha": found.alpha, "coverage": found.coverage}
    if found.alpha > settings.alpha or found.delta > settings.delta:
        return Gate("certificate", False, numbers, f"it promises {found.alpha:.1%}, less than flywheel.alpha and delta ask for")
    why = f"at most {found.alpha:.1%} worse with confidence {1 - found.delta:.0%}; smaller tiers answer {found.coverage:.0%}"
    if config.escalation.mode == "holdback" and not isinstance(held, Certificate):
        why += "; streams have none, so nothing is promised of them"
    return Gate("certificate", True, numbers, why)


def quality_gate(ours: Way, theirs: Way, draws: Draws, margin: float) -> Gate:
    """These rows do not speak against "worse by at most the margin": the upper bound of the mean difference reaches it.

    A lower bound above the margin, which would prove it, needs thousands of rows: the certificate and the shadow prove.
    """
    mean, high = draws.high(ours.score - theirs.score)
    numbers = {"difference": mean, "high": high, "margin": margin, "n": draws.n}
    said = f"mean score {mean:+.3f}, at most {high:+.3f} with {SURE:.0%} by {draws.n:.0f} rows; down to {-margin:+.3f} is allowed"
    return Gate("quality", high >= -margin, numbers, said)


def saving_gate(ours: Way, theirs: Way, draws: Draws) -> Gate:
    """The lower bound of the USD saved a request is above 0: as served or, where the candidate is better, at one quality."""
    mean, low = draws.low(theirs.cost - ours.cost)
    before = float(draws.mean(theirs.cost)[0])
    if ours.instead and low <= 0 and draws.mean(ours.score - theirs.score)[0] > 0:
        mean, low = saved_at_one_quality(ours, theirs, draws)
    share = mean / before if before else 0.0
    numbers = {"usd_a_request": mean, "low": low, "before_usd": before, "share": share, "n": draws.n}
    said = f"{share:.0%} of {before:.3g} USD a request saved, at least {low:.3g} USD with {SURE:.0%}"
    return Gate("saving", low > 0, numbers, said)


def frontier(draws: Draws, *points: tuple[Floats, Floats]) -> Frontier:
    """What these points, each (n,) costs and scores, reach by draw."""
    cost, quality = (np.stack([draws.mean(point[side]) for point in points], axis=1) for side in (0, 1))
    return Frontier(cost, quality)


def saved_at_one_quality(ours: Way, theirs: Way, draws: Draws) -> tuple[float, float]:
    """USD a request that ours saves at the price at which it is as good as theirs, and the lower bound."""
    spent = draws.mean(theirs.cost)
    saved = spent - frontier(draws, (ours.cost, ours.score), *ours.instead).cost_at(draws.mean(theirs.score))
    known = np.where(np.isnan(saved), 0.0, saved)  # a draw in which that quality is never reached
    return float(known[0]), float(np.quantile(known[1:], 1 - SURE))


def calibration_gate(ours: Way, theirs: Way | None, table: Outcomes, draws: Draws, before: Outcomes | None = None) -> Gate:
    """The error of the chances is what a calibrated router shows on so few rows, or no worse than the incumbent's.

    before: the same rows with the answers that the incumbent is about, where those are others.
    """
    found = errors_of(ours, table, draws)
    noise = perfect(ours, table, draws)
    numbers: dict[str, Any] = {"ece": float(found[0]), "noise": noise}
    if found[0] <= noise + TOLERATED_ECE:
        return Gate("calibration", True, numbers, f"chances are off by {found[0]:.3f}; {noise:.3f} is chance on so few rows")
    if theirs is None:
        return Gate("calibration", False, numbers, f"chances are off by {found[0]:.3f}, and {noise:.3f} would be chance")
    known = errors_of(theirs, table if before is None else before, draws)
    worse = found - known
    numbers |= {"before": float(known[0]), "worse": float(worse[0])}
    passed = bool(np.quantile(worse[1:], 1 - SURE) <= 0)
    return Gate("calibration", passed, numbers, f"chances are off by {found[0]:.3f}, the incumbent's by {known[0]:.3f}")


def errors_of(found: Way, table: Outcomes, draws: Draws) -> Floats:
    """(N_DRAWS + 1,) mean expected calibration error of the tiers below the top."""
    below = range(len(table.tiers) - 1)
    return np.asarray(np.mean([ev.ece(found.chances[:, k], table.scores[:, k], draws.weights) for k in below], axis=0))


def perfect(found: Way, table: Outcomes, draws: Draws, n_draws: int = 200) -> float:
    """The error that chances which are exactly right show on these rows, at its SURE quantile."""
    random, weights = np.random.default_rng(0), draws.weights[:1]
    drawn = [
        np.mean([ev.ece(p, (random.random(len(p)) < p).astype(float), weights)[0] for p in found.chances[:, :-1].T])
        for _ in range(n_draws)
    ]
    return float(np.quantile(drawn, SURE))


def payback_gate(usd_a_request: float, requests_a_day: float, paid_usd: float) -> Gate:
    """What labels and training cost is saved again within LONGEST_PAYBACK_DAYS."""
    a_day = usd_a_request * requests_a_day
    days = paid_usd / a_day if a_day > 0 else (0.0 if paid_usd <= 0 else np.inf)
    numbers = {"paid_usd": paid_usd, "saved_usd_a_day": a_day, "days": float(days) if np.isfinite(days) else None}
    said = f"{paid_usd:.3g} USD paid, {a_day:.3g} USD saved a day: {days:.1f} days, at most {LONGEST_PAYBACK_DAYS:.0f}"
    return Gate("payback", bool(days <= LONGEST_PAYBACK_DAYS), numbers, said)
