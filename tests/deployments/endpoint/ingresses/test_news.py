"""News come once, in order, and only to those who do not know them; a board that fails holds nobody up."""

import asyncio

import pytest

from deployments.endpoint.ingresses.news import EVERY_S, MOST, REST_S, Fact, News, NewsBoard


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_an_ingress_hears_what_the_others_told_since_its_last_visit_and_not_its_own():
    board = NewsBoard()
    heard = board.visit("a", [Fact("session", "x", "small"), Fact("session", "y", "large")], "", 0)
    assert list(heard.facts) == []
    heard = board.visit("b", [Fact("session", "y", "small")], "", 0)
    assert list(heard.facts) == [Fact("session", "x", "small")], "it told of y itself, later"
    assert list(board.visit("b", [], heard.board, heard.number).facts) == []
    assert list(board.visit("a", [], board.name, 2).facts) == [Fact("session", "y", "small")]


def test_a_new_board_gives_all_that_it_knows_whatever_number_is_shown():
    board = NewsBoard()
    board.visit("a", [Fact("rest", "small", "7")], "", 0)
    assert list(board.visit("b", [], "another board", 99).facts) == [Fact("rest", "small", "7")]


def test_a_board_forgets_what_was_not_told_for_longest():
    board = NewsBoard(most=2)
    board.visit("a", [Fact("session", name, "small") for name in "xyz"], "", 0)
    board.visit("a", [Fact("session", "y", "large")], "", 0)
    assert [fact.key for fact in board.visit("b", [], "", 0).facts] == ["z", "y"]


def joined(visit, clock=None, hear=None) -> News:
    return News(visit, {"session": hear or (lambda key, value: None)}, clock or Clock())


@pytest.mark.parametrize("waiting", [1, 20])
def test_all_who_need_news_at_once_share_a_visit(waiting):
    clock, visits = Clock(), []
    board = NewsBoard()

    async def visit(*given):
        visits.append(given)
        await asyncio.sleep(0)
        return board.visit(*given)

    async def run():
        news = joined(visit, clock)
        await asyncio.gather(*(news.fresh() for _ in range(waiting)))
        clock.now_s += EVERY_S / 2
        await news.fresh()
        assert len(visits) == 1, "what is known is young enough"
        clock.now_s += EVERY_S
        await news.fresh()
        assert len(visits) == 2

    asyncio.run(run())


def test_a_board_that_is_slow_is_asked_twice_at_most():
    clock, visits = Clock(), []
    board = NewsBoard()

    async def visit(*given):
        visits.append(given)
        clock.now_s += 10 * EVERY_S
        await asyncio.sleep(0)
        return board.visit(*given)

    asyncio.run(joined(visit, clock).fresh())
    assert len(visits) == 1


def test_what_could_not_be_told_is_told_later_unless_it_has_changed_and_nobody_waits_for_a_dead_board():
    clock, told, alive = Clock(), [], []
    board = NewsBoard()

    async def visit(ingress, facts, name, number):
        told.append(list(facts))
        if not alive:
            raise ConnectionError
        return board.visit(ingress, facts, name, number)

    async def run():
        news = joined(visit, clock)
        news.tell("session", "x", "small")
        news.tell("session", "y", "small")
        await news.fresh()
        news.tell("session", "x", "large")
        await news.fresh()
        assert len(told) == 1, "for a moment it is not tried again"
        clock.now_s += REST_S + 1
        alive.append(True)
        await news.fresh()
        assert sorted(told[-1]) == [Fact("session", "x", "large"), Fact("session", "y", "small")]
        assert news.untold == {}

    asyncio.run(run())


def test_a_board_that_stays_away_fills_no_memory():
    clock = Clock()

    async def visit(*given):
        raise ConnectionError

    async def run():
        news = joined(visit, clock)
        for n in range(MOST + 50):
            news.tell("session", str(n), "small")
        await news.visited()
        assert len(news.untold) == MOST and ("session", "0") not in news.untold

    asyncio.run(run())


def test_a_kind_that_this_ingress_does_not_know_is_passed_over():
    board, heard = NewsBoard(), []
    board.visit("a", [Fact("novel", "x", "1"), Fact("session", "y", "small")], "", 0)

    async def visit(*given):
        return board.visit(*given)

    asyncio.run(joined(visit, hear=lambda *fact: heard.append(fact)).visited())
    assert heard == [("y", "small")]
