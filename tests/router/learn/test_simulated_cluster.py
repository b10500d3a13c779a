"""The queues of the cluster simulation against what is known of queues."""

import math

import numpy as np
import pytest

from benchmarks.simulated_cluster import Day, Kind, News, Pool, day, run

pytestmark = pytest.mark.slow

N = 30_000


def erlang_c(places: int, load: float) -> float:
    """Chance that a request waits: Poisson arrivals, exponential service, first come first served."""
    terms = [load**k / math.factorial(k) for k in range(places)]
    last = load**places / math.factorial(places) * places / (places - load)
    return last / (sum(terms) + last)


def served(places, replicas, per_s, mean_s=1.0, kinds=1, n=N, seed=0):
    """A run with as many prompts as requests, so that every service time is drawn anew."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(1 / per_s, n))
    seconds = int(at[-1]) + 1
    pools = [Pool(Kind("k", 1, places, 1.0, 1.0), replicas, seconds) for _ in range(kinds)]
    service = np.repeat(rng.exponential(mean_s, n)[:, None], kinds, axis=1)
    ran = run(Day(at, np.arange(n), seconds), pools, service, lambda prompt, now, second: prompt % kinds, seed)
    return ran, pools


@pytest.mark.parametrize("places, per_s", [(1, 0.7), (4, 3.0), (16, 12.0)])
def test_one_replica_waits_as_erlang_says(places, per_s):
    ran, _ = served(places, 1, per_s)
    waits = erlang_c(places, per_s)
    assert (ran.wait_s > 0).mean() == pytest.approx(waits, rel=0.15)
    assert ran.wait_s.mean() == pytest.approx(waits / (places - per_s), rel=0.3)


def test_two_replicas_looked_at_wait_far_less_than_one_drawn_blindly():
    ran, _ = served(1, 10, 8.0)
    assert ran.wait_s.mean() < 0.6 * 0.8 / 0.2 and ran.wait_s.mean() > erlang_c(10, 8.0) / 2


@pytest.mark.slow
def test_every_request_comes_begins_and_ends_once_and_news_are_sums_of_that():
    ran, pools = served(4, 3, 9.0, kinds=2, n=5_000)
    for k, pool in enumerate(pools):
        sent = int((ran.tier == k).sum())
        assert sum(pool.came) == sum(pool.began) == sum(pool.ended) == sent
    news = News(pools)
    for second in range(2, 200):
        for load in news.at(second):
            assert load.waiting >= 0 and 0 <= load.running <= load.capacity and load.at_s == second
    assert news.at(200)[0].rate == pytest.approx(12.0, rel=0.25)  # twelve places, a second each


def test_a_day_has_its_peak_in_the_middle_and_all_tasks():
    made = day(np.array(["a"] * 10 + ["b"] * 5), 1_000, 40)
    assert (np.diff(made.at_s) >= 0).all()
    by_second = np.bincount(made.at_s.astype(int), minlength=40)
    assert by_second[20] > 3 * by_second[0] and by_second.max() < 1_200
    assert set(made.prompt) == set(range(15))
