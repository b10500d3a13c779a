import pytest

from router.traffic.retries import MOST, SHARE, WAIT_S, Retries


def test_what_is_saved_up_is_bounded_and_what_is_spent_comes_back_slowly():
    retries = Retries(lambda: 0.0)
    for _ in range(1_000):
        retries.asked()
    assert [retries.may() for _ in range(int(MOST) + 1)] == [True] * int(MOST) + [False]
    for _ in range(round(1 / SHARE)):
        assert not retries.may()
        retries.asked()
    retries.asked()  # sums of tenths are a little short
    assert retries.may() and not retries.may()


@pytest.mark.parametrize("drawn, wait_s", [(0.0, 0.0), (0.5, WAIT_S), (0.999, 2 * WAIT_S)])
def test_the_wait_is_spread_around_its_mean(drawn, wait_s):
    assert Retries(lambda: drawn).wait_s() == pytest.approx(wait_s, rel=0.01)
