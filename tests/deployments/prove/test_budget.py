"""Money: a run never spends more than it may, counts what earlier runs spent, and waits before it refuses."""

import asyncio

import pytest

from deployments.prove.budget import Purse, estimate, most_usd, price_of
from deployments.prove.inputs import check_usd
from router.errors import BadInput

CHAT = [{"role": "user", "content": "x" * 292}]


def test_what_is_held_and_spent_never_exceeds_the_budget(tmp_path):
    async def work(purse):
        async def call():
            if await purse.hold(1.0):
                await asyncio.sleep(0)
                await purse.settle(1.0, 0.3, "labels")

        await asyncio.gather(*(call() for _ in range(50)))

    purse = Purse(4.0, tmp_path / "spent")
    asyncio.run(work(purse))
    assert 3.0 <= purse.spent <= 4.0 and purse.refused > 0


def test_an_earlier_runs_spending_counts_and_a_cut_line_does_not(tmp_path):
    async def spend(purse):
        assert await purse.hold(1.0)
        await purse.settle(1.0, 1.0, "labels")

    asyncio.run(spend(Purse(2.0, tmp_path / "spent")))
    with (tmp_path / "spent").open("a") as file:
        file.write('{"what": "lab')
    again = Purse(2.0, tmp_path / "spent")
    assert again.by_what == {"labels": 1.0} and again.fits(1.0) and not again.fits(1.01)


def test_what_is_kept_back_for_later_is_not_spent_now(tmp_path):
    purse = Purse(2.0, tmp_path / "spent")
    purse.reserved = 1.5
    assert purse.fits(0.5) and not purse.fits(0.6)
    assert Purse(None, tmp_path / "spent").fits(1e9)


def test_the_estimate_lies_between_reading_alone_and_the_most():
    usual, most = estimate([CHAT], 100, [(1.0, 2.0), (10.0, 20.0)])
    assert most == pytest.approx(most_usd(CHAT, 100, (1.0, 2.0)) + most_usd(CHAT, 100, (10.0, 20.0)))
    assert most_usd(CHAT, 0, (1.0, 2.0)) < usual < most


def test_a_reply_is_priced_by_its_tokens():
    assert price_of({"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 500_000}}, (1.0, 2.0)) == 2.0
    assert price_of({"usage": None}, (1.0, 2.0)) == 0.0


def test_a_budget_that_pays_for_nothing_is_refused():
    with pytest.raises(BadInput, match=r"--usd 0.01: 80 prompts are expected to cost 0.05 USD; allow 0.05 or more"):
        check_usd(0.01, 0.05)
    check_usd(None, 0.05)
