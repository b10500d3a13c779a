"""Money is set aside before it is spent; estimates follow what was seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.delegate.memory import PRIORS, Memory
from router.limits.delegation_budget import Budget, Rung, rung_of
from router.types import Usage

RUNG = Rung("large", 100, 1.0, 4.0, lambda text: len(text.split()))


MOVES = st.tuples(st.sampled_from(["reserve", "commit", "forfeit", "refund"]), st.integers(0, 9), st.floats(0, 5))


@given(st.lists(MOVES, max_size=60))
def test_what_is_spent_and_promised_never_exceeds_the_limit(moves):
    budget, worst = Budget(10.0, 12), {}
    for move, name, usd in moves:
        call = f"c{name}"
        if move == "reserve" and call not in budget.reserved:
            if budget.reserve(call, usd):
                worst[call] = usd
        elif move == "commit" and call in budget.reserved:
            budget.commit(call, min(usd, worst[call]))
        elif call in budget.reserved:
            budget.forfeit(call) if move == "forfeit" else budget.refund(call)
        assert budget.spent_usd + sum(budget.reserved.values()) <= 10.0 * (1 + 1e-6) and budget.calls <= 12


def test_a_call_costs_what_it_used_and_frees_the_rest():
    budget = Budget(10.0, 3)
    assert budget.reserve("a", 8.0) and not budget.reserve("b", 3.0)
    budget.commit("a", 2.0)
    assert budget.left_usd == 8.0 and budget.reserve("b", 3.0)
    budget.forfeit("b")
    assert budget.spent_usd == 5.0 and budget.hold("final", 5.0) and not budget.hold("more", 0.1)
    budget.refund("final")
    assert budget.left_usd == 5.0


def test_calls_are_kept_for_the_end():
    budget = Budget(10.0, 2)
    assert budget.reserve("a", 1.0, kept_calls=1) and not budget.reserve("b", 1.0, kept_calls=1) and budget.reserve("final", 1.0)


def test_a_rung_knows_its_prices_and_its_window():
    body = {"messages": [{"role": "user", "content": "a b c"}, {"role": "user", "content": [{"type": "text", "text": "d e"}]}]}
    assert RUNG.cost(10, 5) == 30.0 and RUNG.paid(Usage(1, 1)) == 5.0 and RUNG.input_tokens(body) == 5 + 2 * 8
    assert RUNG.fits(80, 20) and not RUNG.fits(80, 21)
    assert RUNG.fits(75, 90) and not RUNG.fits(76, 90), "of a long answer a quarter of the window is enough"
    assert rung_of([RUNG], "gone") is RUNG


def test_means_move_towards_what_is_seen_and_leave_the_rest():
    memory = Memory()
    for _ in range(200):
        memory.learn("numbered", {"part_tokens": 5.0, "merged": 0.0, "join": None})
    assert memory.means["numbered"].part_tokens == pytest.approx(5.0, abs=1.5) and memory.means["numbered"].merged < 0.01
    assert memory.means["numbered"].join == PRIORS["numbered"].join and memory.means["files"] == PRIORS["files"]


def test_a_refused_way_is_remembered_and_never_forgotten():
    memory = Memory()
    memory.refuse("large", 1)
    memory.refuse("large", 0)
    assert memory.refused == {"large": 2}
