"""How often the alarm of a certificate goes off though its promise is kept, and how soon it does where it is broken, simulated.

python -m benchmarks.drift_alarm [--trials 2000] [--audits 1000]

Each trial draws calibration rows of a pair of models, makes a certificate of them as `stepdown calibrate --alpha` does, and then
audits answers whose rate of being worse is a share of what the certificate promises: 1 is the promise's edge. What differs
without being worse (both wrong in different ways, or the larger model wrong) differs as often as it did in calibration.
Prints a JSON line for each pair: the share of false alarms within the audits, and the audits until the alarm where the rate
doubles or quadruples. `every_difference` is the alarm of certificates that do not know harmless differences.
"""

import json
from dataclasses import dataclass, replace

import click
import numpy as np
from numpy.typing import NDArray

from classifiers.choose import Floats
from router.decide.certificates import Certificate, certify, watch
from router.decide.drift import Drift

DELTA = 0.10
POPULATION = 400_000
KEPT = (0.25, 0.5, 1.0)  # rates of worse answers, as shares of the promised rate
BROKEN = (2.0, 4.0)


@dataclass(frozen=True)
class Pair:
    """Two models. right: parameters of the beta distribution of the smaller one's chance of being right."""

    name: str
    right: tuple[float, float]
    rescued: float
    """chance that the larger is right where the smaller is wrong"""
    lost: float
    """chance that the larger is wrong where the smaller is right"""
    scattered: float
    """chance that two wrong answers differ"""
    alpha: float
    rows: int = 1_000


PAIRS = (
    Pair("9B and 27B", (2.2, 0.8), rescued=0.35, lost=0.06, scattered=0.7, alpha=0.05),
    Pair("8B and 405B", (1.9, 0.7), rescued=0.8, lost=0.02, scattered=0.7, alpha=0.05),
    Pair("two of a size", (2.0, 0.7), rescued=0.3, lost=0.10, scattered=0.8, alpha=0.10),
    Pair("small and large that agree where right", (1.0, 0.3), rescued=0.99, lost=0.001, scattered=0.5, alpha=0.01),
)


def draw(random: np.random.Generator, n: int, pair: Pair) -> tuple[Floats, Floats, Floats]:
    """(n,) chances, whether the smaller model's answer is worse, and whether the two answers differ."""
    scores = random.beta(*pair.right, n)
    right = random.random(n) < scores
    larger = random.random(n) < np.where(right, 1 - pair.lost, pair.rescued)
    differs = np.where(right & larger, False, np.where(right | larger, True, random.random(n) < pair.scattered))
    return scores, (~right & larger).astype(float), differs.astype(float)


@dataclass(frozen=True)
class Trial:
    """One certificate, and what is true of the answers that it accepts."""

    found: Certificate
    accepted: float
    """share of all answers"""
    harmless: float
    """rate of harmless differences among the accepted"""

    def rate(self, share: float) -> float:
        """Rate of differences where the rate of worse answers is that share of the promised one."""
        return min(share * self.found.alpha / self.accepted + self.harmless, 1.0)


def trials(pair: Pair, count: int, seed: int = 0) -> list[Trial]:
    random = np.random.default_rng(seed)
    scores, worse, differs = draw(random, POPULATION, pair)
    order = np.argsort(-scores)
    falling, harmless = -scores[order], np.cumsum((differs * (1 - worse))[order])
    found = []
    for _ in range(count):
        rows = draw(random, pair.rows, pair)
        made = certify(rows[0], rows[1], pair.alpha, DELTA, "balanced", rows[2])
        if isinstance(made, Certificate):
            taken = int(np.searchsorted(falling, -made.threshold, side="right"))
            found.append(Trial(made, taken / POPULATION, float(harmless[taken - 1]) / taken))
    return found


def delays(alarm: Drift, rate: float, audits: int, random: np.random.Generator) -> float:
    """The audit at which the alarm goes off; infinite: not within these audits."""
    gain, loss = alarm.counted(1, 1).log_wealth, alarm.counted(1, 0).log_wealth
    wealth = np.cumsum(np.where(random.random(audits) < rate, gain, loss))
    crossed: NDArray[np.int64] = np.flatnonzero(wealth >= -np.log(alarm.false_alarm))
    return float(crossed[0] + 1) if len(crossed) else float("inf")


def alarms(made: list[Trial], share: float, audits: int, measured: bool = True, seed: int = 1) -> Floats:
    """(n,) delays of each trial's alarm. measured: False as if harmless differences were not known."""
    random = np.random.default_rng(seed)
    certificates = [t.found if measured else replace(t.found, harmless=None) for t in made]
    return np.array([delays(watch(c), t.rate(share), audits, random) for c, t in zip(certificates, made, strict=True)])


def summary(pair: Pair, made: list[Trial], audits: int) -> dict[str, object]:
    def false(measured: bool) -> dict[str, float]:
        return {f"{share:g}": round(float(np.isfinite(alarms(made, share, audits, measured)).mean()), 4) for share in KEPT}

    late = {f"{share:g}": alarms(made, share, 50 * audits) for share in BROKEN}
    return {
        "pair": pair.name,
        "alpha": pair.alpha,
        "certificates": len(made),
        "audits": audits,
        "false_alarms": false(True),
        "every_difference": false(False),
        "audits_until_alarm": {name: [float(q) for q in np.quantile(found, [0.5, 0.9])] for name, found in late.items()},
    }


@click.command()
@click.option("--trials", "count", default=2_000, show_default=True, help="Certificates for each pair.")
@click.option("--audits", default=1_000, show_default=True, help="Audits within which an alarm counts as false.")
def main(count: int, audits: int) -> None:
    """Simulate the drift alarm at, below and above the promise's edge."""
    for pair in PAIRS:
        click.echo(json.dumps(summary(pair, trials(pair, count), audits)))


if __name__ == "__main__":
    main()
