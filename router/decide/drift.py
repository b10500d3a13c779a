"""The alarm of a certificate: an e-process over audited answers, which may be looked at after each of them.

An audit sees that two answers differ, not which of them is worse. So the alarm tests the rate of differences that a kept
promise allows: p0 = w + h, where w is the promised rate of worse answers and h an upper bound of the rate of harmless
differences, measured on the certificate's own rows. It is tuned to notice p1 = w + p0, twice as many worse answers.
While the rate is at most p0, the chance that the alarm ever goes off is at most `false_alarm` (Ville's inequality).
"""

import math
from dataclasses import dataclass

FALSE_ALARM = 0.10  # chance of an alarm, ever, while the promise holds
BOUND_ERROR = 0.05  # the part of it that h may be too low; the e-process has the rest


@dataclass(frozen=True, slots=True)
class Audited:
    """What audits have found of one certificate, by all processes that count together."""

    audits: int = 0
    errors: int = 0
    """audited answers that differed from the top tier's"""
    retired: str = ""
    """when and why the alarm went off; empty: it did not"""


@dataclass(frozen=True, slots=True)
class Drift:
    """An alarm over audited answers, valid at every look: an e-process of p1 against p0.

    p0: rate of differences among audited answers that the promise allows. p1: the rate to detect.
    """

    p0: float
    p1: float
    log_wealth: float = 0.0
    audits: int = 0
    errors: int = 0
    alarmed: bool = False
    false_alarm: float = FALSE_ALARM

    def update(self, error: bool) -> "Drift":
        """The alarm after one more audit. Once alarmed it stays so."""
        return self.counted(self.audits + 1, self.errors + error)

    def counted(self, audits: int, errors: int) -> "Drift":
        """The alarm with these counts: its wealth depends on nothing else."""
        gain, loss = math.log(self.p1 / self.p0), math.log1p(-self.p1) - math.log1p(-self.p0)
        wealth = errors * gain + (audits - errors) * loss
        alarmed = self.alarmed or wealth >= -math.log(self.false_alarm)
        return Drift(self.p0, self.p1, wealth, audits, errors, alarmed, self.false_alarm)


def alarm_of(worse: float, harmless: float | None) -> Drift:
    """The alarm for a promised rate of worse answers among those audited, in [0, 1].

    harmless: upper bound of the rate of differences that are not for the worse, wrong with chance BOUND_ERROR. None: it was
    never measured; then every difference counts as worse, which may retire a promise that is kept.
    """
    worse = min(max(worse, 1e-6), 0.98)
    p0 = min(worse + (harmless or 0.0), 0.98)
    level = FALSE_ALARM if harmless is None else FALSE_ALARM - BOUND_ERROR
    return Drift(p0, min(p0 + worse, (1 + p0) / 2), false_alarm=level)
