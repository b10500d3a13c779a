"""A client's own `{{t1}}` stays as it wrote it, whoever quotes it; results go where a tier has put them."""

import json

import pytest
from delegating import chat, listing, run, state
from scripted import Said, told

from router.delegate.splice import splice
from router.types import Commit, Say

OWN = "My template has {{t1}} and {{t2}}; keep both.\n" + listing()
MERGE = {"plan": [{"each": "c1"}], "merge": True}
ONE = {"plan": [{"prompt": "count cats"}, {"prompt": "count dogs"}]}


def merged(final, body):
    """The text that the client gets of what the merging tier wrote."""
    done = run(MERGE, body, subtask="R", final=final)
    assert isinstance(done.end, Commit) and state(done) == "done"
    return splice(final, done.end.splice), done


def test_a_quote_by_the_merging_tier_is_left_alone():
    text, done = merged("your {{t1}} and {{t2}}: {{result t1}}", chat(OWN))
    assert text.startswith("your {{t1}} and {{t2}}: 1. R\n2. R")
    assert "{{result t1}}" in told(done.of("final")[0]) and "Write {{t1}}" not in told(done.of("final")[0])


def test_where_the_client_has_none_all_is_as_before():
    text, done = merged("{{t1}}", chat(listing()))
    assert text.startswith("1. R") and "Write {{t1}}" in told(done.of("final")[0])
    assert not any("result t" in name for name in done.end.splice)


@pytest.mark.parametrize("role", ["system", "assistant", "user"])
def test_it_may_stand_anywhere_in_the_conversation(role):
    earlier = [
        {"role": "user", "content": "hi"},
        {"role": role, "content": "keep {{t1}}"},
        {"role": "assistant", "content": "ok"},
    ]
    text, _ = merged("{{t1}} {{t1.3}}", {"messages": [*earlier, *chat(listing())["messages"]]})
    assert text == "{{t1}} R"


def test_a_quote_in_the_plans_answer_is_left_alone_and_its_results_are_put_in():
    plan = {**ONE, "answer": "{{t1}} stays. Cats: {{result t1}}, dogs: {{result t2}}"}
    done = run(plan, chat(OWN), subtask=lambda call: told(call).split()[1])
    assert isinstance(done.end, Say) and done.end.text == "{{t1}} stays. Cats: cats, dogs: dogs"


def test_a_plans_answer_of_quotes_alone_composes_nothing():
    done = run({**ONE, "answer": "{{t1}} {{t2}}"}, chat(OWN), subtask="R", final="whole")
    assert isinstance(done.end, Commit)


def test_a_quote_of_what_is_no_subtask_is_no_fault_of_the_plan():
    own = OWN.replace("{{t2}}", "{{t9}}")
    done = run({**ONE, "answer": "{{t9}}: {{t2}}"}, chat(own), subtask="R")
    assert done.end.text == "{{t9}}: R" and len(done.of("plan")) == 1


def test_a_worker_that_quotes_the_client_is_shown_and_put_in_unchanged():
    fields = [{"name": "found", "type": "string"}]
    plan = {"plan": [{"each": "c1", "prompt": "quote", "output_fields": fields, "kind": "transform"}], "merge": True}
    said = json.dumps({"status": "ok", "found": "it says {{t1}}, not {{t7}}"})
    done = run(plan, chat(OWN), subtask=said, final="{{result t1.1}}")
    shown = told(done.of("final")[0])
    assert "it says {{t1}}, not { {t7}}" in shown  # t7 is not the client's own, and may not be copied
    assert splice("{{result t1.1}}", done.end.splice) == "it says {{t1}}, not {{t7}}"


def test_the_planner_is_told_the_longer_form_only_where_it_is_needed():
    for text, form in (
        (OWN, '"answer", the whole answer with {{result t1}}'),
        (listing(), '"answer", the whole answer with {{t1}}'),
    ):
        done = run(MERGE, chat(text), subtask=Said("R"))
        assert form in told(done.of("plan")[0])
