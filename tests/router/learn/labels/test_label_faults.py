"""Labelling when rows, graders, ladders and disks fail: what was paid for is kept, and one row costs no other."""

import asyncio
import json
import re

import httpx
import pytest
from outcome_rows import write_jsonl

from router.errors import BadInput
from router.learn.labels.grading import GRADERS
from router.learn.labels.journal import Journal
from router.learn.labels.labelling import Labelling, ServedLadder, read_prompts
from router.learn.labels.ladder_client import LadderClient, address_of
from router.learn.outcomes import read_outcomes
from router.learn.tables import read_table

HALF = "\ud83d"


def rows_of(*prompts, **other):
    return [{"id": f"p{i}", "prompt": prompt, "answer": "yes", **other} for i, prompt in enumerate(prompts)]


def reply(text="yes", **other):
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    said = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage, **other}
    return httpx.Response(200, text=json.dumps(said))


class Ladder:
    """Answers by a function of (tier, prompt); counts what was asked."""

    def __init__(self, answer=lambda tier, prompt: reply()):
        self.answer, self.asked = answer, []

    def __call__(self, request):
        body = json.loads(request.content)
        prompt = body["messages"][-1]["content"]
        self.asked.append((body["model"], prompt))
        return self.answer(body["model"], prompt)


def run(ladder, rows, output, grader=GRADERS["exact"], **limits):
    served = ServedLadder(
        "http://ladder", "key", ["small", "large"], {"small": (1, 2), "large": (10, 20)}, concurrency=1, **limits
    )
    work = Labelling(rows, served, grader, output, lambda done, total: None)
    asyncio.run(work.run(httpx.MockTransport(ladder)))
    return work


def outcomes(output):
    return [json.loads(line)["outcomes"] for line in output.read_text("utf-8").splitlines()]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    async def at_once(seconds):
        return None

    monkeypatch.setattr("router.learn.labels.ladder_client.asyncio.sleep", at_once)


# -- rows ----------------------------------------------------------------------------------------------------------------------


def too_long(tier, prompt):
    return reply() if prompt != "long" else httpx.Response(400, json={"error": {"message": "the prompt has 9000 tokens"}})


BAD_ROWS = {
    "too long for the ladder": ({"prompt": "long"}, "9000 tokens"),
    "half an emoji in the prompt": ({"prompt": f"a {HALF}"}, "half of a character"),
    "half an emoji in a message": ({"prompt": None, "messages": [{"role": "user", "content": HALF}]}, "half of a character"),
    "half an emoji in the reference": ({"answer": HALF}, "expected a text or a number"),
    "no reference": ({"answer": None}, "`answer` is missing"),
    "a list as reference": ({"answer": ["yes"]}, "expected a text or a number"),
    "messages a number": ({"messages": 5}, "messages is 5"),
    "an empty list of messages": ({"messages": []}, "empty list"),
    "content a number": ({"messages": [{"role": "user", "content": 5}]}, "content is 5"),
    "a role nobody knows": ({"messages": [{"role": "usr", "content": "a"}]}, "role 'usr'"),
    "messages without content": ({"messages": [{"role": "user", "text": "a"}]}, "has no content"),
    "ShareGPT without value": ({"messages": [{"from": "human", "text": "a"}]}, "value is None"),
    "ShareGPT from nobody": ({"messages": [{"from": "cat", "value": "a"}]}, "is from 'cat'"),
}


@pytest.mark.parametrize("change, said", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_a_missing_score_with_its_reason(output, change, said):
    rows = rows_of("one", "two", "three")
    rows[1] |= change
    ladder = Ladder(too_long)
    work = run(ladder, rows, output)
    first, bad, last = outcomes(output)
    assert first["small"]["score"] == last["large"]["score"] == 1
    assert bad["small"]["score"] is None and said in bad["small"]["error"] and said in bad["large"]["error"]
    assert work.missing.total() == 2 and said in next(iter(work.missing))
    if "tokens" not in said:
        assert len(ladder.asked) == 4, "nothing is paid for a row that cannot be graded"
    table = read_outcomes(output, {"small": "small", "large": "large"})
    assert table.ids.tolist() == ["p0", "p2"]


ANSWERS = {
    "half an emoji": (reply(HALF), None, "half of a character"),
    "nothing": (reply(None), 0, ""),
    "deeply nested JSON": (reply("[" * 100_000), 0, ""),
}


@pytest.mark.parametrize("given, score, said", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_odd_answer_costs_its_own_score_alone(output, given, score, said):
    rows = rows_of("one", "odd", schema={"type": "object"}, answer=None)
    work = run(
        Ladder(lambda tier, prompt: given if prompt == "odd" and tier == "small" else reply("{}")),
        rows,
        output,
        GRADERS["json_schema"],
    )
    odd = outcomes(output)[1]
    assert odd["small"]["score"] == score and said in odd["small"].get("error", "")
    assert odd["large"]["score"] == 1 and work.missing.total() == (score is None)
    assert read_table(output)["score|small"] == [1, score]


def raising(answer, reference, row):
    raise RuntimeError("no")


GRADED_BADLY = {
    "it raises": (raising, "raising failed (RuntimeError: no)"),
    "not a number": (lambda *_: float("nan"), "gave nan"),
    "more than 1": (lambda *_: 7, "gave 7"),
    "nothing": (lambda *_: None, "failed (TypeError"),
    "too few arguments": (lambda answer: 1, "failed (TypeError"),
}


@pytest.mark.parametrize("grader, said", GRADED_BADLY.values(), ids=GRADED_BADLY.keys())
def test_a_grader_that_fails_keeps_the_answers(output, grader, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        run(Ladder(), rows_of("one", "two"), output, grader)
    again = Ladder()
    assert run(again, rows_of("one", "two"), output).reused == 4 and again.asked == []
    assert outcomes(output)[0]["small"]["score"] == 1


REFERENCES = {
    "no pattern": ("regex", "(", "no regular expression"),
    "nested too deeply": ("regex", "(" * 5000, "no regular expression"),
    "no number": ("numeric", "many", "expected a number"),
    "no letter": ("choice", "AB", "expected a letter"),
    "no JSON": ("json_schema", "{", "expected JSON"),
}


@pytest.mark.parametrize("grader, reference, said", REFERENCES.values(), ids=REFERENCES.keys())
def test_references_are_checked_before_anything_is_paid_for(output, grader, reference, said):
    ladder = Ladder()
    with pytest.raises(BadInput, match=said):
        run(ladder, rows_of("one", "two", answer=reference), output, GRADERS[grader])
    assert ladder.asked == [] and not output.parent.joinpath("out.jsonl.journal").exists()


def test_a_schema_that_is_none_is_named(output):
    with pytest.raises(BadInput, match="expected a JSON schema"):
        run(Ladder(), rows_of("one", schema={"type": 7}), output, GRADERS["json_schema"])


def test_rows_without_any_reference_are_refused_with_their_columns(output):
    with pytest.raises(BadInput, match="`answer` is missing.*id, prompt"):
        run(Ladder(), [{"id": "a", "prompt": "x"}], output)


@pytest.mark.slow
def test_a_pattern_without_end_costs_its_row_alone(output):
    rows = rows_of("one", "two", answer="yes")
    rows[1]["answer"] = "(a+)+$"
    run(Ladder(lambda tier, prompt: reply("yes" if prompt == "one" else "a" * 40 + "!")), rows, output, GRADERS["regex"])
    found = outcomes(output)
    assert found[0]["small"]["score"] == 1 and "longer than" in found[1]["small"]["error"]


def test_sharegpt_rows_and_prompts_as_messages_are_asked(tmp_path, output):
    chat = [{"from": "system", "value": "be short"}, {"from": "human", "value": "hello"}]
    path = write_jsonl(
        tmp_path / "p.jsonl", [{"conversations": chat, "answer": "yes"}, {"prompt": [{"role": "user", "content": "hi"}]}]
    )
    ladder = Ladder()
    run(ladder, read_prompts(path), output)
    assert ladder.asked == [("small", "hello"), ("large", "hello")]
    assert read_outcomes(output, {"small": "small", "large": "large"}).texts.tolist() == ["hello\n\nbe short"]


def test_a_file_in_which_nothing_can_be_asked_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"instruction": "a", "output": "b"}] * 3)
    with pytest.raises(BadInput, match="line 1: no `messages` or `prompt`; found instruction, output; so are all 3 rows"):
        read_prompts(path)


# -- the journal ---------------------------------------------------------------------------------------------------------------


def stopped(output, rows, grader=GRADERS["exact"]):
    """A run that is stopped because the key is refused after three answers."""
    ladder = Ladder(lambda tier, prompt: reply() if len(ladder.asked) <= 3 else httpx.Response(401))
    with pytest.raises(BadInput, match="the key is refused"):
        run(ladder, rows, output, grader)


CHANGES = {
    "nothing": (lambda rows: rows, {}, 3),
    "the references": (lambda rows: [row | {"answer": "no"} for row in rows], {}, 3),
    "the order": (lambda rows: rows[::-1], {}, 3),
    "a prompt": (lambda rows: [rows[0] | {"prompt": "other"}, *rows[1:]], {}, 1),
    "the limit of tokens": (lambda rows: rows, {"max_tokens": 7}, 0),
}


@pytest.mark.parametrize("change, limits, reused", CHANGES.values(), ids=CHANGES.keys())
def test_a_rerun_resumes_what_is_the_same_and_nothing_else(output, change, limits, reused):
    rows = rows_of("one", "two")
    stopped(output, rows)
    ladder = Ladder(lambda tier, prompt: reply("no"))
    assert run(ladder, change(rows), output, **limits).reused == reused
    assert len(ladder.asked) == 4 - reused
    journal = output.with_name("out.jsonl.journal")
    assert journal.exists() == (reused < 3), "entries of another run are kept"


def test_another_grader_gives_other_scores_to_answers_that_are_paid_for(output):
    rows = rows_of("one", "two", answer="YES")
    stopped(output, rows)
    assert run(Ladder(), rows, output, lambda answer, reference, row: 0.5).reused == 3
    assert {o["score"] for row in outcomes(output) for o in row.values()} == {0.5}


def test_a_run_with_missing_scores_asks_for_these_alone_when_it_is_run_again(output):
    rows = rows_of("one", "long")
    run(Ladder(too_long), rows, output)
    again = Ladder()
    assert run(again, rows, output).reused == 2 and [prompt for _, prompt in again.asked] == ["long", "long"]
    assert not output.with_name("out.jsonl.journal").exists()


def test_lines_that_are_no_entries_are_dropped(output):
    stopped(output, rows_of("one", "two"))
    with output.with_name("out.jsonl.journal").open("ab") as file:
        file.write(b'\n[]\n5\n{"key": 5}\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"key": "x", "val')
    assert run(Ladder(), rows_of("one", "two"), output).reused == 3


def test_two_runs_do_not_write_one_journal(output):
    with Journal(output.with_name("out.jsonl.journal")), pytest.raises(BadInput, match="another run is writing it"):
        run(Ladder(), rows_of("one"), output)


def test_a_full_disk_ends_the_run_with_its_reason(output, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("router.learn.labels.journal.os.fsync", full)
    with pytest.raises(BadInput, match="No space left on device; make room"):
        run(Ladder(), rows_of("one"), output)


def test_verdicts_of_the_judge_are_paid_for_once(output):
    def answer(tier, prompt):
        if prompt.startswith("Two assistants"):
            return reply("yes") if len(ladder.asked) < 7 else httpx.Response(401)
        return reply(f"{tier} on {prompt}")

    ladder = Ladder(answer)
    with pytest.raises(BadInput, match="the key is refused"):
        run(ladder, rows_of("one", "two"), output, None)
    verdicts = []
    again = Ladder(lambda tier, prompt: verdicts.append(prompt) or reply("no"))
    run(again, rows_of("one", "two"), output, None)
    assert len(verdicts) == 2 and [row["small"]["score"] for row in outcomes(output)] == [1, 0]


def test_a_run_that_is_cancelled_keeps_the_answers_under_way(output):
    async def main():
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request):
            begun.set()
            await go_on.wait()
            return reply()

        served = ServedLadder("http://ladder", "key", ["small", "large"], {"small": (1, 1), "large": (2, 2)}, concurrency=2)
        work = Labelling(rows_of("one", "two"), served, GRADERS["exact"], output, lambda done, total: None)
        task = asyncio.create_task(work.run(httpx.MockTransport(slow)))
        await begun.wait()
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert run(Ladder(), rows_of("one", "two"), output).reused in (1, 2)


# -- the ladder ----------------------------------------------------------------------------------------------------------------

FAULTS = {
    "a refused key": (httpx.Response(403, json={"error": {"message": "not yours"}}), "the key is refused .HTTP 403: not yours"),
    "an unknown tier": (httpx.Response(404, json={"detail": "no such model"}), "no such model; check --url and --tiers"),
    "another address": (httpx.Response(302), "HTTP 302.*check --url"),
    "a spent budget": (httpx.Response(429, headers={"retry-after": "40000"}), "asks to wait 40000 s"),
    "an odd wait": (httpx.Response(503, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), "does not answer a greeting"),
    "a page": (httpx.Response(200, text="<html>"), "gave no chat completion: '<html>'"),
    "no choices": (httpx.Response(200, json={"choices": []}), "gave no chat completion"),
    "null": (httpx.Response(200, text="null"), "gave no chat completion"),
    "refuses all": (httpx.Response(400, json={"error": "no logprobs here"}), "no logprobs here"),
}


@pytest.mark.parametrize("given, said", FAULTS.values(), ids=FAULTS.keys())
def test_the_ladders_own_fault_ends_the_run_and_loses_nothing(output, given, said):
    rows = rows_of("one", "two", "three")
    ladder = Ladder(lambda tier, prompt: reply() if len(ladder.asked) <= 2 else given)
    with pytest.raises(BadInput, match=said):
        run(ladder, rows, output)
    assert not output.exists() and run(Ladder(), rows, output).reused == 2


def test_a_request_that_always_fails_costs_itself_alone(output):
    rows = rows_of("one", "poison", "three")
    run(Ladder(lambda tier, prompt: httpx.Response(500) if prompt == "poison" else reply()), rows, output)
    assert [row["small"]["score"] for row in outcomes(output)] == [1, None, 1]


def test_a_ladder_that_is_not_there_is_said_at_once(output):
    def refuse(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(BadInput, match="http://ladder: no answer .refused.; is it running"):
        run(refuse, rows_of("one"), output)


@pytest.mark.parametrize("models, said", [(["large"], "no tier 'small' there; it has large"), (None, "")])
def test_the_list_of_models_is_checked_where_there_is_one(models, said):
    async def main():
        listed = httpx.Response(200, json={"data": [{"id": name} for name in models]}) if models else httpx.Response(404)
        transport = httpx.MockTransport(lambda request: listed)
        async with httpx.AsyncClient(base_url="http://ladder", transport=transport) as http:
            await LadderClient(http, ServedLadder("http://ladder", "", ["small", "large"], {})).check()

    if said:
        with pytest.raises(BadInput, match=said):
            asyncio.run(main())
    else:
        asyncio.run(main())


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "//", "/v1/chat/completions"])
def test_an_address_may_end_in_v1(path):
    assert address_of(f"http://here:8000{path}") == "http://here:8000"
    assert address_of(f"https://here/prefix{path}") == "https://here/prefix"


@pytest.mark.parametrize(
    "url", ["", "here:8000", "ftp://here", "http://", "http://here:port", "http://[", "http://here?x=1", "http://a\nb"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(BadInput, match="--url"):
        address_of(url)


@pytest.mark.parametrize("key", ["caf\u00e9", "a\nb", " a"])
def test_a_key_that_no_header_can_hold_is_refused(output, key):
    served = ServedLadder("http://ladder", key, ["small", "large"], {})
    with pytest.raises(BadInput, match="--api-key"):
        Labelling(rows_of("one"), served, GRADERS["exact"], output, lambda done, total: None)
