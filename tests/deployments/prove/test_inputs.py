"""What a proof is given is read and checked before anything is paid for."""

import pytest
from outcome_rows import write_jsonl

from deployments.prove.inputs import given
from router.errors import BadInput

N = 100


@pytest.fixture
def prompts(tmp_path):
    return write_jsonl(tmp_path / "p.jsonl", [{"id": f"p{i}", "prompt": f"what is {i}"} for i in range(N)])


def test_references_are_joined_by_id(tmp_path, prompts):
    answers = write_jsonl(tmp_path / "a.jsonl", [{"id": f"p{i}", "answer": i} for i in reversed(range(N - 5))])
    found = given(prompts, answers, None)
    assert found.grader_name == "exact" and len(found.rows) == N - 5
    assert all(row["prompt"] == f"what is {row['answer']}" for row in found.rows)
    assert found.left_out == {"no reference: `answer` is missing": 5}


def test_references_without_ids_are_joined_line_by_line(tmp_path, prompts):
    answers = write_jsonl(tmp_path / "a.jsonl", [{"answer": str(i)} for i in range(N)])
    assert given(prompts, answers, None).rows[7]["answer"] == "7"


def test_without_references_the_top_tier_judges(prompts):
    found = given(prompts, None, None)
    assert found.grader_name == "judge" and found.grader is None and len(found.rows) == N


WRONG = {
    "too few rows for line by line": ([{"answer": "1"}], "1 rows for 100 prompts"),
    "ids of other prompts": ([{"id": "q1", "answer": "1"}], "no id is one of a prompt"),
    "an id twice": ([{"id": "p1", "answer": "1"}] * 2, "id 'p1' again"),
    "no references": ([{"id": "p1", "reply": "1"}], "no references; expected rows with `answer`"),
}


@pytest.mark.parametrize("rows, said", WRONG.values(), ids=WRONG.keys())
def test_references_that_do_not_fit_are_refused(tmp_path, prompts, rows, said):
    with pytest.raises(BadInput, match=said):
        given(prompts, write_jsonl(tmp_path / "a.jsonl", rows), None)


def test_too_few_prompts_are_refused(tmp_path):
    few = write_jsonl(tmp_path / "p.jsonl", [{"prompt": f"what is {i}"} for i in range(20)])
    with pytest.raises(BadInput, match="20 prompts, at least 80 are needed"):
        given(few, None, None)
