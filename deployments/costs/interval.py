"""Intervals of a report. Sums are kept by the hour, so every interval is rounded outward to whole hours, UTC."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from router.costs.machine_time import DAY_S, HOUR_S
from router.errors import BadRequest

FINE_S = 2 * DAY_S  # longest interval that is reported by the hour; longer ones are by the day
DEFAULT_S = 7 * DAY_S
SPAN = re.compile(r"^(\d{1,6})\s*([hdw])$")
DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
LENGTHS = {"h": HOUR_S, "d": DAY_S, "w": 7 * DAY_S}
LATEST_S = 4_102_444_800.0  # the year 2100; later times are in milliseconds, or a mistake


@dataclass(frozen=True, slots=True)
class Interval:
    """Unix times of whole hours, `until` exclusive. asked: the interval before it was rounded."""

    since: int
    until: int
    asked: tuple[float, float]

    @property
    def rounded(self) -> bool:
        return self.asked != (self.since, self.until)

    @property
    def step_s(self) -> int:
        return HOUR_S if self.until - self.since <= FINE_S else DAY_S


def interval(since: float, until: float) -> Interval:
    """The interval rounded outward. Raises BadRequest where it ends before it begins."""
    if not 0 <= since < until <= LATEST_S:
        raise BadRequest(f"the interval begins at {utc_text(since)} and ends at {utc_text(until)}; it must end after it begins")
    return Interval(int(since // HOUR_S) * HOUR_S, -int(-until // HOUR_S) * HOUR_S, (since, until))


def asked_for(since: str | None, until: str | None, now: float | None = None) -> Interval:
    """Read what people write: `7d`, `24h`, `2w` (before the end), `2026-11-24`, `2026-11-24T13:00`, Unix seconds.

    A bare date as `until` includes that day. The default is the last seven days. Raises BadRequest.
    """
    end = time.time() if now is None else now
    if until:
        end = moment(until, "until") + (DAY_S if DATE.match(until.strip()) else 0)
    span = SPAN.match(since.strip()) if since else None
    if span:
        return interval(max(0.0, end - int(span[1]) * LENGTHS[span[2]]), end)
    return interval(moment(since, "since") if since else max(0.0, end - DEFAULT_S), end)


def moment(text: str, name: str) -> float:
    """Unix time; a time without a zone is UTC. Raises BadRequest."""
    try:
        if re.fullmatch(r"\d{5,}(\.\d+)?", text.strip()):
            return float(text)
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        forms = "7d or 24h" if name == "since" else "a time"
        raise BadRequest(f"`{name}` is {text[:40]!r}; write {forms}, 2026-11-24, or 2026-11-24T13:00", name) from None


def utc_text(at_s: float) -> str:
    """`2026-11-24T13:00:00Z`, or the number where it is not a time."""
    try:
        return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"{at_s:g}"
