"""The jobs of one plan: what they wait for, what they share, and what of them an answer may be made of."""

from types import SimpleNamespace

import pytest
from delegating import FIELDS, SETTINGS, codes, run
from scripted import Said, ladder, told, words

from router.delegate.base import DelegationFlow
from router.delegate.blocks import offload
from router.delegate.memory import Memory
from router.delegate.plans import Job, Subtask
from router.delegate.shared import Shared
from router.errors import TierFailed
from router.limits.delegation_budget import Budget
from router.types import Call, Commit, Reply

LACKS = '{"status": "insufficient_context"}'


def test_what_depends_on_a_text_that_was_not_enough_is_skipped():
    plan = {"plan": [{"prompt": "a", "output_fields": FIELDS}, {"prompt": "b", "depends_on": ["t1"]}, {"prompt": "c"}]}
    done = run(plan, subtask=lambda call: LACKS if told(call).startswith("a") else "x")
    assert codes(done) == {"t1": "insufficient_context", "t2": "dependency_failed", "t3": "ok"}
    assert len(done.of("subtask")) == 2


@pytest.mark.parametrize(
    "other", [{"max_tokens": 20}, {"difficulty": "hard"}, {"output_fields": [{"name": "amount", "type": "integer"}]}]
)
def test_a_job_that_differs_in_anything_is_asked_by_itself(other):
    same = {"prompt": "a", "output_fields": FIELDS}
    done = run({"plan": [same, {**same, **other}, same]}, subtask='{"status": "ok", "amount": "5"}')
    assert [call.id for call in done.of("subtask")][:2] == ["t1", "t2"] and "t3" not in done.outcomes
    assert done.end.report["shared"] == 1


@pytest.mark.parametrize("answer", ["{{t1}}, {{t2}}", "{{t2}}"])
def test_a_template_with_a_part_that_failed_is_not_the_answer(answer):
    plan = {"plan": [{"prompt": "a"}, {"prompt": "b"}], "answer": answer}
    done = run(plan, subtask=lambda call: Said(error=TierFailed(call.tier, "broke")) if told(call) == "b" else "x")
    assert isinstance(done.end, Commit) and codes(done) == {"t1": "ok", "t2": "backend_error"}


def test_the_time_of_a_request_never_goes_back():
    shared = Shared({}, ladder(1.0, 2.0), SETTINGS, lambda *_: "small", lambda *_: None, Memory(), Budget(1.0, 4))
    flow = DelegationFlow(shared, SimpleNamespace(as_json=dict), None)
    for times in ([3.0, 2.0], [1.0]):
        asking = flow.ask([], 9.0, "x")
        next(asking)
        with pytest.raises(StopIteration):
            asking.send([Reply(Call(f"{at}", "small", "subtask", {}), at_s=at) for at in times])
        assert shared.now_s == 3.0


def test_a_job_is_expected_to_write_what_such_jobs_write_and_no_more_than_it_may():
    shared = Shared({}, ladder(0.1, 1.0), SETTINGS, lambda *_: "small", lambda *_: None, Memory(), Budget(1.0, 4))
    offloaded = offload([{"role": "user", "content": "hi"}], words, 10, 8)
    flow = DelegationFlow(shared, SimpleNamespace(as_json=dict, chat=offloaded, kind="numbered"), None)
    mean = shared.memory.means["numbered"].part_tokens
    for most, written in ((16, 16), (None, mean), (2048, mean)):
        job = Job("t1", Subtask(prompt="two words", max_tokens=most))
        assert flow.expected_usd(job) == pytest.approx(0.1 * 2 + 0.4 * written)
