"""A circuit breaker for each tier, and the tiers that answer in place of one that cannot.

A closed circuit lets requests pass. After `failures` in a row it opens: no request is sent for `rest_s`, twice as long each
time it opens again, up to `most_rest_s`. Then one trial request is sent, whose result closes or reopens the circuit.

Streams that broke off after their first byte are counted apart, since each of them had begun well: as many in a row, without
one that came to its end, open the circuit too. And a tier that asks to be left alone for a while gets no request meanwhile,
whatever its circuit.

Tiers that share replicas share a circuit too: they fall together, and one that works shows that the others can.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

FAILURES = 3  # failures in a row that open a circuit; retries handle single ones
REST_S = 2.0
MOST_REST_S = 60.0
JITTER = 0.2  # share by which a rest is lengthened at random: processes that saw the same fault must not all try at once
TRIAL_S = 30.0  # a trial without a result for so long counts as failed


@dataclass(slots=True)
class Circuit:
    """The state of one tier's circuit. Times are seconds of the breaker's clock."""

    failed: int = 0
    """failures in a row"""
    opened: int = 0
    """times that it opened without a success between"""
    until_s: float = 0.0
    """open until then"""
    trial_s: float | None = None
    """when the trial request was sent; None: no trial is under way"""


@dataclass(slots=True)
class Breaker:
    """clock: monotonic seconds. chance: returns a random number in [0, 1), for the jitter."""

    clock: Callable[[], float]
    chance: Callable[[], float]
    failures: int = FAILURES
    rest_s: float = REST_S
    most_rest_s: float = MOST_REST_S
    circuits: dict[str, Circuit] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    """streams that broke off, in a row"""
    backing_off: dict[str, float] = field(default_factory=dict)
    """until when a tier asked to be left alone"""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """tier -> the tier whose replicas answer for it; one that is missing has its own"""

    def host(self, tier: str) -> str:
        return self.hosts.get(tier, tier)

    def worked(self, tier: str) -> None:
        """The tier began an answer: close its circuit."""
        self.circuits.pop(self.host(tier), None)

    def failed(self, tier: str) -> None:
        """The tier had no replica, or failed before the first token."""
        circuit = self.circuits.setdefault(self.host(tier), Circuit())
        circuit.failed += 1
        tried, circuit.trial_s = circuit.trial_s is not None, None
        if tried or circuit.failed == self.failures or (circuit.opened and self.clock() >= circuit.until_s):
            rest = min(self.most_rest_s, self.rest_s * 2**circuit.opened)
            circuit.until_s = self.clock() + rest * (1 + JITTER * self.chance())
            circuit.opened += 1

    def ended(self, tier: str) -> None:
        """A stream of the tier came to its end."""
        self.broken.pop(self.host(tier), None)

    def broke(self, tier: str) -> None:
        """A stream of the tier broke off after its first byte. Those that break together with the one that opens count once."""
        if self.left_s(tier):
            return
        host = self.host(tier)
        self.broken[host] = count = self.broken.get(host, 0) + 1
        if count >= self.failures:
            rest = min(self.most_rest_s, self.rest_s * 2 ** min(count - self.failures, 10))
            circuit = self.circuits.setdefault(self.host(tier), Circuit())
            circuit.until_s = self.clock() + rest * (1 + JITTER * self.chance())
            circuit.opened = max(1, circuit.opened)

    def back_off(self, tier: str, seconds: float) -> None:
        """The tier asked to be left alone for so long."""
        host = self.host(tier)
        self.backing_off[host] = max(self.backing_off.get(host, 0.0), self.clock() + seconds)

    def back_off_s(self, tier: str) -> float:
        """Seconds for which the tier asked to be left alone; 0: it did not."""
        return max(0.0, self.backing_off.get(self.host(tier), 0.0) - self.clock())

    def open_s(self, tier: str) -> float:
        """Seconds for which its circuit lets nothing pass; 0: it does."""
        circuit = self.circuits.get(self.host(tier))
        if circuit is None or not circuit.opened:
            return 0.0
        now = self.clock()
        waits = circuit.trial_s + TRIAL_S - now if circuit.trial_s is not None else 0.0
        return max(0.0, circuit.until_s - now, waits)

    def left_s(self, tier: str) -> float:
        """Seconds for which no request should be sent there; 0: send."""
        return max(self.open_s(tier), self.back_off_s(tier))

    def sent(self, tier: str) -> None:
        """A request is sent there; on an open circuit whose rest is over, it is the trial."""
        circuit = self.circuits.get(self.host(tier))
        if circuit and circuit.opened:
            circuit.trial_s = self.clock()

    def down(self, tiers: Sequence[str]) -> dict[str, str]:
        """Those of the tiers that should get no request, each with the reason; none if that would be all of them."""
        resting = self.resting(tiers)
        return {} if len(resting) == len(tiers) else resting

    def resting(self, tiers: Sequence[str]) -> dict[str, str]:
        """The same, also where that is all of them."""
        left = {tier: left_s for tier in tiers if (left_s := self.left_s(tier))}
        return {tier: f"{self.why(tier)}, and is tried again in {left_s:.1f} s" for tier, left_s in left.items()}

    def why(self, tier: str) -> str:
        """Why no request should be sent there."""
        return "it failed several times in a row" if self.open_s(tier) else "it is full"


def instead(names: Sequence[str], tier: str, closed: Mapping[str, str], how: str) -> list[str]:
    """The tiers to try for a request that `tier` could not answer: the next larger ones, then the next smaller ones.

    names: cheapest first. closed: tiers that may not be asked. how: `routing.when_down`.
    """
    at = names.index(tier)
    larger, smaller = names[at + 1 :], names[:at][::-1]
    allowed = {"none": [], "larger": larger, "any": [*larger, *smaller]}[how]
    return [name for name in allowed if name not in closed]
