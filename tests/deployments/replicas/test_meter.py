"""What a replica reads off its engine's answers, as vLLM words them."""

import json

import pytest

from deployments.replicas.meter import ReplicaMeter, cached_of, usage_of

USAGE = {"prompt_tokens": 20, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 16}}
DONE = "data: [DONE]\n\n"


def chunk(content: str | None) -> str:
    delta = {"role": "assistant", "content": ""} if content is None else {"content": content}
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}) + "\n\n"


LAST = "data: " + json.dumps({"choices": [], "usage": USAGE}).replace(" ", "") + "\n\n"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def replica() -> ReplicaMeter:
    return ReplicaMeter("r", Clock())


def streamed(metered, *items: str) -> dict:
    for item in items:
        metered.item(item)
        metered.replica.clock.now += 1
    return json.loads(metered.last())


def test_a_stream_tells_tokens_as_they_come_and_usage_at_its_end():
    of = replica()
    metered = of.start("t/1", "{}")
    told = streamed(metered, chunk(None), chunk("a"), chunk('"usage"'), chunk("c"), LAST, DONE)
    assert told["busy_s"] == 6 and told["cached_tokens"] == 16 and told["replica"] == "r"
    assert of.meter.busy_s == 6 and told["late"] == {}


def test_tokens_are_counted_once_each_though_the_first_comes_in_two_pieces():
    of = replica()
    metered = of.start("t/1", "{}")
    for item in (chunk(None), chunk("a"), chunk("b"), chunk("c"), LAST, DONE):
        metered.item(item)
    assert of.meter.live[metered.name].fresh == 3


def test_a_document_tells_its_usage():
    of = replica()
    metered = of.start("t/1", "x" * 80)
    of.clock.now += 2
    told = json.loads(metered.last(USAGE))
    assert (told["busy_s"], told["cached_tokens"]) == (2, 16)
    assert of.tokens / of.size == pytest.approx((0.98 * 250 + 20) / (0.98 * 1000 + 80))


def test_calls_that_ran_together_and_one_that_was_cut_off_add_up():
    of = replica()
    first, second, third = (of.start(f"t/{n}", "{}") for n in "123")
    of.clock.now += 3
    first.cut_off()
    of.clock.now += 1
    told = json.loads(second.last(USAGE))
    third.cut_off()
    last = json.loads(of.start("t/4", "{}").last())
    assert list(told["late"]) == ["t/1"] and list(last["late"]) == ["t/3"]
    shares = told["busy_s"] + last["busy_s"] + sum(told["late"].values()) + sum(last["late"].values())
    assert shares == pytest.approx(of.meter.busy_s) and of.meter.busy_s == 4


def test_late_measurements_whose_carrier_is_cut_off_go_with_the_next():
    of = replica()
    left, carrier = of.start("t/left", "{}"), of.start("t/carrier", "{}")
    left.cut_off()
    carrier.last()
    carrier.cut_off()  # the client left before the last item was out
    told = json.loads(of.start("t/next", "{}").last())
    assert set(told["late"]) == {"t/left", "t/carrier"}


def test_a_call_that_nobody_named_is_metered_but_not_told_late():
    of = replica()
    of.start("", "{}").cut_off()
    assert not of.late and not of.meter.live


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr("deployments.replicas.meter.MOST_LATE", 3)
    of = replica()
    for n in range(5):
        of.start(f"t/{n}", "{}").cut_off()
    assert list(of.late) == ["t/2", "t/3", "t/4"]


@pytest.mark.parametrize("document", ["", "[DONE]", "[]", "null", '{"usage": null}', '{"usage": 3}', '{"error": {}}'])
def test_an_engine_that_does_not_tell_is_no_error(document):
    assert cached_of(usage_of(document)) == 0


@pytest.mark.parametrize("details", [None, 3, [], {}, {"cached_tokens": None}, {"cached_tokens": "many"}])
def test_odd_details_are_no_error(details):
    assert cached_of({"prompt_tokens_details": details}) == 0
