"""The text inside of a custom tool's arguments, whatever a tier writes there."""

import pytest

from router.protocols.responses.unwrapped import Unwrapped


def by_characters(arguments):
    reading = Unwrapped()
    return "".join(map(reading.fed, arguments)) + reading.ended()


@pytest.mark.parametrize(
    "arguments, text",
    [
        ('{"input":"a"}', "a"),
        (' {\n "input" : "a" }\n', "a"),
        ('{"input": "\\"\\\\\\/\\n\\t\\r\\b\\f"}', '"\\/\n\t\r\b\f'),
        ('{"input": "\\u00e9\\uD83D\\uDE00"}', "é\U0001f600"),
        ('{"input": "\\ud83dx\\ud83d\\n\\udc00"}', "\ufffdx\ufffd\n\ufffd"),
        ('{"input": "a\nb"}', "a\nb"),  # not JSON, yet clear
        ('{"input": "\\x\\u12g"}', "x\\u12g"),
        ('{"input": "a", "more": "b"}', "a"),
        ('{"input": "cut', "cut"),
        ('{"input": "cut\\', "cut"),
        ('{"input": "cut\\u00', "cut"),
        ('{"input": "cut\\ud83d', "cut\ufffd"),
        ('{"input": "', ""),
        ('{"inp', ""),
        ("", ""),
        ('{"patch": "a"}', "a"),
        ('{"more": "b", "input": "a"}', "a"),
        ('{"patch": "\\ud83d"}', "?"),
        ('{"a": 1}', '{"a": 1}'),
        ('{"input": 1}', '{"input": 1}'),
        ("{}", "{}"),
        ("*** Begin Patch", "*** Begin Patch"),
        ("[" * 3000, "[" * 3000),
    ],
)
def test_the_text_is_the_same_in_one_piece_and_in_many(arguments, text):
    reading = Unwrapped()
    assert reading.fed(arguments) + reading.ended() == text == by_characters(arguments)


def test_the_text_comes_as_soon_as_it_can():
    reading = Unwrapped()
    assert [reading.fed(piece) for piece in ('{"input": "', "a", "\\", "n", '"', "}")] == ["", "a", "", "\n", "", ""]
