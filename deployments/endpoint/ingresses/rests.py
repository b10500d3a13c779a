"""News of tiers that asked to be left alone. Circuits are not told: a fault may be one machine's own, and three calls find it."""

import time
from collections.abc import Callable

from deployments.endpoint.ingresses.news import News
from router.traffic.breaker import Breaker

REST = "rest"
HOME = "home"
"""kinds of news"""


def tell_rest(news: News, tier: str, seconds: float, clock: Callable[[], float] = time.time) -> None:
    if seconds > 0:
        news.tell(REST, tier, repr(clock() + seconds))


def hear_rest(breaker: Breaker, tier: str, until: str, clock: Callable[[], float] = time.time) -> None:
    """until: Unix time."""
    if (left_s := float(until) - clock()) > 0:
        breaker.rest(tier, left_s)
