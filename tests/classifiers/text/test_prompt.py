"""From a chat request to the text a classifier sees."""

import pytest

from classifiers import prompt_text
from classifiers.text.prompt import USER_HEAD, USER_TAIL


def user(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    "messages, text",
    [
        ([user("hello")], "hello"),
        ([], ""),
        (
            [
                user(
                    [
                        {"type": "text", "text": "what is"},
                        {"type": "image_url", "image_url": {}},
                        {"type": "text", "text": "this"},
                    ]
                )
            ],
            "what is\nthis",
        ),
        ([{"role": "system", "content": "Be brief."}, user("hello")], "hello\n\nBe brief."),
        ([user("first"), {"role": "assistant", "content": "yes"}, user("last")], "last\n\nfirst\nyes"),
        ([user("call it"), {"role": "assistant", "content": None, "tool_calls": []}], "call it"),
        ([{"role": "assistant", "content": "only me"}], "only me"),
    ],
)
def test_last_user_message_comes_first(messages, text):
    assert prompt_text(messages) == text


def test_a_long_message_keeps_head_and_tail():
    text = prompt_text([user("a" * 50_000 + "b" * 50_000)])
    assert text == "a" * USER_HEAD + "\n" + "b" * USER_TAIL


def test_system_and_history_are_clipped():
    text = prompt_text([{"role": "system", "content": "s" * 9000}, user("h" * 9000), user("question")])
    assert text.startswith("question") and len(text) < 1300
