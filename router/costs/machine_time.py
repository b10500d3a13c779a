"""Whose was the machine's time: what calls used, what nobody used and who bears it, so that it adds up to what was held.

The rules, for each tier and each span (an hour: the ledger keeps sums by the hour):

- busy: a call's share of its replica's busy time x accelerators of a replica, at the span's mean price.
- idle: held less busy, borne by those who used the tier in that span, in proportion to their busy time. A span belongs to its
  users whatever interval is asked about, so the figures of two intervals side by side add up.
- NOBODY bears a span in which no call of the tier was measured.
- OVER takes back what was measured beyond what was held: busy time at the edge of a span that is booked wholly to it,
  replicas that came and went between two samples. Its seconds and USD are at most 0, and shown.

So over all groups, NOBODY and OVER included, busy + idle is exactly what was held, in seconds and in USD.

Calls that nobody measured (`busy_s` None) have no busy time: theirs is within idle, and their number is told. Of a call that
crosses the edge of the interval only the part inside counts, as if it had been equally busy all along; the rest is told as
`outside_s`. Sums by the hour cannot be cut: there a call belongs whole to the hour in which it began.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import Self

from router.trace import CallRow, Window

NOBODY, OVER = "", "(beyond what was held)"
HOUR_S, DAY_S = 3600, 86400


@dataclass(frozen=True, slots=True)
class Used:
    """Accelerator-seconds (busy_s x accelerators of a replica) of one group of calls: a key, a request, a role."""

    at: int
    """begin of the span, Unix time"""
    tier: str
    group: str
    seconds: float
    usd: float = 0.0
    """as the calls were priced; needed only where nothing was held and so no price is known"""


@dataclass(frozen=True, slots=True)
class Held:
    """Accelerator-seconds that a tier held."""

    at: int
    tier: str
    seconds: float
    usd: float = 0.0
    """0 where the tier has no price by the hour"""


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

    def __add__(self, other: Self) -> "Line":
        """Keeps its own names."""
        return Line(
            self.at,
            self.tier,
            self.group,
            self.busy_s + other.busy_s,
            self.idle_s + other.idle_s,
            self.busy_usd + other.busy_usd,
            self.idle_usd + other.idle_usd,
        )


def split(used: Iterable[Used], held: Iterable[Held]) -> list[Line]:
    """One line for each span, tier and group, in that order. Several rows of the same are added up."""
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
        bears = idle * (mine / busy)
        yield Line(*span, group, mine, bears, mine * price, bears * price)
    if busy > seconds:
        yield Line(*span, OVER, seconds - busy, 0.0, usd - busy * price, 0.0)


def added(lines: Iterable[Line], by: Callable[[Line], str]) -> dict[str, Line]:
    """Sums by whatever `by` makes of a line; `at`, tier and group of a sum are those of its first line."""
    found: dict[str, Line] = {}
    for line in lines:
        name = by(line)
        found[name] = found[name] + line if name in found else line
    return found


# -- from single calls and windows -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Books:
    """Of one interval. unmeasured: calls in it that no replica measured. outside_s: accelerator-seconds beyond its edges."""

    lines: list[Line] = field(default_factory=list)
    unmeasured: int = 0
    outside_s: float = 0.0

    @property
    def held_s(self) -> float:
        return fsum(line.seconds for line in self.lines)

    @property
    def held_usd(self) -> float:
        return fsum(line.usd for line in self.lines)

    def off(self) -> float:
        """Share of what was held that calls are said to have used beyond it; above 0.01 something is measured wrongly."""
        over = fsum(-line.seconds for line in self.lines if line.group == OVER)
        return over / self.held_s if self.held_s > 0 else float(over > 0)


def of_calls(
    calls: Iterable[CallRow],
    windows: Iterable[Window],
    since: float,
    until: float,
    accelerators: Mapping[str, int],
    group: Callable[[CallRow], str] = lambda call: call.key_id,
    span_s: int = HOUR_S,
) -> Books:
    """The books of [since, until), exact to the edges.

    accelerators: of one replica of each tier, at least 1. group: key, request or role, never NOBODY or OVER. span_s: the
    time whose idle is spread over its users; smaller spans give more to NOBODY.
    """
    books, used = Books(), list[Used]()
    for call in calls:
        ended = call.began_s + call.took_s
        if ended < since or call.began_s >= until:
            continue
        if call.busy_s is None:
            books.unmeasured += 1
            continue
        seconds = call.busy_s * max(1, accelerators.get(call.tier, 1))
        inside = 0.0
        for at, share in spread(call.began_s, ended, since, until, span_s):
            inside += share
            used.append(Used(at, call.tier, group(call), seconds * share, (call.gpu_usd or 0.0) * share))
        books.outside_s += seconds * max(0.0, 1 - inside)
    books.lines = split(used, (part for window in windows for part in parts(window, since, until, span_s)))
    return books


def parts(window: Window, since: float, until: float, span_s: int) -> Iterator[Held]:
    """What of a window lies in the interval, by span."""
    for at, share in spread(window.began_s, window.began_s + window.seconds, since, until, span_s):
        seconds = window.accelerator_s * share
        yield Held(at, window.tier, seconds, seconds * (window.usd_per_accelerator_hour or 0.0) / 3600)


def spread(began: float, ended: float, since: float, until: float, span_s: int) -> Iterator[tuple[int, float]]:
    """Begin of each span that it touches within the interval, and its share of the whole, in [0, 1]."""
    if ended <= began:
        if since <= began < until:
            yield int(began // span_s) * span_s, 1.0
        return
    first, last = max(began, since), min(ended, until)
    at = int(first // span_s) * span_s
    while at < last:
        share = (min(last, at + span_s) - max(first, at)) / (ended - began)
        if share > 0:
            yield at, share
        at += span_s
