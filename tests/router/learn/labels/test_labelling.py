"""Prompts through a ladder that answers from a script: graded, resumed after a kill, kept within limits."""

import json

import httpx
import pytest
from outcome_rows import write_jsonl

from router.errors import BadInput
from router.learn.inputs import ladder_of
from router.learn.labels.grading import GRADERS, find_grader
from router.learn.labels.labelling import ServedLadder, label, logprob_stats, read_prompts

ROWS = [{"id": f"p{i}", "messages": [{"role": "user", "content": f"{i}+1"}], "answer": str(i + 1)} for i in range(4)]


@pytest.mark.parametrize(
    "grader, answer, reference, row, score",
    [
        ("exact", " 12 ", "12", {}, 1),
        ("exact", "12.", "12", {}, 0),
        ("numeric", "so 3 + 4 = 7.0", "7", {}, 1),
        ("numeric", "1,234 dollars", 1234, {}, 1),
        ("numeric", "none", "7", {}, 0),
        ("regex", "the capital is Paris", r"(?i)\bparis\b", {}, 1),
        ("regex", "Rome", "Paris", {}, 0),
        ("choice", "The answer is (B).", "B", {}, 1),
        ("choice", "B", "b", {}, 1),
        ("choice", "A or B", "B", {}, 0),
        ("choice", "Answer: A\nno, the answer is C", "C", {}, 1),
        ("json_schema", '```json\n{"a": 1}\n```', None, {"schema": {"type": "object", "required": ["a"]}}, 1),
        ("json_schema", '{"a": true}', None, {"schema": {"properties": {"a": {"type": "integer"}}}}, 0),
        ("json_schema", '{"a": 1, "b": 2}', None, {"schema": {"properties": {"a": {}}, "additionalProperties": False}}, 0),
        ("json_schema", "[1, 2]", [1, 2], {"schema": {"type": "array", "items": {"minimum": 0}}}, 1),
        ("json_schema", "not json", None, {}, 0),
    ],
)
def test_graders(grader, answer, reference, row, score):
    assert GRADERS[grader](answer, reference, row) == score


def test_a_python_callable_grades_by_entry_point():
    assert find_grader("router.learn.labels.grading:exact")("a", "a", {}) == 1
    for name in ("exakt", "no.such.module:f", "router.learn.labels.grading:nothing"):
        with pytest.raises(BadInput, match="--grader"):
            find_grader(name)


def test_statistics_of_the_answers_tokens():
    others = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -2.0}]
    content = [{"token": "a", "logprob": -0.5, "top_logprobs": others}, {"token": "c", "logprob": -1.5}]
    assert logprob_stats({"logprobs": {"content": content}}) == {
        "mean_logprob": -1.0,
        "min_logprob": -1.5,
        "p10_logprob": -1.5,
        "p25_logprob": -1.5,
        "p50_logprob": -0.5,
        "logprob_tokens": 2,
        "first_margin": 1.5,
        "first_logprobs": [-0.5, -1.5],
    }
    assert "first_margin" not in logprob_stats({"logprobs": {"content": [{"token": "a", "logprob": -0.5}]}})
    assert len(logprob_stats({"logprobs": {"content": content * 100}})["first_logprobs"]) == 64
    assert logprob_stats({"logprobs": None}) == {}


class Script:
    """A ladder: `large` adds, `small` adds only below 2, and both fail after `dies_after` answers."""

    def __init__(self, dies_after=10**9, busy=0):
        self.calls, self.dies_after, self.busy = 0, dies_after, busy

    def __call__(self, request):
        self.calls += 1
        if self.busy:
            self.busy -= 1
            return httpx.Response(503, headers={"retry-after": "0.01"})
        if self.calls > self.dies_after:
            return httpx.Response(400, json={"error": {"message": "the tier is gone"}})
        asked = json.loads(request.content)
        assert request.headers["authorization"] == "Bearer key" and asked["temperature"] == 0
        number = int(asked["messages"][0]["content"].split("+")[0])
        text = str(number + 1) if asked["model"] == "large" or number < 2 else "?"
        return httpx.Response(
            200,
            json={
                "choices": [
                    {"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": [{"logprob": -0.1}]}}
                ],
                "usage": {"prompt_tokens": 10, "completion_tokens": 2},
            },
        )


async def run(script, output, grader=GRADERS["exact"], **limits):
    ladder = ServedLadder("http://ladder", "key", ["small", "large"], {"small": (1, 2), "large": (10, 20)}, **limits)
    return await label(ROWS, ladder, grader, output, lambda done, total: None, httpx.MockTransport(script))


def start(script, output, **limits):
    import asyncio

    return asyncio.run(run(script, output, **limits))


def test_every_tier_answers_and_is_graded(tmp_path):
    start(Script(), tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert [row["outcomes"]["small"]["score"] for row in rows] == [1, 1, 0, 0]
    large = rows[3]["outcomes"]["large"]
    assert (large["score"], large["output_tokens"], large["finish_reason"], large["mean_logprob"]) == (1, 2, "stop", -0.1)
    assert large["cost_usd"] == pytest.approx((10 * 10 + 2 * 20) / 1e6)
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(BadInput, match="the tier is gone"):
        start(Script(dies_after=5), tmp_path / "out.jsonl", concurrency=1)
    assert not (tmp_path / "out.jsonl").exists()
    with (tmp_path / "out.jsonl.journal").open("a") as file:
        file.write('{"id": "p3", "tier": "lar')  # cut short by a kill
    again = Script()
    assert start(again, tmp_path / "out.jsonl") == 5
    assert again.calls == 3 and (tmp_path / "out.jsonl").exists()


def test_a_busy_ladder_is_asked_again(tmp_path):
    script = Script(busy=2)
    start(script, tmp_path / "out.jsonl", concurrency=1)
    assert script.calls == 10


def test_prompts_that_cannot_be_asked_are_named(tmp_path):
    for lines, said in (([{"id": 1}], "line 1: no `messages`"), ([ROWS[0], ROWS[0]], "line 2: id 'p0' again")):
        with pytest.raises(BadInput, match=said):
            read_prompts(write_jsonl(tmp_path / "p.jsonl", lines))


def test_the_top_tier_judges_where_nothing_grades(tmp_path):
    asked = []

    def ladder(request):
        body = json.loads(request.content)
        text = body["messages"][0]["content"]
        if text.startswith("Two assistants"):
            asked.append(text)
            verdict = "Yes." if "assistant 1 at least" in text else "no"  # favours the first place
            return httpx.Response(200, json={"choices": [{"message": {"content": verdict}}]})
        answer = "same" if text == "0+1" else f"{body['model']} says"
        return httpx.Response(200, json={"choices": [{"message": {"content": answer}}], "usage": {}})

    start(ladder, tmp_path / "out.jsonl", grader=find_grader("judge"))
    rows = [json.loads(line)["outcomes"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["large"]["score"] for row in rows] == [1, 1, 1, 1]
    assert [row["small"]["score"] for row in rows] == [1, 0.5, 0.5, 0.5]
    assert len(asked) == 6


HOURLY = """
tiers:
  - {name: small, engine: echo, context: 4096, price: {usd_per_accelerator_hour: 1}}
  - {name: large, engine: echo, context: 4096, price: {usd_per_accelerator_hour: 4}}
"""


def test_a_ladder_priced_by_the_hour_is_told_what_to_give(tmp_path):
    config = tmp_path / "hourly.yaml"
    config.write_text(HOURLY)
    with pytest.raises(BadInput, match=r"accelerator hour .* --prices small=USD,large=USD"):
        ladder_of(None, config, None)
    with pytest.raises(BadInput, match=r"tier 'large'.*--prices large=USD"):
        ladder_of(None, config, "small=0.1")
    names, prices = ladder_of(None, config, "small=0.1,large=2:8")
    assert names == ["small", "large"] and prices == {"small": (0.1, 0.1), "large": (2, 8)}
    for wrong in ("small=-1", "small=nan", "small=1:inf"):
        with pytest.raises(BadInput, match="--prices"):
            ladder_of(None, config, wrong)
