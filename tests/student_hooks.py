"""Hooks of `learning.redact` for tests of what a student learns."""

import re


def digits(messages):
    """The conversation with a sign behind each of its numbers' first digits, so that they stay different."""
    return [{**message, "content": re.sub(r"(\d)", r"\1#", message.get("content") or "", count=1)} for message in messages]


def fails(messages):
    raise RuntimeError("no")
