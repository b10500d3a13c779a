"""Hooks of an operator's, as `learning.redact` names them."""

__version__ = "3"


def names(messages):
    return [{**message, "content": (message.get("content") or "").replace("Anna", "PERSON")} for message in messages]


def broken(messages):
    raise RuntimeError("no model")


def picky(messages):
    """Raises where a name stands."""
    if any("Anna" in (message.get("content") or "") for message in messages):
        raise ValueError("a name")
    return messages


def nothing(messages):
    return None


def shorter(messages):
    return messages[1:]


def no_messages(messages):
    return "text"


def changing(messages):
    """Changes what it was given."""
    for message in messages:
        message["content"] = "gone"
    return messages
