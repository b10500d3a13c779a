"""From OpenAI's JSON to our types. Fields that we do not read are passed on untouched."""

from collections.abc import Callable, Mapping
from typing import Any

from classifiers import prompt_text
from router.errors import BadRequest
from router.request import constraints, json_text, server_tools
from router.request.body import answer_count, answer_limit, asks_for_more, continues, one_answer_limit, several_wanted, wants_json
from router.request.token_bounds import prompts_of
from router.types import UNKNOWN_PART, Facts, Path, Request

SHAPES = (
    ("tools", list, "a list"),
    ("response_format", dict, "an object"),
    ("stream_options", dict, "an object"),
    ("chat_template_kwargs", dict, "an object"),
    ("documents", list, "a list"),
    ("echo", bool, "true or false"),
)
# Fields of the other path. Backends overlook them, so they are taken out before anything reads them.
FOREIGN = {
    "chat/completions": ("prompt", "suffix"),
    "completions": ("tools", "tool_choice", "functions", "function_call", "documents", "chat_template", "chat_template_kwargs"),
}
MAX_TOKENS = 10**9
INTEGER_RANGES = {
    "max_tokens": (0, MAX_TOKENS),
    "max_completion_tokens": (0, MAX_TOKENS),
    "n": (1, 128),
    "best_of": (1, 128),
    "top_logprobs": (-1, 1_000),  # vLLM takes -1 for all of them
    "prompt_logprobs": (-1, 1_000),
}
MAX_TEMPERATURE = 100.0
# Of `metadata`, as with OpenAI.
MOST_PAIRS = 16
LONGEST_NAME = 64
LONGEST_VALUE = 512
MOST_ANSWERS = 256  # of one request: as many as vLLM generates side by side by default; others wait behind more
MAX_DEPTH = 100  # of nested lists and objects; JSON libraries give up between 128 and a few hundred
ROLES = ("system", "developer", "user", "assistant", "tool", "function")

TEXT_PARTS = ("text", "input_text", "output_text", "refusal", "thinking", "reasoning")
PART_NEEDS = {
    **dict.fromkeys(TEXT_PARTS, ""),
    **dict.fromkeys(("image_url", "input_image", "image", "image_pil", "image_embeds"), "images"),
    **dict.fromkeys(("input_audio", "audio_url", "audio", "audio_embeds"), "audio"),
    **dict.fromkeys(("video_url", "input_video", "video"), "video"),
    **dict.fromkeys(("file", "input_file", "document", "file_url"), "files"),
}
"""type of a message's part -> what the tier must be able to do; empty: nothing but read"""


def decoded(raw: bytes) -> Any:
    """A body's JSON. Of a key that is given twice the last value counts, for us and for the tier.

    Raises BadRequest, also for valid JSON that would break later: lone surrogates, deep nesting.
    """
    body = strict_json(raw)
    if may_have_half(raw) and (half := json_text.half_character(body)):
        raise BadRequest(f"the body holds half a character (a lone surrogate, {half}); send whole ones")
    return body


def may_have_half(raw: bytes) -> bool:
    """Whether there may be a lone surrogate: only an escape can smuggle it into UTF-8."""
    return json_text.has(raw, b"\\ud") or json_text.has(raw, b"\\uD")


def strict_json(raw: bytes, read: Callable[[bytes], Any] = json_text.read) -> Any:
    """JSON as RFC 8259 has it and not too deep, whoever sent it. Raises BadRequest."""
    try:
        body = read(raw)
    except json_text.TooMuchWork as error:
        raise BadRequest(f"the body cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:120]}") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and nested_deeper(body, MAX_DEPTH):
        raise BadRequest(f"the body nests more than {MAX_DEPTH} lists and objects within each other; send a flatter one")
    return body


def nested_deeper(value: Any, most: int) -> bool:
    """Whether more than `most` lists and objects are nested. It goes level by level because it guards against recursion."""
    level, depth = [value], 0
    while level and depth <= most:
        depth += 1
        held = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [part for parts in held for part in parts if isinstance(part, dict | list)]
    return depth > most


def parse(path: Path, raw: bytes) -> Request:
    """Read a request body and check the fields we use. Raises BadRequest."""
    return checked(path, decoded(raw), len(raw))


def checked(path: Path, body: Any, size: int) -> Request:
    """A body that `decoded` returned, or that was made of one. size: in bytes. Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, found {type(body).__name__}")
    body = {name: value for name, value in body.items() if name not in FOREIGN[path]}
    check_common(body)
    check_logprobs(path, body.get("logprobs"))
    check_messages(body.get("messages")) if path == "chat/completions" else check_prompt(body)
    if (answers := answer_count(body)) > MOST_ANSWERS:
        raise BadRequest(f"{answers} answers are asked for (prompts times `n` or `best_of`); ask for at most {MOST_ANSWERS}", "n")
    limits, tests = server_tools.take_stepdown_field(body)
    store, metadata = take_storing(body) if path == "chat/completions" else (None, {})
    return Request(path, one_answer_limit(body), limits, tests, store, metadata, size)


def check_common(body: Mapping[str, Any]) -> None:
    """The fields of both paths that we read."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("`model` must be a text, such as auto", "model")
    if not isinstance(body.get("stream"), bool | None):
        raise BadRequest("`stream` must be true or false", "stream")
    for field, kind, word in SHAPES:
        if body.get(field) is not None and not isinstance(body[field], kind):
            raise BadRequest(f"`{field}` must be {word}", field)
    if not isinstance((body.get("stream_options") or {}).get("include_usage"), bool | None):
        raise BadRequest("`stream_options.include_usage` must be true or false", "stream_options")
    schema = (body.get("response_format") or {}).get("json_schema")
    if schema is not None and not isinstance(schema, dict):
        raise BadRequest("`response_format.json_schema` must be an object", "response_format")
    for field, (least, most) in INTEGER_RANGES.items():
        value = body.get(field)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
            raise BadRequest(f"`{field}` must be a whole number from {least} to {most}", field)
    heat = body.get("temperature")
    if heat is not None and (not isinstance(heat, int | float) or isinstance(heat, bool) or not 0 <= heat <= MAX_TEMPERATURE):
        raise BadRequest(f"`temperature` must be a number from 0 to {MAX_TEMPERATURE:g}", "temperature")
    constraints.check(body)
    server_tools.check(body)


def check_logprobs(path: Path, given: Any) -> None:
    """A chat says whether it wants log-probabilities, a completion how many alternatives of each token."""
    number = isinstance(given, int) and not isinstance(given, bool) and -1 <= given <= INTEGER_RANGES["top_logprobs"][1]
    if given is None or (isinstance(given, bool) if path == "chat/completions" else number):
        return
    raise BadRequest("`logprobs` must be true or false in a chat, a whole number in a completion", "logprobs")


def take_storing(body: dict[str, Any]) -> tuple[bool | None, Mapping[str, str]]:
    """A chat's `store` and `metadata`, which are taken out of the body: they are for us. Raises BadRequest."""
    store, metadata = body.pop("store", None), body.pop("metadata", None)
    if not isinstance(store, bool | None):
        raise BadRequest("`store` must be true or false", "store")
    return store, checked_metadata({} if metadata is None else metadata)


def checked_metadata(given: Any) -> dict[str, str]:
    """Raises BadRequest."""
    if not isinstance(given, dict) or len(given) > MOST_PAIRS:
        found = f"{len(given)} pairs" if isinstance(given, dict) else type(given).__name__
        raise BadRequest(f"`metadata` must be an object of at most {MOST_PAIRS} pairs, found {found}", "metadata")
    for name, value in given.items():
        if not 0 < len(name) <= LONGEST_NAME:
            raise BadRequest(f"`metadata`: a name has 1 to {LONGEST_NAME} characters, found {len(name)}", "metadata")
        if not isinstance(value, str) or len(value) > LONGEST_VALUE:
            found = f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
            raise BadRequest(f"`metadata`: a value is a text of at most {LONGEST_VALUE} characters, found {found}", "metadata")
        if "\0" in name + value:
            raise BadRequest(f"`metadata.{name}` holds a NUL character, which is not kept", "metadata")
    return given


def check_messages(messages: Any) -> None:
    """Each message must be an object with a known role and content that we can read."""
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


def check_prompt(body: Mapping[str, Any]) -> None:
    """A completion must have a prompt (a text, several texts, or token ids) and no messages, which deciding would read."""
    if "messages" in body:
        raise BadRequest("`messages` belong to chat/completions; completions takes a `prompt`", "messages")
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and all(type(p) in (str, int, list) for p in prompt)  # bool is an int too
    nested = [p for p in prompt if isinstance(p, list)] if isinstance(prompt, list) else []
    if not isinstance(prompt, str) and not several or any(type(id_) is not int for ids in nested for id_ in ids):
        raise BadRequest("`prompt` must be a text, a list of texts, or token ids", "prompt")


def facts(request: Request) -> Facts:
    """What deciding needs to know of a request."""
    body, chat = request.body, request.path == "chat/completions"
    prompts = prompts_of(body)
    counted = prompts[0].text if len(prompts) == 1 else max((prompt.text for prompt in prompts), key=len)
    text = prompt_text(body["messages"]) if chat else prompt_text([{"role": "user", "content": counted}])
    needed, one = needs(body), chat and not several_wanted(body) and not continues(body)
    as_measured = one and not (request.tests or asks_for_more(body)) and "images" not in needed
    needed |= {"chat" if chat else "completions"}
    answer, heat = answer_limit(body) or 1, body.get("temperature")
    return Facts(text, counted, body["model"], answer, needed, heat, request.stream, one, as_measured, prompts)


def needs(body: Mapping[str, Any]) -> frozenset[str]:
    """What the tier must be able to do. Server tools need no ability: they are not offered to a tier that takes no tools."""
    found = set()
    if server_tools.client_tools(body):
        found.add("tools")
        if body.get("tool_choice") == "required" or isinstance(body.get("tool_choice"), dict):
            found.add("tool_choice")
    if continues(body):
        found.add("prefill")
    if wants_json(body) or body.get("structured_outputs"):
        found.add("json")
    if any(body.get(field) is not None and body[field] is not False for field in ("logprobs", "prompt_logprobs")):
        found.add("logprobs")
    contents = [m.get("content") for m in body.get("messages") or []]
    found |= {part_need(part) for content in contents if isinstance(content, list) for part in content}
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        found.add("audio")
    return frozenset(found - {""})


def part_need(part: Mapping[str, Any]) -> str:
    """What a tier must be able to do with a part of a message; empty: read text. A type that we do not know is a need itself."""
    kind = part.get("type")
    if kind is None:  # some servers take parts without a type; what they hold says it
        kind = next((name for name in PART_NEEDS if name in part), "text" if "text" in part else "none")
    return PART_NEEDS.get(str(kind), f"{UNKNOWN_PART}{str(kind)[:64]}")


def margin(token: Mapping[str, Any]) -> float | None:
    """Log-probability of a token minus that of its runner-up; None: no alternatives are given."""
    others = [float(o["logprob"]) for o in token.get("top_logprobs") or [] if o.get("token") != token.get("token")]
    return float(token["logprob"]) - max(others) if others else None


def forwarded(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The body that a tier gets: its own model name, no server tools, and usage at the end of a stream unless declined."""
    sent = {**server_tools.without(body), "model": model}
    if body.get("stream"):
        sent["stream_options"] = {"include_usage": True, **(body.get("stream_options") or {})}
    return sent
