"""What `make bench-front` says at its end."""

from benchmarks.speed import WANTED, summary


def line(scenario: str, **figures) -> dict:
    return {"scenario": scenario, **figures}


def test_every_line_of_a_scenario_is_held_against_its_bounds():
    lines = [
        line("1 token", connections=1, added_p50_ms=1.5, throughput_ratio=0.94),
        line("1 token", connections=16, added_p50_ms=1.6, throughput_ratio=0.95),
        line("64 tokens streamed", at_once=1),
    ]
    told = summary(lines)
    assert [(t["figure"], t["connections"], t["held"]) for t in told["summary"]] == [
        ("added_p50_ms", 1, True),
        ("added_p50_ms", 16, False),
        ("throughput_ratio", 1, False),
        ("throughput_ratio", 16, True),
    ]
    assert (told["held"], told["of"]) == (2, 4)


def test_what_is_no_number_does_not_hold():
    told = summary([line("soak, slope", mb_per_1000_requests=float("nan"), failed=0)])
    assert [t["held"] for t in told["summary"]] == [False, True]


def test_figures_that_are_wanted_are_those_that_the_benchmarks_print():
    from benchmarks.front import compared
    from benchmarks.litellm import compared as beside
    from benchmarks.load import Load

    load = [Load(100.0, 2.0, 3.0, 4.0, 0)]
    shown = [compared("1 token", load, load, connections=1)]
    shown += [beside(1, {"direct": [Load(1e3, 0.1, 0.1, 0.1, 0)], "litellm": load, "stepdown": load})]
    for found in shown:
        assert all(wanted.figure in found for wanted in WANTED if wanted.scenario == found["scenario"])


def test_tokens_that_come_together_are_not_faster_to_the_last():
    from benchmarks.front import of_streams

    even, held_back = [[10.0, 20.0, 30.0, 40.0]], [[40.0, 40.0, 40.0, 40.0]]
    assert of_streams(even) == {"ttft": 10, "itl": 10, "last": 40}
    assert of_streams(held_back) == {"ttft": 40, "itl": 0, "last": 40}
