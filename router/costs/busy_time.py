"""Who used a replica's time: busy seconds, split among the calls that ran together by the work each of them did.

A replica is busy while at least one call is in flight. The time between two changes of the set of calls is divided among
them in proportion to their work in it, so the shares of all calls add up to the busy time whatever the work is taken for.

Work is counted in output tokens; an input token that had to be computed counts 1/ratio of one. Of a call that streams,
each token is seen when it comes. Of one that does not, tokens are known only at its end. Until then it is taken to go at
the pace of its neighbours: a batch makes one token for every running call at each step. The end sets right what can still
be: its last interval gets what the whole call did less what it was charged before.
"""

from dataclasses import dataclass, field

PRIOR_RATIO = 10.0  # input tokens that take as long as one output token, before anything is measured
LOWEST, HIGHEST = 1.0, 1000.0
PRIOR_PACE = 50.0  # output tokens a second of one call
FORGET = 0.98  # weight of what is known when a new call is measured: the last fifty count
PRIOR_CALLS = 4.0  # of ordinary length, that the prior of the ratio is worth


@dataclass(slots=True)
class Rates:
    """Seconds per input and per output token, by least squares over calls that ran alone. O(1) each."""

    pp: float = 0.0
    pn: float = 0.0
    nn: float = 0.0
    pt: float = 0.0
    nt: float = 0.0
    p: float = 0.0
    n: float = 0.0
    t: float = 0.0
    ratio: float = PRIOR_RATIO
    """seconds of an output token over seconds of an input token"""

    def saw(self, prompt_tokens: float, output_tokens: float, seconds: float) -> None:
        """A stretch in which one call alone had so many input tokens computed and made so many output tokens."""
        if seconds <= 0 or prompt_tokens + output_tokens <= 0:
            return
        new = (
            ("pp", prompt_tokens**2),
            ("pn", prompt_tokens * output_tokens),
            ("nn", output_tokens**2),
            ("pt", prompt_tokens * seconds),
            ("nt", output_tokens * seconds),
            ("p", prompt_tokens),
            ("n", output_tokens),
            ("t", seconds),
        )
        for name, value in new:
            setattr(self, name, FORGET * getattr(self, name) + value)
        self.ratio = self.fitted()

    def fitted(self) -> float:
        """The prior enters as calls of prompt only and of answer only, as long as this replica's speed makes them."""
        per_output = self.t / (self.p / PRIOR_RATIO + self.n)
        long = 10.0 * PRIOR_RATIO
        pp, pt = self.pp + PRIOR_CALLS * long**2, self.pt + PRIOR_CALLS * long * 10 * per_output
        nn, nt = self.nn + PRIOR_CALLS * 100, self.nt + PRIOR_CALLS * 10 * 10 * per_output
        det = pp * nn - self.pn**2
        given_s, made_s = (pt * nn - nt * self.pn) / det, (nt * pp - pt * self.pn) / det
        return min(HIGHEST, max(LOWEST, made_s / given_s if given_s > 0 else HIGHEST))


@dataclass(slots=True)
class Live:
    """A call in flight."""

    began: float
    prompt: float
    """input tokens not charged yet"""
    alone: bool
    """no other call was in flight since it began"""
    asked: float
    """input tokens as they were guessed at its begin"""
    first: float | None = None
    """when its first token was seen; None: it has not spoken, or does not stream"""
    tokens: int = 0
    """output tokens seen"""
    fresh: int = 0
    """those of them not charged yet"""
    charged: float = 0.0
    """work, in output tokens"""
    busy_s: float = 0.0


@dataclass(slots=True)
class Meter:
    """Of one replica. Times are seconds on a clock of one's own; one that goes back counts as standing still.

    `busy_s` is always the sum of what `end` returned and of `running()`, up to float. O(1) for each token, O(calls in flight)
    when a call comes or goes.
    """

    rates: Rates = field(default_factory=Rates)
    busy_s: float = 0.0
    live: dict[str, Live] = field(default_factory=dict)
    since: float = 0.0
    """until when time is divided"""
    made: float = PRIOR_PACE
    """output tokens, and in `took` the seconds, of calls that ended; older ones fade"""
    took: float = 1.0

    def start(self, call: str, t: float, prompt_tokens: float = 0.0) -> None:
        """prompt_tokens: as far as they are known or guessed. Raises ValueError for a call that is in flight."""
        if call in self.live:
            raise ValueError(f"call {call} is in flight already")
        t = self.until(t)
        if len(self.live) == 1:  # of several none is alone any more
            next(iter(self.live.values())).alone = False
        self.live[call] = Live(t, prompt_tokens, not self.live, prompt_tokens)

    def progress(self, call: str, t: float, tokens: int = 1) -> None:
        """Output tokens came. Raises KeyError for a call that is not in flight."""
        live = self.live[call]
        if live.first is None:
            live.first = max(t, self.since)
        live.tokens += tokens
        live.fresh += tokens

    def end(
        self, call: str, t: float, prompt_tokens: int | None = None, cached_tokens: int = 0, output_tokens: int | None = None
    ) -> float:
        """The call's busy seconds. Without counts (it was cancelled) what was seen stands. Raises KeyError."""
        live = self.live[call]
        computed = live.asked if prompt_tokens is None else max(0, prompt_tokens - cached_tokens)
        whole = None if output_tokens is None else computed / self.rates.ratio + output_tokens
        t = self.until(t, call, whole)
        del self.live[call]
        if output_tokens is not None:
            self.learn(live, t, computed, output_tokens)
        return live.busy_s

    def running(self, t: float) -> dict[str, float]:
        """Busy seconds until now of calls in flight."""
        self.until(t)
        return {call: live.busy_s for call, live in self.live.items()}

    # -- dividing ------------------------------------------------------------------------------------------------------

    @property
    def pace(self) -> float:
        """Output tokens a second of one call, among others as they come."""
        return self.made / self.took

    def until(self, t: float, ending: str = "", whole: float | None = None) -> float:
        """Divide the time up to t, or to where it is divided already; return that. whole: all work of the ending call."""
        seconds = t - self.since
        if seconds <= 0:
            return self.since
        self.since = t
        if self.live:
            self.busy_s += seconds
            work = self.work(seconds)
            if whole is not None:
                work[list(self.live).index(ending)] = max(0.0, whole - self.live[ending].charged)
            self.divide(seconds, work)
        return t

    def divide(self, seconds: float, work: list[float]) -> None:
        """Equally where no work was seen."""
        total = sum(work)
        equal = 1 / len(work)
        for live, done in zip(self.live.values(), work, strict=True):
            live.busy_s += seconds * (done / total if total > 0 else equal)
            live.charged += done
            live.fresh = 0

    def work(self, seconds: float) -> list[float]:
        """Of each call in the last `seconds`, in output tokens.

        The prompt first, as fast as it can be computed; the rest of the time goes to output at the batch's pace.
        """
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

    def learn(self, live: Live, t: float, computed: float, output_tokens: int) -> None:
        took = t - live.began
        prefill = min(took, computed / (self.rates.ratio * self.pace))
        if output_tokens and took > prefill:
            self.made = FORGET * self.made + output_tokens
            self.took = FORGET * self.took + took - prefill
        if not live.alone:
            return
        if live.first is None or output_tokens < 2:
            self.rates.saw(computed, output_tokens, took)
        else:
            self.rates.saw(computed, 1, live.first - live.began)
            self.rates.saw(0, output_tokens - 1, t - live.first)
