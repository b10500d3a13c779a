"""What lies in the exchange stays within its bytes and its time; how many ingresses there are follows from the machine."""

import pytest

from deployments.endpoint.ingresses.how_many import ingresses, told
from deployments.endpoint.ingresses.shelf import Shelf
from router.config import Config

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}


def config(replicas=None, url=None) -> Config:
    tier = {"name": "small", "engine": "echo", "context": 100, "price": PRICE}
    return Config.model_validate({"tiers": [tier], "server": {"replicas": replicas}, "ledger": {"url": url}})


def test_the_longest_unused_text_goes_first_and_all_go_in_time():
    now = [0.0]
    shelf = Shelf(10, 100.0, lambda: now[0])
    shelf.put("a", b"1234")
    shelf.put("b", b"1234")
    assert shelf.get("a") == b"1234"
    shelf.put("c", b"1234")
    assert (shelf.get("b"), shelf.get("a"), shelf.get("c"), shelf.bytes) == (None, b"1234", b"1234", 8)
    shelf.put("a", b"12")
    assert shelf.bytes == 6
    shelf.drop("a")
    shelf.drop("a")
    assert shelf.bytes == 4
    now[0] = 101.0
    assert shelf.get("c") is None and shelf.bytes == 0


def test_a_text_larger_than_the_shelf_is_not_kept():
    shelf = Shelf(3)
    shelf.put("a", b"1234")
    assert shelf.get("a") is None and shelf.bytes == 0


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (7, 1), (8, 2), (12, 3), (16, 4), (128, 4)])
def test_a_quarter_of_the_cores_and_at_most_four(cores, count):
    assert ingresses(config(), cores, machines=1) == count


def test_a_ledger_that_is_a_file_has_one_ingress_on_several_machines():
    assert ingresses(config(), 64, machines=3) == 1
    assert ingresses(config(url="postgresql+psycopg://me@host/ledger"), 64, machines=3) == 4


def test_the_configuration_has_the_last_word_and_the_start_says_why():
    assert ingresses(config(7), 2, machines=3) == 7
    assert told(config(7), 7) == "7   (server.replicas)"
    assert "one for each four cores" in told(config(), 2)
