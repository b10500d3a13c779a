"""What the tests of queues share: a clock that is set by hand, and decisions with their chances."""

from classifiers import explicit
from router.types import Decision

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def decided(tier="small", **p):
    p = p or {"small": 0.95, "large": 0.99}
    return Decision(tier, "good enough", "balanced", p, cost={"small": 0.2, "large": 0.25}, first=(tier,))


def rule():
    return explicit(0.9)
