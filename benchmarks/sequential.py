"""How often the sequential tests of the flywheel decide wrongly, and after how many pairs they decide, simulated.

python -m benchmarks.sequential [--runs 400] [--pairs 10000]

Each run draws independent pairs of one truth and looks at the wealth after every pair, as the shadow, the canary and the watch
after a promotion do. Prints a JSON line for each truth: the share of runs that stop (that pass), and the median and the 90 %
quantile of the pairs until then, over all runs. Where the truth lies exactly at the margin, a run that stops is wrong: there the
runs are five times as many, since a rate of 0.05 is not known from 400, and they end after as many pairs as a shadow does.
"""

import json
from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray

from router.flywheel.sequential import BETS, STAKES, Claim, log_gains

Floats = NDArray[np.float64]
PASS = 20.0  # wealth at which a shadow passes
BACK = 100.0  # wealth at which a router is rolled back
SHADOW_ENDS = 5_000  # pairs
TIMES = 5  # as many runs where a run that stops is wrong
CHUNK = 500  # pairs


@dataclass(frozen=True)
class Truth:
    """What is true of the pairs. lost, won: rates of d = -1 and d = 1."""

    name: str
    claim: Claim
    margin: float
    lost: float
    won: float = 0.0
    least: int = 0
    """pairs before which nothing is decided"""

    @property
    def goal(self) -> float:
        return PASS if self.claim == "not worse" else BACK

    @property
    def at_margin(self) -> bool:
        return abs(self.lost - self.won - self.margin) < 1e-9


def shadow(name: str, margin: float, lost: float, won: float = 0.0, least: int = 0) -> Truth:
    return Truth(f"{name}, margin {margin:g}", "not worse", margin, lost, won, least)


def rollback(name: str, margin: float, lost: float, won: float = 0.0) -> Truth:
    return Truth(f"{name}, margin {margin:g}", "worse", margin, lost, won)


TRUTHS = (
    shadow("a better model, 18.5 % won and 1.8 % lost", 0.0, 0.018, 0.185),
    shadow("equal, 4 % differ", 0.01, 0.02, 0.02),
    shadow("equal, 4 % differ", 0.02, 0.02, 0.02),
    shadow("exactly at the margin, nothing won", 0.01, 0.01),
    shadow("exactly at the margin, nothing won", 0.02, 0.02),
    shadow("exactly at the margin, 5 % differ", 0.01, 0.03, 0.02),
    *(
        shadow(f"day one, {lost:.2%} worse than the top tier", margin, lost, least=300)
        for margin in (0.01, 0.02)
        for lost in (0.0, 0.0025, 0.005, 0.01)
        if lost < margin
    ),
    rollback("5 points worse, 7 % differ", 0.01, 0.06, 0.01),
    rollback("5 points worse, nothing won", 0.01, 0.05),
    rollback("5 points worse, nothing won", 0.02, 0.05),
    rollback("20 points worse, nothing won", 0.01, 0.20),
    rollback("exactly at the margin, nothing won", 0.01, 0.01),
    rollback("exactly at the margin, 5 % differ", 0.01, 0.03, 0.02),
)


def stopped(truth: Truth, runs: int, pairs: int, seed: int = 0) -> Floats:
    """(runs,) the pair after which each run stops; infinite: not within `pairs`."""
    random = np.random.default_rng(seed)
    gains = np.array([log_gains(d, truth.margin, truth.claim) for d in (-1.0, 0.0, 1.0)])
    logs, found = np.zeros((runs, len(BETS))), np.full(runs, np.inf)
    for begun in range(0, pairs, CHUNK):
        at = np.flatnonzero(np.isinf(found))
        if not len(at):
            break
        drawn = random.random((len(at), min(CHUNK, pairs - begun)))
        kind = np.where(drawn < truth.lost, 0, np.where(drawn < 1 - truth.won, 1, 2))
        grown = np.stack([logs[at, k, None] + np.cumsum(gains[kind, k], axis=1) for k in range(len(BETS))])
        logs[at] = grown[:, :, -1].T
        passed = np.logaddexp.reduce(grown + np.log(STAKES)[:, None, None], axis=0) >= np.log(truth.goal)
        passed[:, : max(0, truth.least - begun - 1)] = False
        found[at] = np.where(passed.any(axis=1), begun + passed.argmax(axis=1) + 1, np.inf)
    return found


def summary(truth: Truth, runs: int, pairs: int) -> dict[str, object]:
    """Plain JSON; a quantile is None where fewer runs stop."""
    if truth.at_margin:
        runs, pairs = TIMES * runs, min(pairs, SHADOW_ENDS)
    found = stopped(truth, runs, pairs)
    median, late = (None if np.isinf(q) else int(q) for q in np.quantile(found, [0.5, 0.9], method="higher"))
    return {
        "truth": truth.name,
        "claim": truth.claim,
        "wealth": truth.goal,
        "runs": runs,
        "pairs": pairs,
        "stops": round(float(np.isfinite(found).mean()), 4),
        "stops_within_5000": round(float((found <= 5_000).mean()), 4),
        "median": median,
        "p90": late,
    }


@click.command()
@click.option("--runs", default=400, show_default=True, help="Simulations of each truth.")
@click.option("--pairs", default=10_000, show_default=True, help="Most pairs of a run.")
def main(runs: int, pairs: int) -> None:
    """Simulate the sequential tests of the flywheel."""
    for truth in TRUTHS:
        click.echo(json.dumps(summary(truth, runs, pairs)))


if __name__ == "__main__":
    main()
