"""OpenAI's JSON in, our types out. What we do not read is passed on untouched."""

import json
from collections.abc import Mapping
from math import isinf
from typing import Any

from classifiers import prompt_text
from classifiers.text.prompt import content_text
from router.errors import BadRequest
from router.request import server_tools
from router.request.body import answer_limit, one_answer_limit, several_wanted, wants_json
from router.types import Facts, Path, Request

SHAPES = (("tools", list, "a list"), ("response_format", dict, "an object"), ("stream_options", dict, "an object"))
MOST_TOKENS = 10**9
WHOLE = {  # -1 is vLLM's way to ask for all log-probabilities
    "max_tokens": (0, MOST_TOKENS),
    "max_completion_tokens": (0, MOST_TOKENS),
    "n": (1, 128),
    "top_logprobs": (-1, 1_000),
}
HOTTEST = 100.0
MOST_DEPTH = 100  # lists and objects within each other: JSON libraries give up between 128 and a few hundred
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):  # 1e999: would be sent on as Infinity, which is not JSON
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def decoded(raw: bytes) -> Any:
    """A body's JSON; of a key that stands twice the last value counts, for us and for the tier.

    Raises BadRequest, also for what is JSON but would break further on: halves of characters, thousandfold nesting.
    """
    try:
        body = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant, parse_float=_finite)
        if b"\\ud" in raw or b"\\uD" in raw:  # only an escape can smuggle a lone surrogate into UTF-8
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise BadRequest(f"the body holds half a character (a lone surrogate, {half}); send whole ones") from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:120]}") from None
    if raw.count(b"[") + raw.count(b"{") > MOST_DEPTH and deeper(body, MOST_DEPTH):
        raise BadRequest(f"the body nests more than {MOST_DEPTH} lists and objects within each other; send a flatter one")
    return body


def deeper(value: Any, most: int) -> bool:
    """Whether more than `most` lists and objects lie within each other. Level by level: recursion is what it guards."""
    level, depth = [value], 0
    while level and depth <= most:
        depth += 1
        held = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [part for parts in held for part in parts if isinstance(part, dict | list)]
    return depth > most


def parse(path: Path, raw: bytes) -> Request:
    """Read a request body and check the fields we use. Raises BadRequest."""
    body = decoded(raw)
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, found {type(body).__name__}")
    check_common(body)
    check_messages(body.get("messages")) if path == "chat/completions" else check_text(body)
    tests = server_tools.own_tests(body)
    limits = server_tools.own_limits(body)
    body.pop("stepdown", None)
    return Request(path, one_answer_limit(body), limits, tests)


def check_common(body: Mapping[str, Any]) -> None:
    """The fields that both paths share and that deciding or streaming reads."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("`model` must be a text, such as auto", "model")
    if not isinstance(body.get("stream"), bool | None):
        raise BadRequest("`stream` must be true or false", "stream")
    for field, kind, word in SHAPES:
        if body.get(field) is not None and not isinstance(body[field], kind):
            raise BadRequest(f"`{field}` must be {word}", field)
    schema = (body.get("response_format") or {}).get("json_schema")
    if schema is not None and not isinstance(schema, dict):
        raise BadRequest("`response_format.json_schema` must be an object", "response_format")
    for field, (least, most) in WHOLE.items():
        value = body.get(field)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
            raise BadRequest(f"`{field}` must be a whole number from {least} to {most}", field)
    heat = body.get("temperature")
    if heat is not None and (not isinstance(heat, int | float) or isinstance(heat, bool) or not 0 <= heat <= HOTTEST):
        raise BadRequest(f"`temperature` must be a number from 0 to {HOTTEST:g}", "temperature")
    server_tools.check(body)


def check_messages(messages: Any) -> None:
    """A list of objects, each with a known role and content we can read."""
    if not isinstance(messages, list) or not messages:
        raise BadRequest("`messages` must be a list of at least one message", "messages")
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            raise BadRequest(f"`{where}` must be an object, found {type(message).__name__}", where)
        if message.get("role") not in ROLES:
            raise BadRequest(f"`{where}.role` must be one of {', '.join(ROLES)}", f"{where}.role")
        check_content(message.get("content"), f"{where}.content")


def check_content(content: Any, where: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise BadRequest(f"`{where}` must be a text or a list of parts", where)
    for part in content:
        if part.get("type") == "text" and not isinstance(part.get("text"), str):
            raise BadRequest(f"`{where}`: a text part needs `text`", where)


def check_text(body: Mapping[str, Any]) -> None:
    """The body of a completion: a prompt, and no chat beside it that deciding might read."""
    if "messages" in body:
        raise BadRequest("`messages` belong to chat/completions; completions takes a `prompt`", "messages")
    check_prompt(body.get("prompt"))


def check_prompt(prompt: Any) -> None:
    """A text, texts, or token ids, as OpenAI has it."""
    texts = isinstance(prompt, list) and bool(prompt) and all(type(p) in (str, int, list) for p in prompt)  # true is an int too
    if not isinstance(prompt, str) and not texts:
        raise BadRequest("`prompt` must be a text or a list", "prompt")


def facts(request: Request) -> Facts:
    """What deciding needs to know."""
    body = request.body
    if request.path == "chat/completions":
        text = prompt_text(body["messages"])
        counted = "\n".join(content_text(m.get("content")) for m in body["messages"])
    else:
        counted = prompt_of(body["prompt"])
        text = prompt_text([{"role": "user", "content": counted}])
    if tools := server_tools.client_tools(body):
        counted += json.dumps(tools)
    read = body if request.path == "chat/completions" else {**body, "messages": None}
    one = request.path == "chat/completions" and not several_wanted(body)
    return Facts(text, counted, body["model"], answer_limit(body) or 1, needs(read), body.get("temperature"), request.stream, one)


def prompt_of(prompt: Any) -> str:
    """The longest of the prompts; token ids count as one character each, which errs on the side of fitting."""
    if isinstance(prompt, str):
        return prompt
    if all(isinstance(p, int) for p in prompt):
        return " " * len(prompt)
    return max((p if isinstance(p, str) else " " * len(p) for p in prompt if isinstance(p, str | list)), key=len)


def needs(body: Mapping[str, Any]) -> frozenset[str]:
    """What the tier must be able to do. Server tools need nothing: a tier that takes no tools is not shown them."""
    found = set()
    if server_tools.client_tools(body):
        found.add("tools")
    if wants_json(body):
        found.add("json")
    contents = [m.get("content") for m in body.get("messages") or []]
    if any(part.get("type") in ("image_url", "input_image") for c in contents if isinstance(c, list) for part in c):
        found.add("images")
    return frozenset(found)


def margin(token: Mapping[str, Any]) -> float | None:
    """Log-probability of an answer's token over its runner-up; None without alternatives."""
    others = [float(o["logprob"]) for o in token.get("top_logprobs") or [] if o.get("token") != token.get("token")]
    return float(token["logprob"]) - max(others) if others else None


def forwarded(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The body as a tier gets it: its own model name, no server tools, and usage at the end of a stream unless declined."""
    sent = {**server_tools.without(body), "model": model}
    if body.get("stream"):
        sent["stream_options"] = {"include_usage": True, **(body.get("stream_options") or {})}
    return sent
