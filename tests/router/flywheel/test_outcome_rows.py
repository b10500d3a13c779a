"""Kept requests written as an outcome table are read back by what reads the tables of `stepdown label`."""

import json

import numpy as np
import pytest

from router.flywheel.rows.outcome_rows import NOT_ASKED, NOT_GRADED, outcome_row, write_rows
from router.flywheel.served import Answer, Grade, Served
from router.learn.evidence import read_seen
from router.learn.outcomes import read_outcomes

TIERS = ("small", "large")
SIGNALS = {
    **dict.fromkeys(("mean_logprob", "p10_logprob", "p25_logprob", "p50_logprob"), -0.1),
    "min_logprob": -0.5,
    "logprob_tokens": 3,
    "first_margin": 2.0,
    "first_logprobs": [-0.1, -0.1, -0.1],
}


def answer(tier, text, **more):
    return Answer(tier, "answer", {"role": "assistant", "content": text}, "stop", 9, 3, 0.001, SIGNALS, **more)


def served(n=0, **more):
    given = {
        "trace_id": f"t{n}",
        "at_s": 1.0 + n,
        "key_id": "k",
        "conversation": f"c{n}",
        "messages": ({"role": "user", "content": f"What is {n} plus 1?"},),
        "answered_by": "small",
        "answers": {tier: answer(tier, f"It is {n + 1}.") for tier in TIERS},
        "grades": {"small": Grade(float(n % 2), "agreement"), "large": Grade(1.0, "top")},
        "chance": 0.1,
        "drawn": True,
    }
    return Served(**(given | more))


def test_a_table_is_read_back_as_one_of_label(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert write_rows((outcome_row(served(n), TIERS) for n in range(12)), path) == 12
    names = {tier: tier for tier in TIERS}
    found = read_outcomes(path, names)
    assert found.ids.tolist() == [f"t{n}" for n in range(12)]
    assert found.scores[:, 0].tolist() == [float(n % 2) for n in range(12)] and (found.costs == 0.001).all()
    assert found.groups.tolist() == [f"c{n}" for n in range(12)] and (found.weights == 10.0).all()
    seen = read_seen([path], names, found)
    assert seen is not None and np.isfinite(seen.signals).all() and seen.prefix is not None and (seen.agree[:, 0, 1] == 1.0).all()


def test_a_missing_answer_or_grade_says_why():
    row = outcome_row(
        served(answers={"small": answer("small", "2")}, grades={"small": Grade(None, "judge", "no verdict")}), TIERS
    )
    assert row["outcomes"]["large"] == {"score": None, "error": NOT_ASKED}
    assert (row["outcomes"]["small"]["score"], row["outcomes"]["small"]["error"]) == (None, "no verdict")
    assert outcome_row(served(grades={}), TIERS)["outcomes"]["large"]["error"] == NOT_GRADED


def test_only_a_drawn_request_stands_for_others():
    assert outcome_row(served(drawn=False, chance=1.0, conversation=""), TIERS)["weight"] == 1.0
    assert "stem_sha256" not in outcome_row(served(conversation=""), TIERS)


def test_task_and_tools_go_along():
    row = outcome_row(served(metadata={"task": "sums", "app": "mail"}, tools=({"type": "function"},)), TIERS)
    assert row["task"] == "sums" and row["tools"] == [{"type": "function"}]


@pytest.mark.parametrize("text", ["half \ud800", "whole ü"])
def test_any_text_makes_a_line_that_is_json(tmp_path, text):
    row = outcome_row(served(messages=({"role": "user", "content": text},), answers={"small": answer("small", text)}), TIERS)
    row["outcomes"]["small"]["first_margin"] = float("nan")
    write_rows([row], tmp_path / "rows.jsonl")
    found = json.loads((tmp_path / "rows.jsonl").read_text("utf-8"))
    assert found["messages"][0]["content"] == text and found["outcomes"]["small"]["first_margin"] is None


def test_a_row_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_rows([{"id": "a"}, {"id": object()}], path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
