"""Answers without a server: what is asked, resuming after a kill, and a child's last words."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from student_rows import config_of

from deployments.distil import answering
from deployments.distil.answering import Spec, answers, question, spec_of
from router.errors import BadInput
from router.reasoning_settings import Reasoning

pytestmark = pytest.mark.slow
CHILD = Path(__file__).parent / "stub_child.py"
ROWS = [
    {"id": f"r{i}", "messages": [{"role": "user", "content": f"word {i}"}], "tools": [], "sampling": {"temperature": 0}}
    for i in range(100)
]
SPEC = Spec("/models/small", 400)


@pytest.fixture
def stub(monkeypatch):
    """Run the stub in place of vLLM; returns a function that says how it misbehaves."""
    monkeypatch.setattr(answering, "COMMAND", (sys.executable, str(CHILD)))

    def says(**given):
        monkeypatch.setenv("STUB", json.dumps(given))

    says()
    return says


def test_each_row_is_answered_and_progress_is_told(stub, tmp_path):
    seen = []
    found = answers(SPEC, ROWS, lambda done, total: seen.append((done, total)), tmp_path)
    assert [found[f"r{i}"].message["content"] for i in range(100)] == [f"WORD {i}" for i in range(100)]
    assert found["r7"].finish == "stop" and found["r7"].output_tokens == 1 and found["r7"].signals == {}
    assert seen[-1] == (100, 100) and seen == sorted(seen)


def test_a_row_that_the_model_cannot_take_has_no_answer(stub, tmp_path):
    rows = [*ROWS[:5], {**ROWS[5], "messages": [{"role": "user", "content": "too long"}]}]
    assert set(answers(SPEC, rows, print, tmp_path)) == {f"r{i}" for i in range(5)}


def test_after_a_kill_the_same_call_goes_on_and_comes_to_the_same_end(stub, tmp_path):
    stub(die_after=42)
    with pytest.raises(BadInput, match="ended with code -9"):
        answers(SPEC, ROWS, lambda *told: None, tmp_path)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert 30 <= len(lines) <= 42
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"id": "r99", "asked": "half of a li')  # as a kill within a write leaves it
    stub(die_after=30)
    with pytest.raises(BadInput, match="ended with code -9"):
        answers(SPEC, ROWS, lambda *told: None, tmp_path)
    stub()
    resumed = answers(SPEC, ROWS, lambda *told: None, tmp_path)
    assert resumed == answers(SPEC, ROWS, lambda *told: None)
    ids = [json.loads(line)["id"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 100
    assert (tmp_path / "starts").read_text() == "xxx"


def test_what_is_answered_is_not_asked_again_and_no_engine_starts(stub, tmp_path):
    first = answers(SPEC, ROWS, lambda *told: None, tmp_path)
    stub(**{"raise": "no engine should start"})
    assert answers(SPEC, ROWS[:50], lambda *told: None, tmp_path) == {row["id"]: first[row["id"]] for row in ROWS[:50]}


def test_another_model_or_other_words_are_asked_anew(stub, tmp_path):
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(b"one")
    spec, place = Spec(str(weights.parent), 400), tmp_path / "work"
    answers(spec, ROWS[:3], lambda *told: None, place)
    weights.write_bytes(b"other")
    answers(spec, ROWS[:3], lambda *told: None, place)
    assert (place / "starts").read_text() == "xx"
    other = [{**ROWS[0], "sampling": {"temperature": 1}}, *ROWS[1:3]]
    answers(spec, other, lambda *told: None, place)
    assert (place / "starts").read_text() == "xxx" and len((place / "answers.jsonl").read_text().splitlines()) == 7


def test_a_child_that_dies_is_told_of_in_its_own_words(stub, tmp_path):
    stub(**{"raise": "the model has 3 heads"})
    with pytest.raises(
        BadInput, match="/models/small: the process that answers offline ended with code 1.*the model has 3 heads"
    ):
        answers(SPEC, ROWS, lambda *told: None, tmp_path)


def test_the_child_ends_with_its_parent(stub, tmp_path):
    stub(slow_s=0.2)
    code = (
        "import sys; from pathlib import Path; from deployments.distil import answering;"
        f"answering.COMMAND = (sys.executable, {str(CHILD)!r});"
        f"answering.answers(answering.Spec('/models/small', 400), {ROWS!r}, lambda *told: None, Path({str(tmp_path)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    wait_for(lambda: (tmp_path / "answers.jsonl").exists() and (tmp_path / "answers.jsonl").stat().st_size > 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    time.sleep(0.5)
    size = (tmp_path / "answers.jsonl").stat().st_size
    time.sleep(0.6)
    assert (tmp_path / "answers.jsonl").stat().st_size == size
    stub()
    assert len(answers(SPEC, ROWS, lambda *told: None, tmp_path)) == 100


def test_an_error_of_the_report_ends_the_child(stub, tmp_path):
    stub(slow_s=0.2)

    def report(done, total):
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        answers(SPEC, ROWS, report, tmp_path)
    assert threading.active_count() == before


def wait_for(holds, most_s=20.0):
    end = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


# -- what is asked --------------------------------------------------------------------------------------------------------------


def test_a_spec_has_the_tiers_settings(tmp_path):
    kwargs = {"dtype": "float32", "tool_call_parser": "hermes"}
    tier = config_of(tmp_path, student={"engine_kwargs": kwargs, "env": {"OMP_NUM_THREADS": "1"}}).tiers[0]
    found = spec_of(tier)
    assert found.engine_kwargs == kwargs and found.env == {"OMP_NUM_THREADS": "1"} and found.context == 400
    assert found.model == tier.source and not found.greedy and found.tier == "small"
    thinking = tier.model_copy(update={"reasoning": Reasoning(parser="qwen3")})
    assert spec_of(thinking).engine_kwargs["reasoning_parser"] == "qwen3"
    with pytest.raises(BadInput, match=r"holds no \.safetensors"):
        spec_of(tier, tmp_path)


def test_the_body_is_what_the_tier_would_get():
    row = {
        **ROWS[0],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "sampling": {"temperature": 0.5, "max_tokens": 7, "stream": True, "store": True, "n": 1, "user": "me"},
    }
    asked = question(row, replace(SPEC, tier="small"))
    body = asked["body"]
    assert body == {"temperature": 0.5, "max_tokens": 7, "messages": row["messages"], "tools": row["tools"], "model": "small"}
    assert question(row, SPEC)["asked"] != question({**row, "tools": []}, SPEC)["asked"]
    switched = question(row, replace(SPEC, reasoning=Reasoning(switch="chat_template", default="off")))
    assert switched["body"]["chat_template_kwargs"] == {"enable_thinking": False} and switched["opened"] is False
