"""What `make bench-front` says at its end."""

from benchmarks.speed import WANTED
from benchmarks.streams import Run
from benchmarks.streams import compared as under_streams
from benchmarks.wanted import verdict


def line(scenario: str, **figures) -> dict:
    return {"scenario": scenario, **figures}


def test_every_line_of_a_scenario_is_held_against_its_bounds():
    lines = [
        line("1 token", connections=1, added_p50_ms=1.5, throughput_ratio=0.94),
        line("1 token", connections=16, added_p50_ms=1.6, throughput_ratio=0.95),
        line("64 tokens streamed", at_once=1),
    ]
    told = verdict(WANTED, lines)
    assert [(t["figure"], t["connections"], t["held"]) for t in told["summary"]] == [
        ("added_p50_ms", 1, True),
        ("added_p50_ms", 16, False),
        ("throughput_ratio", 1, False),
        ("throughput_ratio", 16, True),
    ]
    assert (told["held"], told["of"]) == (2, 4)


def test_what_is_no_number_does_not_hold():
    told = verdict(WANTED, [line("soak, slope", mb_per_1000_requests=float("nan"), failed=0)])
    assert [t["held"] for t in told["summary"]] == [False, True]


def test_figures_that_are_wanted_are_those_that_the_benchmarks_print():
    from benchmarks.front import compared
    from benchmarks.litellm import compared as beside
    from benchmarks.load import Load

    load = [Load(100.0, 2.0, 3.0, 4.0, 0)]
    shown = [compared("1 token", load, load, connections=1)]
    shown += [beside(1, {"direct": [Load(1e3, 0.1, 0.1, 0.1, 0)], "litellm": load, "stepdown": load})]
    figures = ("tokens", "tokens_per_s", "first_p50", "first_p99", "gap_p50", "gap_p99", "failed")
    runs = [Run(dict.fromkeys(figures, 2.0), {"ingress": 0.1}), Run(dict.fromkeys(figures, 4.0), {"ingress": 0.2})]
    theirs = [Run(run.load, {"vllm_router": 1.0}) for run in runs]
    shown += [under_streams(n, {"stepdown": runs, "vllm_router": theirs}) for n in (256, 512)]
    for found in shown:
        assert all(wanted.figure in found for wanted in WANTED if wanted.scenario == found["scenario"])


def test_tokens_that_come_together_are_not_faster_to_the_last():
    from benchmarks.front import of_streams

    even, held_back = [[10.0, 20.0, 30.0, 40.0]], [[40.0, 40.0, 40.0, 40.0]]
    assert of_streams(even) == {"ttft": 10, "itl": 10, "last": 40}
    assert of_streams(held_back) == {"ttft": 40, "itl": 0, "last": 40}


def test_ratios_are_of_pairs_and_processor_time_is_by_the_token():
    def run(tokens_per_s: float, **cpu_s: float) -> Run:
        load = dict.fromkeys(("first_p50", "first_p99", "gap_p50", "gap_p99"), 1.0)
        return Run(load | {"tokens": 1000, "tokens_per_s": tokens_per_s, "failed": 0}, cpu_s)

    mine = [run(90, ingress=0.05), run(200, ingress=0.05), run(80, ingress=0.06)]
    shown = under_streams(256, {"stepdown": mine, "vllm_router": [run(100, vllm_router=0.02)] * 3})
    assert (shown["tokens_ratio"], shown["tokens_per_s"]) == (0.9, 90)
    assert (shown["ingress_us_a_token"], shown["vllm_router_us_a_token"]) == (50.0, 20.0)


def test_a_figure_that_was_not_measured_does_not_hold():
    assert [told["held"] for told in verdict(WANTED, [line("1024 streams", failed=0)])["summary"]] == [False, True]
