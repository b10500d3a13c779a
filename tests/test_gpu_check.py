"""`make gpu-check` without a GPU: nvidia-smi's words, the order of steps, results that are safe, and what it refuses."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest

from benchmarks import gpu_cards, gpu_check, gpu_ladder, gpu_steps
from benchmarks.gpu_cards import Card, read_cards
from benchmarks.gpu_check import INTERRUPTED, WANTED, Results, page, run
from benchmarks.gpu_ladder import LARGE, RUNGS, SMALL, Said, cache_tokens, read
from benchmarks.gpu_steps import Surroundings
from router.config import load_config
from router.errors import BadInput

CARDS = "0, NVIDIA H200, 143771, 512\n1, NVIDIA GeForce RTX 3090, 24576, 1024\n"


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 0.5
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class FakeLadder:
    """Answers as a ladder in order does. dozes: it says that it dozes at the third look. fails: a method that breaks."""

    def __init__(self, steps, fails="") -> None:
        self.steps, self.fails, self.looks, self.killed, self.used = steps, fails, 0, False, 60.0

    def ask(self, model, text, most_tokens, **more):
        if self.fails == "interrupt":
            raise KeyboardInterrupt
        self.used = 60.0
        if model == "auto":
            return Said(200, "spring", "off")
        if model == "small" and self.killed:
            self.killed = False
            return Said(503, "none runs")
        thought = {"off": 0, "brief": 300, "free": 900}.get(model)
        numbers = [int(word) for word in text.replace("?", "").split() if word.isdigit()]
        tokens = more.get("min_tokens", 10)
        return Said(200, f"It is {sum(numbers):,}.", model, "stop", tokens, thought, 1.0)

    def state(self, tier):
        self.looks += 1
        if self.looks < 3:
            return "ready"
        self.used = 20.0
        return "dozing"

    def kill(self, tier):
        if self.fails == "kill":
            raise BadInput("found no process")
        self.killed = True
        self.steps.append(f"kill {tier}")

    def cache_tokens(self):
        return {SMALL: 100_000, LARGE: 210_000}


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """Runs it on a made-up ladder: (lines, page, what happened)."""
    monkeypatch.setattr(gpu_steps, "fit", lambda around: {"small": {"cache_tokens": 101_000}, "off": {"cache_tokens": 200_000}})

    def check(fails="", only=(), starts=True):
        steps, clock = [], Clock()
        ladders = []

        @contextmanager
        def start(locked):
            steps.append(f"start {locked}")
            if not starts:
                raise BadInput("stepdown serve did not become ready")
            ladders.append(FakeLadder(steps, fails))
            try:
                yield ladders[-1]
            finally:
                steps.append("end")

        def cards():
            return [Card(0, "H200", 140.0, ladders[-1].used if ladders else 1.0)]

        ended = ""
        try:
            run(Results(tmp_path), Surroundings(cards, clock, clock.sleep), start, only)
        except KeyboardInterrupt:
            ended = "interrupted"
        lines = [json.loads(line) for line in (tmp_path / "gpu_check.jsonl").read_text().splitlines()]
        return lines, (tmp_path / "gpu_check.md").read_text(), [*steps, ended]

    return check


def test_nvidia_smi_is_read_in_gib():
    assert read_cards(CARDS) == [
        Card(0, "NVIDIA H200", pytest.approx(140.40, abs=0.01), 0.5),
        Card(1, "NVIDIA GeForce RTX 3090", 24.0, 1.0),
    ]
    assert gpu_cards.cards(lambda command: CARDS if command[0] == "nvidia-smi" else "")[0].index == 0


@pytest.mark.parametrize("line", ["0, A100 MIG, [N/A], [N/A]", "No devices were found", "0, A100"])
def test_what_nvidia_smi_does_not_tell_is_refused_with_what_to_do(line):
    with pytest.raises(
        BadInput, match=r"expected index, name, memory.total, memory.used with both in MiB; .* run on a whole GPU"
    ):
        read_cards(line)


def test_without_a_gpu_it_refuses_before_it_starts_anything(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_cards.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "-o", str(tmp_path / "results")])
    with pytest.raises(SystemExit, match="found no GPU: there is no nvidia-smi; this check needs a machine with an NVIDIA GPU"):
        gpu_check.main()
    assert not (tmp_path / "results").exists()
    with pytest.raises(BadInput, match="nvidia-smi lists none"):
        gpu_cards.cards(lambda command: "\n")


def test_a_driver_that_does_not_work_is_told_as_nvidia_smi_says_it(monkeypatch):
    def broken(*_, **__):
        raise subprocess.CalledProcessError(9, "nvidia-smi", "NVIDIA-SMI has failed because it couldn't communicate")

    monkeypatch.setattr(gpu_cards.shutil, "which", lambda name: name)
    monkeypatch.setattr(gpu_cards.subprocess, "run", broken)
    with pytest.raises(BadInput, match="nvidia-smi says: NVIDIA-SMI has failed because it couldn't communicate; mend the driver"):
        gpu_cards.cards()


def test_steps_come_in_order_and_one_ladder_ends_before_the_next(checked):
    lines, shown, steps = checked()
    assert [line["step"] for line in lines] == list(WANTED)
    assert not [line for line in lines if "error" in line]
    assert steps == ["start True", "kill small", "end", "start False", "end", ""]
    assert "Not measured" not in shown and shown.count("## ") == len(WANTED)


def test_the_figures_of_each_step(checked):
    lines, shown, _ = checked()
    found = {line["step"]: line for line in lines}
    assert found["start"]["small_off_percent"] == -1.0 and found["start"]["off_off_percent"] == 5.0
    assert {rung: found["rungs"][rung]["right"] for rung in RUNGS} == dict.fromkeys(RUNGS, 20)
    assert [found["rungs"][rung]["most_thought_tokens"] for rung in RUNGS] == [0, 300, 900]
    doze = found["doze"]
    assert (doze["awake_gib"], doze["dozing_gib"], doze["freed_gib"], doze["woken_gib"]) == (60.0, 20.0, 40.0, 60.0)
    assert doze["same_answer"] and doze["long_answer_whole"] and doze["short_failed"] == 0
    assert (found["kill"]["status_meanwhile"], found["kill"]["answered_by"]) == (200, "off") and found["kill"]["back_after_s"] > 0
    assert min(found["speed"][f"{tier}_{how}_tokens_s"] for tier in ("small", "off") for how in ("alone", "together")) > 0
    assert "| brief, thought tokens | 300 |" in shown and "| same answer | True |" in shown


def test_a_step_that_fails_is_a_result_and_the_next_one_follows(checked):
    lines, shown, steps = checked(fails="kill")
    assert {line["step"]: line.get("error") for line in lines if "error" in line} == {"kill": "BadInput: found no process"}
    assert "Failed: BadInput: found no process" in shown and steps[-2:] == ["end", ""] and lines[-1]["step"] == "start at once"


def test_a_ladder_that_does_not_start_is_a_result_too(checked):
    lines, shown, steps = checked(starts=False)
    assert [line["step"] for line in lines] == ["fit", "start", "start at once"] and steps == ["start True", "start False", ""]
    assert "Not measured: rungs, doze, kill, speed." in shown


def test_an_interrupt_ends_what_was_started_and_keeps_what_was_found(checked):
    lines, shown, steps = checked(fails="interrupt")
    assert [(line["step"], line.get("error")) for line in lines] == [("fit", None), ("start", "interrupted")]
    assert steps == ["start True", "end", "interrupted"] and "Failed: interrupted" in shown and INTERRUPTED == 130


def test_only_some_steps(checked):
    lines, _, steps = checked(only=["speed"])
    assert [line["step"] for line in lines] == ["start", "speed"] and steps == ["start True", "end", ""]


def test_a_page_says_what_is_not_known():
    assert "| thought tokens | not known |" in page([{"step": "rungs", "at": "now", "took_s": 1, "thought_tokens": None}])


@pytest.mark.parametrize("locked", [True, False])
def test_its_ladder_is_one_that_can_be_served(tmp_path, locked):
    file = tmp_path / "ladder.yaml"
    file.write_text(gpu_ladder.settings(tmp_path, locked))
    config = load_config(str(file))
    assert config.names == ["small", *RUNGS] and [tier.runs_on for tier in config.tiers] == ["small", "off", "off", "off"]
    small, large = config.tiers[:2]
    assert (small.gpu, large.gpu, small.doze.after_s, config.tiers[2].thought) == (0.3, 0.6, 10, 512)
    assert (small.env == large.env == {}) is locked and small.shares_a_card and large.shares_a_card
    assert locked or len({small.env["STEPDOWN_NODE_LOCK"], large.env["STEPDOWN_NODE_LOCK"]}) == 2


def test_answers_are_read_with_their_thought_tokens():
    usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    answer = {"choices": [{"message": {"content": "5"}, "finish_reason": "stop"}], "usage": usage}
    assert read(200, answer, "off", 1.0) == Said(200, "5", "off", "stop", 9, 4, 1.0)
    assert read(503, {"error": {"message": "dozing"}}, "", 1.0) == Said(503, "dozing", took_s=1.0)


def test_the_caches_of_engines_are_read_from_their_logs():
    log = (
        "(EngineCore pid=7) INFO 12-01 [core.py:123] Initializing a V1 LLM engine (v0.29.0) with config: "
        f"model='{SMALL}', speculative_config=None, tokenizer='x'\n"
        "(EngineCore pid=7) INFO 12-01 [kv_cache_utils.py:2033] GPU KV cache size: 123,456 tokens, 15.07x\n"
    )
    assert cache_tokens(log) == {SMALL: 123_456} and cache_tokens("GPU KV cache size: 1 tokens") == {}
    assert cache_tokens(log + log.replace(SMALL, LARGE).replace("123,456", "99")) == {SMALL: 123_456, LARGE: 99}


def test_the_last_number_of_an_answer_counts():
    assert [gpu_steps.last_number(text) for text in ("238 + 467 = 705.", "It is 1,705", "none")] == [705, 1705, None]
