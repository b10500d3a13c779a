"""Requests, chunks and seals for tests of Responses."""

from router.protocols.edge import About
from router.protocols.responses import read

ID = "0123456789abcdef0123456789abcdef"


class PlainSeals:
    """Seals that can be read by eye: `sealed(TIER|TEXT)`."""

    def sealed(self, text, tier):
        return f"sealed({tier}|{text})"

    def unsealed(self, token):
        if not token.startswith("sealed("):
            return None
        tier, text = token[7:-1].split("|", 1)
        return text, tier

    def signature(self, text, tier):
        return ""

    def signer(self, text, signature):
        return None


def about(**given):
    return About(ID, 1_796_000_000, PlainSeals(), **given)


def asked(about_=None, **body):
    return read({"model": "auto", "input": "hi", **body}, about_ or about())


def sent(about_=None, **body):
    """The chat body."""
    return asked(about_, **body).body


def messages(*items, **body):
    """The chat's messages of these items."""
    return sent(input=list(items), **body)["messages"]


def function(name, **more):
    return {"type": "function", "name": name, "parameters": {"type": "object"}, **more}


def chunk(delta=None, finish=None, logprobs=None, usage=None):
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish} | (
        {"logprobs": {"content": logprobs}} if logprobs else {}
    )
    choices = [choice] if delta is not None or finish else []
    return {"id": "x", "object": "chat.completion.chunk", "model": "large", "choices": choices} | (
        {"usage": usage} if usage else {}
    )


def piece(index, arguments="", name="", id=""):
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value}
    return {"tool_calls": [{"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})]}


def chat(finish="stop", usage=None, **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "model": "large", "choices": [choice]} | ({"usage": usage} if usage else {})
