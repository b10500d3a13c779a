"""The final answer of a reply: the same for every way of fencing it, and found in little time."""

import time

import pytest

from classifiers.parts.decomposability import splits
from classifiers.replies.answers import final_answer


@pytest.mark.parametrize(
    "reply",
    [
        '{"a": 1}',
        '```json\n{"a": 1}\n```',
        '  ```\n{"a": 1}```  ',
        '```json {"a": 1}',
        '{"a": 1}\n\n  ```\n',
        '```json\n\n\n{"a": 1} ```',
    ],
)
def test_a_fence_is_no_part_of_the_answer(reply):
    assert final_answer(reply) == '{"a":1}'


@pytest.mark.parametrize("read", [final_answer, splits])
@pytest.mark.parametrize("sign", [" ", "\n", "\n ", "```", "[", "(", "{{", "\\boxed{", "answer is ", "- a\n"])
def test_no_text_is_read_in_quadratic_time(read, sign):
    read(sign)
    began = time.thread_time()
    read(sign * (30_000 // len(sign)))
    assert time.thread_time() - began < 0.1
