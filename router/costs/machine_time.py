"""Attributes a tier's machine time: what calls used, what was idle and who bears it, so that the sum is what was held.

The rules, for each tier and each span (an hour: the ledger keeps sums by the hour):

- busy: a call's share of its replica's busy time x accelerators of a replica, at the span's mean price. A call belongs
  whole to the span in which it began.
- idle: held less busy, borne by those who used the tier in that span, in proportion to their busy time. A span belongs to its
  users whatever interval is asked about, so the figures of two adjacent intervals add up.
- NOBODY bears a span in which no call of the tier was measured.
- OVER takes back what was measured beyond what was held: a call that runs past its span, replicas that came and went
  between two samples. Its seconds and USD are at most 0.

So over all groups, NOBODY and OVER included, busy + idle is exactly what was held, in seconds and in USD. The time of calls
that nobody measured (`busy_s` None) is within idle.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import fsum

NOBODY = ""
OVER = "(beyond what was held)"
HOUR_S = 3600
DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Used:
    """Busy accelerator-seconds (busy_s x accelerators of a replica) of one group of calls, such as those of a key."""

    at: int
    """start of the span, Unix time"""
    tier: str
    group: str
    seconds: float
    usd: float = 0.0
    """what the calls were priced at; used only in a span where nothing was held, so that no other price is known"""


@dataclass(frozen=True, slots=True)
class Held:
    """Accelerator-seconds that a tier held in one span."""

    at: int
    tier: str
    seconds: float
    usd: float = 0.0
    """0 where the tier has no hourly price"""


@dataclass(frozen=True, slots=True)
class Line:
    """Accelerator-seconds and USD of one group on one tier in one span."""

    at: int
    tier: str
    group: str
    busy_s: float = 0.0
    idle_s: float = 0.0
    busy_usd: float = 0.0
    idle_usd: float = 0.0

    @property
    def seconds(self) -> float:
        return self.busy_s + self.idle_s

    @property
    def usd(self) -> float:
        return self.busy_usd + self.idle_usd


def split(used: Iterable[Used], held: Iterable[Held]) -> list[Line]:
    """One line for each span, tier and group, in that order. Rows of the same span, tier and group are summed."""
    users: dict[tuple[int, str], dict[str, list[float]]] = {}
    for use in used:
        if use.seconds > 0:
            sums = users.setdefault((use.at, use.tier), {}).setdefault(use.group, [0.0, 0.0])
            sums[0] += use.seconds
            sums[1] += use.usd
    machines: dict[tuple[int, str], list[float]] = {}
    for hold in held:
        sums = machines.setdefault((hold.at, hold.tier), [0.0, 0.0])
        sums[0] += hold.seconds
        sums[1] += hold.usd
    spans = sorted(users.keys() | machines.keys())
    return [line for span in spans for line in shared(span, users.get(span, {}), *machines.get(span, (0.0, 0.0)))]


def shared(span: tuple[int, str], users: Mapping[str, list[float]], seconds: float, usd: float) -> Iterator[Line]:
    """The lines of one tier in one span. users: group -> accelerator-seconds and their USD."""
    busy = fsum(sums[0] for sums in users.values())
    if not users:
        if seconds > 0:
            yield Line(*span, NOBODY, idle_s=seconds, idle_usd=usd)
        return
    price = usd / seconds if seconds > 0 else fsum(sums[1] for sums in users.values()) / busy
    idle = max(0.0, seconds - busy)
    for group, (mine, _) in sorted(users.items()):
        borne = idle * (mine / busy)
        yield Line(*span, group, mine, borne, mine * price, borne * price)
    if busy > seconds:
        yield Line(*span, OVER, seconds - busy, 0.0, usd - busy * price, 0.0)
