"""Which requests are planned, and what becomes of bad plans and of backends that take no schema."""

import json
import random

import pytest
from delegating import MAP, SETTINGS, chat, listing, run, state
from scripted import Said, told

from classifiers.parts.decomposability import splits
from router.delegate.memory import Memory
from router.errors import NoReplica, TierFailed
from router.types import Commit

# -- acceptance 3: the gates -------------------------------------------------------------------------------------------------


LINES = ["The kettle broke.", "It rains in Bergen.", "We are late again.", "She sings in the choir."]
QUESTIONS = ["Who wrote Faust?", "What is 7 * 8?", "When did Rome fall?", "What is a quark?"]
ORDERS = ["Spell harbour", "Reverse the word lamp", "Add 3 and 9", "Name the capital of Peru"]
HEADS = {
    "lines": [
        "Translate each of these sentences into German:",
        "Classify the sentiment of each of these reviews:",
        "For each message below write a short reply.",
        "Rewrite every sentence in the past tense:",
        "Give a headline for each of the following:",
    ],
    "questions": [
        "Please answer all of these questions:",
        "Quick quiz:",
        "Answer each of the following questions briefly.",
        "My questions for today:",
        "Here are some questions, in any order:",
    ],
    "orders": [
        "Do all of the following:",
        "Complete these tasks.",
        "Here are some unrelated tasks:",
        "Please do each of these:",
        "Work through these tasks, one answer per line:",
    ],
    "sections": [
        "Summarise each section in one sentence.",
        "Translate every section into French.",
        "Write a title for each section.",
        "For each section, list the places it names.",
        "Proofread each of these sections.",
    ],
}
NORTH = "\n".join(f"## {name}\n" + "Snow fell. " * 200 for name in ("North", "South", "West"))


def map_like(kind, head):
    if kind == "sections":
        return f"{head}\n\n{NORTH}"
    lines = {"lines": LINES, "questions": QUESTIONS, "orders": ORDERS}[kind]
    mark = "- " if kind == "lines" else "{}. "
    return "\n".join([head, *(mark.format(i) + line for i, line in enumerate(lines, 1))])


MAPS = [map_like(kind, head) for kind, heads in HEADS.items() for head in heads]
LISTED = "\n".join(f"- {line}" for line in LINES)
CHAINS = [
    "Start with 5. Add 3. Double it. Subtract 4. Give the result of every step.",
    "Take the number 9. Double it. Add 7. Write the result after each step.",
    "Solve step by step:\n1. Compute 3 + 4\n2. Multiply the result by 5\n3. Subtract 6 from that",
    "Follow these steps:\n1. Take the word lamp\n2. Reverse it\n3. Then write it in capitals\n4. Count its letters",
    "What is the capital of France?",
    "Hello!",
    "Prove that there are infinitely many primes.",
    "Explain step by step how tides work.",
    "If Ada has 5 apples and gives away 2, then buys 4 more, how many are left?",
    "Debug this: my loop never ends and I see no reason.",
    f"Which of these sentences is the saddest?\n{LISTED}",
    f"Put these sentences in the best order:\n{LISTED}",
    f"Combine these sentences into one paragraph:\n{LISTED}",
    f"Write a story that contains all of these facts:\n{LISTED}",
    f"Why did the snow fall first in the north?\n\n{NORTH}",
    f"Summarise the whole text in one sentence.\n\n{NORTH}",
    f"Do these sections contradict each other?\n\n{NORTH}",
    "Write a poem about the sea.",
    "Write a parser. Requirements:\n- It must be fast\n- It must be small\n- It has no dependencies\n- It has docs",
    "Which statement is true?\nA. Cats bark\nB. Dogs bark\nC. Fish bark\nD. Birds bark",
]


def test_delegation_starts_on_what_falls_apart_and_never_on_chains():
    settings = SETTINGS.model_copy(update={"min_input_tokens": 8, "plan_prompt": "plan {preview}"})
    begun = {text: bool(run(MAP, chat(text), settings, splits=splits).of("plan")) for text in MAPS + CHAINS}
    assert len(set(MAPS)) == len(set(CHAINS)) == 20
    assert [text for text in CHAINS if begun[text]] == []
    assert sum(begun[text] for text in MAPS) >= 18


# -- acceptance 4: bad plans -------------------------------------------------------------------------------------------------


def bad_plans(n=200):
    rng = random.Random(4)
    good = json.dumps({"plan": [{"prompt": "a", "context": ["c1"]}, {"id": "t2", "prompt": "b", "depends_on": ["t1"]}]})
    one = [
        "",
        "I would split this into three parts.",
        "{}",
        "[]",
        "null",
        "[" * 5000,
        '{"a":' * 3000,
        "\x00\ud800",
        '{"plan": 3}',
        '{"plan": [3]}',
        '{"plan": [{}]}',
        '{"plan": null}',
        json.dumps({"plan": [{"prompt": "x"}] * 500}),
        '{"plan": [{"prompt": "x"}], "answer": "{{t7}}"}',
        '{"plan": [{"prompt": "a"}, {"id": "t1", "prompt": "b"}]}',
        '{"plan": [{"prompt": "a", "context": ["t2"]}, {"prompt": "b", "context": ["t1"]}]}',
    ]
    subtasks = [
        '"prompt": 1',
        '"each": "c9"',
        '"prompt": "a", "context": ["c1.99"]',
        '"prompt": "a", "depends_on": ["t1"]',
        '"prompt": "a", "depends_on": ["t2"]',
        '"prompt": "x", "tier": "large"',
        '"prompt": "x", "max_tokens": 1e9',
        '"prompt": "x", "max_tokens": NaN',
        '"prompt": "x", "output_fields": [{"name": "status", "type": "string"}]',
        '"id": "__proto__", "prompt": "x"',
        '"prompt": "x", "context": ["../../etc/passwd"]',
        '"prompt": "   "',
    ]
    fixed = one + [f'{{"plan": [{{{subtask}}}]}}' for subtask in subtasks]
    while len(fixed) < n:
        cut = good[: rng.randrange(1, len(good) - 1)]
        noise = "".join(rng.choice('{}[]",:truefalsnl0123456789 tc') for _ in range(rng.randrange(1, 60)))
        fixed.append(rng.choice([cut, noise, cut + noise]))
    return fixed[:n]


@pytest.mark.parametrize("repaired", ["the same", "another bad one"])
def test_bad_plans_end_in_the_plain_answer_after_one_repair_at_most(repaired):
    body = chat(listing())
    for text in bad_plans():
        done = run(text, body, repair=text if repaired == "the same" else "still {not a plan")
        assert isinstance(done.end, Commit) and done.of("final")[0].body is body, text
        assert len(done.of("repair")) <= 1 and not done.of("subtask")
        assert state(done) in ("plan_invalid", "loop_detected"), text


def test_a_repaired_plan_is_worked_on():
    done = run('{"plan": [{"each": "c7"}]}', repair=json.dumps(MAP))
    assert state(done) == "done" and "no block c7" in told(done.of("repair")[0]) and "why" not in done.end.report
    assert done.outcomes["plan"] == "plan invalid" and done.outcomes["repair"] == "accepted"


@pytest.mark.parametrize(
    "plan, repair, said",
    [
        ('{"plan": [{"each": "c7"}]}', '{"plan": [{"each": "c7"}]}', "loop_detected"),
        ('{"plan": [{"each": "c7"}]}', '{"plan": [{"each": "c8"}]}', "plan_invalid"),
        (Said(error=NoReplica("large", "gone")), None, "plan_invalid"),
        (Said("x", wait_s=1e9), None, "plan_invalid"),
    ],
)
def test_what_became_of_a_plan_is_told(plan, repair, said):
    done = run((lambda call: plan) if isinstance(plan, Said) else plan, repair=repair or "")
    assert state(done) == said and isinstance(done.end, Commit)


def test_with_one_plan_allowed_none_is_repaired():
    done = run("prose", settings=SETTINGS.model_copy(update={"max_plans": 1}))
    assert [call.role for call in done.calls] == ["plan", "final"]


# -- backends that refuse ------------------------------------------------------------------------------------------------------


def takes(*keys):
    """A planner whose backend knows only some ways to ask for JSON."""

    def plan(call):
        asked = {"response_format", "structured_outputs"} & set(call.body)
        return Said(json.dumps(MAP)) if asked <= set(keys) else Said(error=TierFailed("large", "unknown field", 400))

    return plan


@pytest.mark.parametrize("known, calls", [(["response_format"], 1), (["structured_outputs"], 2), ([], 3)])
def test_a_refused_format_is_asked_for_in_the_next_way_and_remembered(known, calls):
    memory = Memory()
    first, second = (run(takes(*known), more={"memory": memory}) for _ in range(2))
    assert (len(first.of("plan")), len(second.of("plan"))) == (calls, 1) and state(first) == state(second) == "done"


def test_requests_side_by_side_that_are_refused_the_same_format_skip_no_other():
    memory = Memory()

    def plan(call):
        memory.refuse("large", 0)  # another request was refused response_format while this one waited
        return takes("structured_outputs")(call)

    done = run(plan, more={"memory": memory})
    assert [sorted({"response_format", "structured_outputs"} & set(call.body)) for call in done.of("plan")] == [
        ["response_format"],
        ["structured_outputs"],
    ]


def test_a_backend_that_refuses_everything_is_asked_directly():
    done = run(lambda call: Said(error=TierFailed("large", "no", 400)))
    assert len(done.of("plan")) == 3 and isinstance(done.end, Commit) and state(done) == "plan_invalid"


def test_the_last_call_that_is_allowed_is_no_plan():
    done = run(lambda call: Said(error=TierFailed("large", "no", 400)), settings=SETTINGS.model_copy(update={"max_calls": 3}))
    assert len(done.of("plan")) == 2 and isinstance(done.end, Commit)
