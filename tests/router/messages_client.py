"""What a strict client of Anthropic's Messages takes, and what a server needs to answer one."""

import hashlib
import json

from router.protocols.edge import About

STARTED = {
    "id": str,
    "type": str,
    "role": str,
    "model": str,
    "content": list,
    "stop_reason": type(None),
    "stop_sequence": type(None),
    "usage": dict,
}
USAGE = {"input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"}
DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class FakeSeals:
    """Seals without secrets. As real ones, they take only text that can be encoded."""

    def sealed(self, text, tier):
        return "sealed:" + json.dumps([text, tier], ensure_ascii=False).encode().hex()

    def unsealed(self, token):
        try:
            kind, sealed = token.split(":")
            text, tier = json.loads(bytes.fromhex(sealed))
        except ValueError:
            return None
        return (text, tier) if kind == "sealed" else None

    def signature(self, text, tier):
        return f"{tier}.{hashlib.sha256(text.encode('utf-8', 'surrogatepass') + tier.encode()).hexdigest()}"

    def signer(self, text, signature):
        text.encode(), signature.encode()
        tier = signature.rpartition(".")[0]
        return tier if signature == self.signature(text, tier) else None


ABOUT = About("0123456789abcdef0123456789abcdef", 1_796_000_000, FakeSeals())


def events_of(raw):
    """(name, data) of each event; each has to be whole."""
    for one in raw:
        name, data, *rest = one.decode().split("\n")
        assert rest == ["", ""] and name.startswith("event: ") and data.startswith("data: ")
        body = json.loads(data[6:])
        assert body["type"] == name[7:]
        yield name[7:], body


def heard(raw):
    """The message that a client puts together, and the names of all events. Asserts the grammar of a stream:

    stream := message_start (block | ping)* message_delta message_stop
    block := content_block_start content_block_delta* content_block_stop, with index 0, 1, 2, ...
    """
    state, message, names = "new", {}, []
    for name, body in events_of(raw):
        names.append(name)
        if name == "ping":
            assert state in ("started", "block")
        elif name == "message_start":
            assert state == "new"
            state, message = "started", body["message"]
            assert {field: type(value) for field, value in message.items()} == STARTED
            assert message["content"] == [] and set(message["usage"]) == USAGE
        elif name.startswith("content_block"):
            state = block(name, body, state, message["content"])
        elif name == "message_delta":
            assert state == "started" and message["content"]
            assert set(body["usage"]) >= USAGE
            state, message = "told", {**message, **body["delta"], "usage": body["usage"]}
        else:
            assert (name, state) == ("message_stop", "told")
            state = "over"
    assert state == "over"
    return message, names


def block(name, body, state, content):
    """The state after an event of a block; content grows by it."""
    if name == "content_block_start":
        assert state == "started" and body["index"] == len(content)
        content.append({**body["content_block"]})
        assert content[-1].get("text", "") == content[-1].get("thinking", "") == content[-1].get("signature", "") == ""
        return "block"
    assert state == "block" and body["index"] == len(content) - 1
    last = content[-1]
    if name == "content_block_stop":
        if last["type"] == "tool_use":
            last["input"] = given_input(last.pop("partial_json", ""))
        assert last["type"] != "thinking" or last["signature"]
        return "started"
    delta, (kind, field) = body["delta"], DELTAS[last["type"]]
    if delta["type"] == "signature_delta":
        assert last["type"] == "thinking" and not last["signature"]
        last["signature"] = delta["signature"]
    else:
        assert delta["type"] == kind and not last.get("signature")
        last[field] = last.get(field, "") + delta[field]
    return "block"


def given_input(text):
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def chunk(delta=None, finish=None, model="small", **more):
    return {"model": model, "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish, **more}]}


def usage_chunk(**usage):
    return {"model": "small", "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 5, **usage}}


def called(index, arguments="", name="", id_=""):
    """A piece of a call, as a delta."""
    piece = {"index": index, "function": {"arguments": arguments} | ({"name": name} if name else {})}
    return {"tool_calls": [piece | ({"id": id_, "type": "function"} if id_ else {})]}


def answered(message, finish="stop", usage=None, **more):
    """A chat completion."""
    used = {"prompt_tokens": 12, "completion_tokens": 5} if usage is None else usage
    return {"model": "small", "choices": [{"index": 0, "message": message, "finish_reason": finish, **more}], "usage": used}
