"""When a run begins, and why not."""

import pytest

from router.config import Flywheel
from router.flywheel.due import Known, LastRun, due

SETTINGS = Flywheel()
DAY_S = 86_400.0


def last(stage="done", began_s=0.0, pairs=400, fresh=0):
    return LastRun("run-1", stage, began_s, pairs, fresh)


def test_it_waits_for_enough_requests():
    found = due(Known(399, artefact=False), SETTINGS, 0.0, asked="me")
    assert not found.begin and found.why == "399 of 400 graded requests that a run needs"


def test_a_strict_promise_needs_more_requests_than_the_least():
    assert not due(Known(400, artefact=False), Flywheel(alpha=0.01), 0.0).begin


@pytest.mark.parametrize("known", [Known(400, False), Known(400, True, "7 of 9 differed")])
def test_it_begins_where_no_router_keeps_a_promise(known):
    assert due(known, SETTINGS, 0.0).begin


def test_a_router_that_keeps_its_promise_stays():
    assert not due(Known(400, True), SETTINGS, 0.0).begin
    assert not due(Known(400, True), SETTINGS, 0.0, every_s=None).begin
    assert due(Known(400, True), SETTINGS, 0.0, asked="me").begin


@pytest.mark.parametrize("stage", ["refused", "undecided", "rolled back", "failed"])
def test_after_a_failure_it_waits_for_a_quarter_more(stage):
    assert "1 more graded requests" in due(Known(499, False, last=last(stage, fresh=99)), SETTINGS, 0.0).why
    assert due(Known(500, False, last=last(stage, fresh=100)), SETTINGS, 0.0).begin
    assert due(Known(400, False, last=last(stage)), SETTINGS, 0.0, asked="me").begin


def test_every_so_often_it_begins_where_enough_is_new():
    known = Known(500, True, last=last(fresh=100))
    assert not due(known, SETTINGS, 6 * DAY_S, every_s=7 * DAY_S).begin
    assert due(known, SETTINGS, 7 * DAY_S, every_s=7 * DAY_S).why == "due, every 7 days"
    assert "only 99" in due(Known(500, True, last=last(fresh=99)), SETTINGS, 7 * DAY_S, every_s=7 * DAY_S).why
