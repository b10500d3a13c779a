"""A stop first tells every ingress; it waits only where somebody asks whether this server is ready."""

import threading
import time
from types import SimpleNamespace

import pytest
from ray import serve

from deployments import APP
from deployments.serve.farewell import say_goodbye
from router.config import Server

pytestmark = pytest.mark.slow


class Ingresses:
    """asked_s: what each says."""

    def __init__(self, *asked_s: float | Exception) -> None:
        self.asked_s, self.told = asked_s, []

    def broadcast(self, method, *args):
        self.told.append((method, *args))
        return SimpleNamespace(results=self.results)

    def results(self, timeout_s):
        assert timeout_s < 10
        for said in self.asked_s:
            if isinstance(said, Exception):
                raise said
        return list(self.asked_s)


@pytest.fixture
def stopped(monkeypatch, capsys):
    """Stops a server whose ingresses say these; returns (seconds, what was told, what was printed)."""

    def stop(*asked_s, hurried=False, **server):
        made, hurry = Ingresses(*asked_s), threading.Event()
        monkeypatch.setattr(serve, "get_deployment_handle", lambda name, app: made if (name, app) == ("ingress", APP) else None)
        if hurried:
            hurry.set()
        began = time.monotonic()
        say_goodbye(Server(**server), hurry)
        return time.monotonic() - began, made.told, capsys.readouterr().out

    return stop


def test_where_a_load_balancer_asks_new_requests_are_taken_for_a_while(stopped):
    took_s, told, said = stopped(float("inf"), 9.0, drain_delay_s=0.2)
    assert 0.2 <= took_s < 1 and told == [("asked_s",), ("drain", 0.2)] and "taken for 0.2 s more" in said


@pytest.mark.parametrize("asked_s", [(), (float("inf"), 31.0)])
def test_where_nobody_asks_it_takes_no_longer(stopped, asked_s):
    took_s, told, said = stopped(*asked_s, drain_delay_s=5)
    assert took_s < 0.1 and told[-1] == ("drain", 0.0) and said == "stopping: running answers have 30 s to end ...\n"


def test_ingresses_that_do_not_answer_hold_nobody_up(stopped):
    assert stopped(RuntimeError("no controller"), drain_delay_s=5)[0] < 0.1


def test_a_second_signal_ends_the_waiting(stopped):
    assert stopped(1.0, hurried=True, drain_delay_s=5)[0] < 0.1


def test_no_delay_is_none(stopped):
    took_s, told, _ = stopped(1.0, drain_delay_s=0)
    assert took_s < 0.1 and told[-1] == ("drain", 0)
