"""What a worker wrote becomes a result, or none: it never fails the request."""

import sys

import pytest

from router.delegate.plans import Subtask, result_schema
from router.delegate.results import as_text, read_result

FIELDS = [{"name": "amount", "type": "string"}, {"name": "lines", "type": "string_list"}]
SCHEMA = result_schema(Subtask(prompt="a", output_fields=FIELDS), grounded=False)
FINE = {"status": "ok", "amount": "5", "lines": ["a", "b"]}


@pytest.mark.parametrize(
    "text, found",
    [
        ('{"status": "ok", "amount": "5", "lines": ["a", "b"]}', FINE),
        ('Here:\n```json\n{"status": "ok", "amount": "5", "lines": ["a", "b"]}\n```', FINE),
        ('{"status": "too_hard"}', {"status": "too_hard"}),
        ('{"status": "insufficient_context", "amount": 7}', {"status": "insufficient_context"}),
        ('{"status": "ok"}', None),
        ('{"status": "ok", "amount": 5, "lines": []}', None),
        ('{"status": "ok", "amount": "5", "lines": [], "more": 1}', None),
        ('{"status": ["too_hard"]}', None),
        ('{"status": NaN}', None),
        ('["ok"]', None),
        ("", None),
    ],
)
def test_a_result_fits_its_schema_or_declines(text, found):
    assert read_result(text, SCHEMA) == found


def test_an_answer_nested_too_deeply_to_be_judged_is_no_result():
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit() + 1):
        assert read_result('{"status": "ok", "amount": ' + "[" * depth + "]" * depth + "}", SCHEMA) is None


@pytest.mark.parametrize("value, text", [("five", "five"), (["a", "b"], "a, b"), (5, "5"), (True, "true"), (0.5, "0.5")])
def test_a_result_of_one_field_is_its_value(value, text):
    assert as_text(Subtask(prompt="a", output_fields=FIELDS[:1]), {"amount": value}, "") == text


def test_a_result_of_several_fields_is_json_and_one_without_fields_its_text():
    assert as_text(Subtask(prompt="a", output_fields=FIELDS), FINE, "") == '{"amount": "5", "lines": ["a", "b"]}'
    assert as_text(Subtask(prompt="a"), None, " said \n") == "said"
