"""A plan is read, checked as a graph and opened into jobs; grammar and checks agree on what a plan is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.delegate.blocks import offload
from router.delegate.plans import checked_jobs, lone_map, parse, plan_schema, result_schema
from router.errors import BadPlan

CHAT = offload([{"role": "user", "content": "Do:\n1. a\n2. b\n3. c"}], lambda text: 99, 5, 8)


def ids(plan, most=8):
    return [(job.id, job.part, sorted(job.depends_on)) for job in checked_jobs(parse(json.dumps(plan)), CHAT, most)]


@pytest.mark.parametrize(
    "plan, jobs",
    [
        ({"plan": []}, []),
        ({"plan": [{"each": "c1"}]}, [("t1.1", 1, []), ("t1.2", 2, []), ("t1.3", 3, [])]),
        ({"plan": [{"prompt": "a"}, {"prompt": "b", "context": ["c1.2", "t1"]}]}, [("t1", None, []), ("t2", None, ["t1"])]),
        ({"plan": [{"prompt": "b", "depends_on": ["t2"]}, {"prompt": "a"}]}, [("t2", None, []), ("t1", None, ["t2"])]),
        (
            {"plan": [{"each": "c1"}, {"prompt": "all", "context": ["t1"]}]},
            [("t1.1", 1, []), ("t1.2", 2, []), ("t1.3", 3, []), ("t2", None, ["t1.1", "t1.2", "t1.3"])],
        ),
        (
            {"plan": [{"id": "t7", "prompt": "a"}, {"prompt": "b", "depends_on": ["t7"]}]},
            [("t7", None, []), ("t2", None, ["t7"])],
        ),
    ],
)
def test_a_plan_is_opened_into_jobs_in_an_order_that_works(plan, jobs):
    assert ids(plan) == jobs


@pytest.mark.parametrize(
    "plan, said",
    [
        ({"plan": [{"each": "c2"}]}, "no block c2; there are c1"),
        ({"plan": [{"prompt": "a", "context": ["c1.4"]}]}, "'c1.4' is neither"),
        ({"plan": [{"prompt": "a", "depends_on": ["t2"]}]}, "no subtask 't2'"),
        ({"plan": [{"prompt": "a", "depends_on": ["t1"]}]}, "t1 -> t1 is a circle"),
        ({"plan": [{"prompt": "a", "context": ["t2"]}, {"prompt": "b", "context": ["t1"]}]}, "is a circle"),
        ({"plan": [{"id": "t2", "prompt": "a"}, {"prompt": "b"}]}, "two subtasks share one"),
        ({"plan": [{"kind": "draft"}]}, "give a prompt"),
        ({"plan": [{"prompt": "a"}] * 9}, "9 subtasks; at most 8"),
        ({"plan": [{"each": "c1"}] * 3}, "9 subtasks, each part"),
        ({"plan": [{"prompt": "a"}], "answer": "see {{t2}}"}, "{{t2}} is no subtask"),
        ({"plan": [{"prompt": "a", "output_fields": [{"name": "status", "type": "string"}]}]}, "status and evidence are taken"),
        ({"plan": [{"prompt": "a", "output_fields": [{"name": "x", "type": "object"}]}]}, "plan.0.output_fields.0.type"),
        ({"plan": [{"prompt": "a", "max_tokens": 5000}]}, "plan.0.max_tokens"),
        ({"plan": [{"prompt": "a", "model": "large"}]}, "plan.0.model"),
        ({"subtasks": []}, "plan: Field required"),
    ],
)
def test_a_bad_plan_says_what_is_wrong_with_it(plan, said):
    with pytest.raises(BadPlan) as raised:
        ids(plan)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "text, tasks",
    [
        ('{"plan":[{"each":"c1"}]}', 1),
        ('```json\n{"plan": []}\n```', 0),
        ('Here is my plan: {"plan": [{"prompt": "{a}"}]} Good?', 1),
    ],
)
def test_a_plan_is_found_in_prose_and_fences(text, tasks):
    assert len(parse(text).plan) == tasks


@pytest.mark.parametrize("text", ["", "no", "{", '{"plan": [', "[" * 9999, '{"a":' * 9999, '{"plan": NaN}', "\ud800{"])
def test_what_is_no_json_is_a_bad_plan(text):
    with pytest.raises(BadPlan):
        parse(text)


@pytest.mark.parametrize(
    "plan, lone",
    [
        ({"plan": [{"each": "c1"}]}, True),
        ({"plan": [{"each": "c1", "prompt": "sum up"}]}, True),
        ({"plan": [{"each": "c1"}], "merge": True}, False),
        ({"plan": [{"each": "c1"}], "answer": "{{t1}}"}, False),
        ({"plan": [{"each": "c1"}, {"prompt": "a"}]}, False),
        ({"plan": [{"prompt": "a"}]}, False),
        ({"plan": []}, False),
        ({"plan": [{"each": "c1", "output_fields": [{"name": "x", "type": "string"}]}]}, False),
    ],
)
def test_one_map_alone_is_answered_by_its_list(plan, lone):
    assert (lone_map(parse(json.dumps(plan))) is not None) == lone


# -- the grammar ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accepts():
    """Whether xgrammar lets a model write the text, with the plan's schema."""
    xgr = pytest.importorskip("xgrammar")
    tokens = xgr.TokenizerInfo([chr(i) for i in range(128)] + ["</s>"], stop_token_ids=[128])
    compiler = xgr.GrammarCompiler(tokens)
    cache = {}

    def decide(text, schema=None):
        wanted = json.dumps(schema or plan_schema(8))
        grammar = cache.setdefault(wanted, None) or compiler.compile_json_schema(wanted)
        cache[wanted] = grammar
        matcher = xgr.GrammarMatcher(grammar)
        return bool(matcher.accept_string(text) and matcher.accept_token(128))

    return decide


@pytest.mark.parametrize(
    "text, right",
    [
        ('{"plan":[]}', True),
        ('{"plan": []}', True),
        ('{"plan": [{"each": "c1"}]}', True),
        ('{"plan":[{"each":"c1"}]}', True),
        ('{"plan":[{"prompt":"a \\"b\\"\\n\\\\c"}],"answer":"x\\ny {{t1}}"}', True),
        ('{"plan":[{"each":"c1"}],"merge":true}', True),
        (
            '{"plan":[{"id":"t2","kind":"extract","prompt":"p","each":"c1","context":["c1.2-5","t1"],"depends_on":["t1"],"difficulty":"hard",'
            '"output_fields":[{"name":"x","type":"string_list"}],"max_tokens":100}]}',
            True,
        ),
        ('{"answer":"x","plan":[]}', False),
        ('{"plan":[{"id":"t1"}]}', False),
        ('{"plan":[{"each":"x1"}]}', False),
        ("[]", False),
        ('{"plan":[{"prompt":"a","tier":"large"}]}', False),
        ('{"plan":[{"prompt":"a","max_tokens":5}]}', False),
        ("direct", False),
        ('{"plan":[{"prompt":"a","context":["c1.x"]}]}', False),
    ],
)
def test_guided_decoding_allows_plans_and_nothing_else(accepts, text, right):
    assert accepts(text) == right
    if right:
        parse(text)


def absent(**fields):
    return st.fixed_dictionaries({}, optional=fields)


TEXT = st.text(alphabet='ab "\\\n{}é', max_size=12)
FIELDS = absent(name=st.sampled_from(["a", "b_1", "A"]), type=st.sampled_from(["string", "any"]), description=TEXT)
SUBTASKS = st.tuples(
    absent(
        id=st.sampled_from(["t1", "t2", "t99", "x", "t0"]),
        kind=st.sampled_from(["extract", "draft", "cook"]),
        prompt=TEXT,
        each=st.sampled_from(["c1", "c22", "c0", "t1"]),
        context=st.lists(st.sampled_from(["c1", "c1.2", "c1.2-3", "t1", "c1.", "no"]), max_size=3),
        depends_on=st.lists(st.sampled_from(["t1", "t2", "c1"]), max_size=2),
        difficulty=st.sampled_from(["easy", "huge"]),
        output_fields=st.lists(FIELDS, max_size=2),
        max_tokens=st.sampled_from([16, 2048, 8, 4096]),
        other=TEXT,
    )
).map(lambda found: found[0])
ORDER = ["id", "kind", "prompt", "each", "context", "depends_on", "difficulty", "output_fields", "max_tokens", "other"]


def in_order(field):
    return {key: field[key] for key in ("name", "type", "description") if key in field}


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(SUBTASKS, max_size=3), st.one_of(st.none(), TEXT), st.one_of(st.none(), st.booleans()))
def test_whatever_the_grammar_allows_the_reader_reads(accepts, subtasks, answer, merge):
    plan = {"plan": [{key: task[key] for key in ORDER if key in task} for task in subtasks]}
    for task in plan["plan"]:  # the grammar has one order of keys
        task |= {"output_fields": [in_order(f) for f in task["output_fields"]]} if "output_fields" in task else {}
    plan |= {} if answer is None else {"answer": answer}
    plan |= {} if merge is None else {"merge": merge}
    text = json.dumps(plan)
    try:
        parse(text)
        read = all(
            "prompt" in task or "each" in task for task in subtasks
        )  # left to `checked_jobs`, which also wants it not empty
    except BadPlan:
        read = False
    allowed = accepts(text)
    assert read or not allowed
    refs = [ref for task in subtasks for ref in (*task.get("context", []), *task.get("depends_on", []))]
    if read and not {"c1.", "no", "c1"} & set(refs):
        assert allowed, "the reader is no laxer, but for references, which `checked_jobs` resolves"


def test_a_result_names_its_status_first_and_takes_no_other_field(accepts):
    [task] = parse('{"plan": [{"prompt": "a", "kind": "extract", "output_fields": [{"name": "n", "type": "integer"}]}]}').plan
    schema = result_schema(task, grounded=True)
    assert list(schema["properties"]) == ["status", "evidence", "n"]
    assert accepts('{"status": "ok", "evidence": "a \\"b\\"", "n": 3}', schema)
    assert not accepts('{"status": "ok", "n": 3}', schema) and not accepts('{"n": 3, "status": "ok", "evidence": ""}', schema)


def test_no_schema_bounds_the_length_of_a_text():
    assert "maxLength" not in json.dumps(plan_schema(8)) and "oneOf" not in json.dumps(plan_schema(8))
