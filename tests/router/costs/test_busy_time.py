"""The busy time of a replica is divided among its calls without rest, by the work that each did."""

import random
from dataclasses import dataclass
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.costs.busy_time import PRIOR_RATIO, Meter, TokenRates

NAMES = ["a", "b", "c", "d", "e"]
tokens = st.integers(0, 500)
events = st.lists(
    st.tuples(
        st.sampled_from(["start", "progress", "end", "cancel", "look"]),
        st.sampled_from(NAMES),
        st.sampled_from([0.0, 0.0, 1e-9, 0.01, 0.5, 30.0, -1.0]),
        st.tuples(tokens, tokens, tokens),
    ),
    max_size=120,
)


def happen(meter: Meter, kind: str, name: str, t: float, of: tuple[int, int, int]) -> float | None:
    """One event; the share of a call that ended."""
    if kind == "start":
        return meter.start(name, t, of[0])
    if kind == "progress":
        return meter.progress(name, t, of[1])
    if kind == "look":
        meter.running(t)
        return None
    return meter.end(name, t, *of) if kind == "end" else meter.end(name, t)


@pytest.mark.slow
@given(events)
def test_shares_of_ended_and_running_calls_add_up_to_the_busy_time(happened):
    """Busy time is measured beside it: the time in which somebody was in flight, on a clock that never goes back."""
    meter, ended, t, latest, busy = Meter(), [], 1000.0, 1000.0, 0.0
    meter.running(t)
    for kind, name, step, of in happened:
        t += step
        if kind == "look" or (kind == "start") != (name in meter.live):
            if kind != "progress":
                busy += max(0.0, t - latest) if meter.live else 0.0
                latest = max(latest, t)
            share = happen(meter, kind, name, t, of)
            ended += [share] if share is not None else []
    running = meter.running(latest)
    assert fsum([*ended, *running.values()]) == pytest.approx(meter.busy_s, rel=1e-9, abs=1e-9)
    assert meter.busy_s == pytest.approx(busy, rel=1e-9, abs=1e-6)
    assert all(share >= 0 for share in [*ended, *running.values()])


def test_a_call_alone_has_all_its_time():
    meter = Meter()
    meter.start("a", 5.0)
    assert meter.end("a", 7.5, 10, 0, 3) == pytest.approx(2.5)


def test_streams_share_by_the_tokens_they_made():
    meter = Meter()
    meter.start("a", 0.0)
    meter.start("b", 0.0)
    meter.progress("a", 5.0, 30)
    meter.progress("b", 5.0, 10)
    assert meter.end("a", 10.0) == pytest.approx(7.5)
    assert meter.end("b", 10.0) == pytest.approx(2.5)


def test_a_prompt_counts_a_tenth_of_its_tokens_until_rates_are_known():
    meter = Meter()
    meter.start("a", 0.0, 300)
    meter.start("b", 0.0, 0)
    meter.progress("a", 5.0, 10)
    meter.progress("b", 5.0, 10)
    assert meter.end("a", 10.0) == pytest.approx(8.0)


def test_a_prompt_in_the_prefix_cache_is_not_charged_again():
    def share(cached: int) -> float:
        meter = Meter()
        meter.start("a", 0.0, 300)
        meter.start("b", 0.0, 300)
        meter.progress("a", 9.0, 30)
        meter.progress("b", 9.0, 30)
        return meter.end("a", 10.0, 300, cached, 30)

    assert share(0) == pytest.approx(5.0)
    assert share(300) == pytest.approx(10 * 30 / (30 + 60))


def test_time_alone_is_not_shared_with_those_who_come_later():
    meter = Meter()
    meter.start("a", 0.0)
    meter.progress("a", 3.0, 100)
    meter.start("b", 4.0)
    meter.progress("a", 5.0, 10)
    meter.progress("b", 5.0, 10)
    meter.end("b", 6.0)
    assert meter.end("a", 6.0) == pytest.approx(5.0)


def test_a_silent_call_goes_at_the_pace_of_its_streaming_neighbour():
    meter = Meter()
    meter.start("talks", 0.0)
    meter.start("silent", 0.0)
    for i in range(10):
        meter.progress("talks", 0.1 * (i + 1))
    assert meter.end("talks", 1.0) == pytest.approx(0.5)


def test_a_silent_calls_end_sets_right_what_its_pace_got_wrong():
    """It is charged all its work in the interval that ends with it, not the pace it was taken to have."""
    meter = Meter()
    meter.start("silent", 0.0)
    meter.start("talks", 0.0)
    meter.progress("talks", 0.5, 10)
    assert meter.end("silent", 1.0, 0, 0, 90) == pytest.approx(0.9)


def test_long_silent_calls_pay_more_than_short_ones():
    """Sixteen callers, no streams: shares follow work on a batch that makes one token for each call at each step."""
    draw, meter, step = random.Random(4), Meter(), 0.01
    shares: dict[int, list[float]] = {10: [], 100: []}
    live: dict[str, list[int]] = {}
    for i in range(6000):
        t = i * step
        for name in [name for name, (left, _) in live.items() if left == 0]:
            size = live.pop(name)[1]
            shares[size].append(meter.end(name, t, 20, 0, size))
        while len(live) < 16:
            size = draw.choice([10, 100])
            name = f"{i}-{len(live)}-{draw.random()}"
            live[name] = [size, size]
            meter.start(name, t, 20)
        for name in live:
            live[name][0] -= 1
    mean = {size: fsum(found) / len(found) for size, found in shares.items()}
    truth = (100 + 20 / meter.rates.ratio) / (10 + 20 / meter.rates.ratio)
    assert mean[100] / mean[10] == pytest.approx(truth, rel=0.15)


@dataclass
class Turn:
    """A call in the simulated batch. true_s: its share of each step's time by the work it did in that step."""

    prompt: int
    output: int
    streams: bool
    to_read: int
    to_write: int
    true_s: float = 0.0

    def work(self, budget: int) -> tuple[float, int]:
        """In output tokens, and what of the batch's input budget it took. The step that reads the last makes a token."""
        taken = min(self.to_read, budget)
        self.to_read -= taken
        writes = self.to_read == 0 and (taken > 0 or self.to_write < self.output or self.prompt == 0)
        self.to_write -= writes
        return taken / PRIOR_RATIO + writes, taken


@pytest.mark.parametrize("streams, at_once, within", [(1.0, 16, 0.1), (0.5, 16, 0.12), (0.0, 16, 0.15), (0.0, 64, 0.25)])
def test_shares_are_close_to_those_of_each_step_of_a_continuous_batch(streams, at_once, within):
    """Mean distance over the mean share; an engine that reads prompts in chunks of 512, and answers of 5 to 200 tokens."""
    draw, meter, t = random.Random(1), Meter(), 0.0
    live: dict[str, Turn] = {}
    ended: list[tuple[float, float]] = []
    while len(ended) < 500:
        while len(live) < at_once and draw.random() < 0.7:
            prompt, output, name = draw.choice([20, 100, 800]), draw.choice([5, 40, 200]), str(draw.random())
            live[name] = Turn(prompt, output, draw.random() < streams, prompt, output)
            meter.start(name, t, prompt)
        budget, work, before = 512, {}, {name: turn.to_write for name, turn in live.items()}
        for name, turn in live.items():
            work[name], taken = turn.work(budget)
            budget -= taken
        seconds = 0.005 + 0.0005 * fsum(work.values())
        t += seconds
        for name in list(live):
            turn = live[name]
            turn.true_s += seconds * work[name] / (fsum(work.values()) or 1)
            if turn.streams and turn.to_write < before[name]:
                meter.progress(name, t)
            if turn.to_write == 0:
                ended.append((meter.end(name, t, turn.prompt, 0, turn.output), turn.true_s))
                del live[name]
    assert fsum(abs(got - true) for got, true in ended) / fsum(true for _, true in ended) < within


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ratio", [2.0, 10.0, 40.0])
def test_rates_are_learned_from_calls_that_ran_alone(stream, ratio):
    draw, meter, t, made_s = random.Random(7), Meter(), 0.0, 0.02
    for i in range(300):
        prompt, output = draw.randint(10, 2000), draw.randint(2, 100)
        meter.start(f"{i}", t, prompt)
        first = t + (prompt / ratio + 1) * made_s
        t = first + (output - 1) * made_s
        if stream:
            meter.progress(f"{i}", first)
            meter.progress(f"{i}", t, output - 1)
        meter.end(f"{i}", t, prompt, 0, output)
    assert meter.rates.ratio == pytest.approx(ratio, rel=0.1)


def test_calls_that_ran_together_teach_no_rates():
    meter = Meter()
    for i in range(50):
        meter.start(f"a{i}", i, 1000)
        meter.start(f"b{i}", i, 1000)
        meter.end(f"a{i}", i + 0.5, 1000, 0, 1)
        meter.end(f"b{i}", i + 0.5, 1000, 0, 1)
    assert meter.rates == TokenRates()
    assert meter.rates.ratio == PRIOR_RATIO


def test_what_cannot_be_is_refused():
    meter = Meter()
    meter.start("a", 0.0)
    with pytest.raises(ValueError, match="in flight already"):
        meter.start("a", 1.0)
    with pytest.raises(KeyError):
        meter.progress("b", 1.0)
    with pytest.raises(KeyError):
        meter.end("b", 1.0)
