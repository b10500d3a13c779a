"""Splits a replica's busy seconds among the calls that ran together, in proportion to the work each of them did.

A replica is busy while at least one call is in flight. The time between two changes of the set of calls is divided among
those calls, so the shares of all calls add up to the busy time, however their work is estimated.

Work is counted in output tokens; an input token that had to be computed counts 1/ratio of one. A streaming call shows each
token as it comes. The tokens of any other call are known only at its end; until then the call is assumed to run at its
neighbours' pace, since a batch makes one token for every running call at each step. Its end corrects what can still be
corrected: its last interval is charged the whole call's work less what was charged before.
"""

from dataclasses import dataclass, field

PRIOR_RATIO = 10.0  # input tokens that take as long as one output token, before anything is measured
LOWEST_RATIO = 1.0
HIGHEST_RATIO = 1000.0
PRIOR_PACE = 50.0  # output tokens a second of one call
FORGET = 0.98  # weight of the past at each new measurement: about the last fifty calls count
PRIOR_CALLS = 4.0  # the prior of the ratio counts as many calls of ordinary length


@dataclass(slots=True)
class TokenRates:
    """Seconds per input and per output token, by least squares over calls that ran alone; O(1) for each call."""

    sums: list[float] = field(default_factory=lambda: [0.0] * 8)
    """over calls of p input tokens, n output tokens and t seconds: pp, pn, nn, pt, nt, p, n, t; old calls fade"""
    ratio: float = PRIOR_RATIO
    """seconds of an output token over seconds of an input token"""

    def add(self, p: float, n: float, t: float) -> None:
        """Learn from t seconds in which one call ran alone, had p input tokens computed and made n output tokens."""
        if t <= 0 or p + n <= 0:
            return
        new = (p**2, p * n, n**2, p * t, n * t, p, n, t)
        self.sums = [FORGET * old + value for old, value in zip(self.sums, new, strict=True)]
        self.ratio = self.fitted()

    def fitted(self) -> float:
        """The prior enters as calls with a prompt only and with an answer only, timed by this replica's mean speed."""
        pp, pn, nn, pt, nt, p, n, t = self.sums
        per_output = t / (p / PRIOR_RATIO + n)
        long = 10.0 * PRIOR_RATIO
        pp, pt = pp + PRIOR_CALLS * long**2, pt + PRIOR_CALLS * long * 10 * per_output
        nn, nt = nn + PRIOR_CALLS * 100, nt + PRIOR_CALLS * 10 * 10 * per_output
        det = pp * nn - pn**2
        input_s, output_s = (pt * nn - nt * pn) / det, (nt * pp - pt * pn) / det
        return min(HIGHEST_RATIO, max(LOWEST_RATIO, output_s / input_s if input_s > 0 else HIGHEST_RATIO))


@dataclass(slots=True)
class LiveCall:
    """A call in flight. Work is counted in output tokens."""

    began: float
    prompt: float
    """input tokens not charged yet"""
    alone: bool
    """no other call has been in flight since it began"""
    guessed: float
    """input tokens as guessed when it began"""
    first: float | None = None
    """when its first token was seen; None: none yet, or it does not stream"""
    fresh: int = 0
    """output tokens seen and not charged yet"""
    charged: float = 0.0
    """work charged so far"""
    busy_s: float = 0.0


@dataclass(slots=True)
class Meter:
    """Measures one replica. Times are seconds on any clock; a clock that goes back counts as standing still.

    `busy_s` is always the sum of what `end` returned and of `running()`, up to rounding. Takes O(1) for each token and
    O(calls in flight) when a call starts or ends.
    """

    rates: TokenRates = field(default_factory=TokenRates)
    busy_s: float = 0.0
    live: dict[str, LiveCall] = field(default_factory=dict)
    since: float = 0.0
    """time is divided among calls up to here"""
    made: float = PRIOR_PACE
    """output tokens of ended calls; older ones fade"""
    took: float = 1.0
    """seconds that the same calls took to make them"""

    def start(self, call: str, t: float, prompt_tokens: float = 0.0) -> None:
        """prompt_tokens: known or guessed. Raises ValueError for a call that is in flight."""
        if call in self.live:
            raise ValueError(f"call {call} is in flight already")
        t = self.advance(t)
        if len(self.live) == 1:  # with more calls than one in flight, none is marked alone
            next(iter(self.live.values())).alone = False
        self.live[call] = LiveCall(t, prompt_tokens, not self.live, prompt_tokens)

    def progress(self, call: str, t: float, tokens: int = 1) -> None:
        """Count output tokens. Raises KeyError for a call that is not in flight."""
        live = self.live[call]
        if live.first is None:
            live.first = max(t, self.since)
        live.fresh += tokens

    def end(
        self, call: str, t: float, prompt_tokens: int | None = None, cached_tokens: int = 0, output_tokens: int | None = None
    ) -> float:
        """Returns the call's busy seconds. A cancelled call has no counts and is charged what was seen. Raises KeyError."""
        live = self.live[call]
        computed = live.guessed if prompt_tokens is None else max(0, prompt_tokens - cached_tokens)
        whole = None if output_tokens is None else computed / self.rates.ratio + output_tokens
        t = self.advance(t, call, whole)
        del self.live[call]
        if output_tokens is not None:
            self.learn(live, t, computed, output_tokens)
        return live.busy_s

    def running(self, t: float) -> dict[str, float]:
        """Busy seconds so far of each call in flight."""
        self.advance(t)
        return {call: live.busy_s for call, live in self.live.items()}

    # -- dividing ------------------------------------------------------------------------------------------------------

    @property
    def pace(self) -> float:
        """Output tokens a second of one call in a batch of the usual size."""
        return self.made / self.took

    def advance(self, t: float, ending: str = "", whole: float | None = None) -> float:
        """Divide the time up to t, and return up to where it is divided now. whole: all work of the call that ends."""
        seconds = t - self.since
        if seconds <= 0:
            return self.since
        self.since = t
        if self.live:
            self.busy_s += seconds
            work = self.work_done(seconds)
            if whole is not None:
                work[list(self.live).index(ending)] = max(0.0, whole - self.live[ending].charged)
            self.divide(seconds, work)
        return t

    def divide(self, seconds: float, work: list[float]) -> None:
        """Charge the seconds in proportion to work, equally where no work was seen."""
        total = sum(work)
        equal = 1 / len(work)
        for live, done in zip(self.live.values(), work, strict=True):
            live.busy_s += seconds * (done / total if total > 0 else equal)
            live.charged += done
            live.fresh = 0

    def work_done(self, seconds: float) -> list[float]:
        """Work of each call in the last `seconds`: first its prompt, as fast as it can be computed, then output at the
        batch's pace."""
        seen = [live.fresh for live in self.live.values() if live.fresh]
        pace, ratio = self.pace, self.rates.ratio
        steps = sum(seen) / len(seen) if seen else seconds * pace
        at_most = seconds * pace * ratio
        found = []
        for live in self.live.values():
            done = float(live.fresh) if live.first is not None else steps
            if live.prompt:
                computed = live.prompt if live.first is not None else min(live.prompt, at_most)
                live.prompt -= computed
                done = computed / ratio + (done if live.first is not None else steps * (1 - computed / at_most))
            found.append(done)
        return found

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn(self, live: LiveCall, t: float, computed: float, output_tokens: int) -> None:
        took = t - live.began
        prefill = min(took, computed / (self.rates.ratio * self.pace))
        if output_tokens and took > prefill:
            self.made = FORGET * self.made + output_tokens
            self.took = FORGET * self.took + took - prefill
        if not live.alone:
            return
        if live.first is None or output_tokens < 2:
            self.rates.add(computed, output_tokens, took)
        else:
            self.rates.add(computed, 1, live.first - live.began)
            self.rates.add(0, output_tokens - 1, t - live.first)
