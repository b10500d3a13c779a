"""Reading a request: a body of Messages becomes a chat body."""

from collections.abc import Mapping
from typing import Any

from router.errors import BadRequest, NoThread
from router.protocols.edge import About
from router.protocols.messages.answers import Shown
from router.protocols.messages.asked import Asked
from router.protocols.messages.content import system_text
from router.protocols.messages.fields import Told, flag, mapping, name, objects, optional, share, whole, wrong
from router.protocols.messages.history import chat_messages
from router.protocols.messages.thinking import shows, thinking_fields
from router.protocols.messages.tools import tool_fields

READ = frozenset(
    "model messages system max_tokens stop_sequences stream temperature top_p top_k tools tool_choice thinking output_config "
    "output_format metadata".split()
)
PASSED = frozenset(  # vLLM's own fields that leave one answer one answer, and ours
    "stepdown seed frequency_penalty presence_penalty logit_bias min_p repetition_penalty length_penalty stop_token_ids "
    "include_stop_str_in_output ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens allowed_token_ids "
    "bad_words repetition_detection structured_outputs documents chat_template chat_template_kwargs media_io_kwargs "
    "mm_processor_kwargs reasoning_effort thinking_token_budget include_reasoning enable_thinking priority cache_salt "
    "kv_transfer_params ec_transfer_params vllm_xargs".split()
)
SCHEMA_NAME = "answer"  # OpenAI wants one, Anthropic has none


def read(body: Any, about: About, counting: bool = False) -> Asked:
    """body: decoded JSON. counting: its tokens are to be counted, so it needs no limit of the answer. Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, found {type(body).__name__}")
    told = Told()
    whole_conversation(body.get("thread"))
    model = name(body.get("model"), "model")
    most = limit(body.get("max_tokens"), counting)
    messages = conversation(body, about, told)
    chat: dict[str, Any] = {key: value for key, value in body.items() if key in PASSED and value is not None}
    chat |= {"model": model, "messages": messages}
    chat |= {} if most is None else {"max_completion_tokens": most}
    chat |= thinking_fields(body, most) | sampling(body) | tool_fields(body, told) | form(body)
    chat |= streaming(body.get("stream"))
    prefill = prefilled(messages, counting)
    if prefill:
        chat |= {"add_generation_prompt": False, "continue_final_message": True}
    session = session_of(body.get("metadata"), told)
    unread(body, told)
    shown = Shown(about.id, model, about.seals, "nothing" if about.reasoning == "hidden" else shows(body))
    return Asked(chat, shown, told.names, session, prefill)


def limit(given: Any, counting: bool) -> int | None:
    if given is None and counting:
        return None
    if given is None:
        raise BadRequest("`max_tokens` is missing; send the most tokens that the answer may have, such as 4096", "max_tokens")
    return whole(given, "max_tokens", 1)


def whole_conversation(thread: Any) -> None:
    """Raises NoThread where the messages continue others. A thread that begins has all of them, so it needs nobody to keep it."""
    if thread is not None and not (isinstance(thread, dict) and thread.get("type") == "create"):
        raise NoThread


def conversation(body: Mapping[str, Any], about: About, told: Told) -> list[dict[str, Any]]:
    """The system prompt and all messages. Raises BadRequest."""
    given = objects(body.get("messages"), "messages")
    if not given:
        raise BadRequest("`messages` must be a list of at least one message", "messages")
    system = body.get("system")
    head = system_text(system, "system", told) if system is not None else ""
    return [*([{"role": "system", "content": head}] if head else []), *chat_messages(given, about.seals, told)]


def prefilled(messages: list[dict[str, Any]], counting: bool) -> bool:
    """Whether the answer continues the last message. One without text begins nothing, so it is taken out. Raises BadRequest."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant":
        return False
    if last.get("tool_calls"):
        if counting:
            return False
        raise BadRequest(
            "`messages` ends with a call of a tool; send its result as the next message, in a block of type tool_result",
            "messages",
        )
    if not last["content"]:
        messages.pop()
        return False
    return True


def sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for field in ("temperature", "top_p"):
        if body.get(field) is not None:
            fields[field] = share(body[field], field)
    if body.get("top_k") is not None:
        fields["top_k"] = whole(body["top_k"], "top_k", -1)
    stop = body.get("stop_sequences")
    if stop is not None and not (isinstance(stop, list) and all(isinstance(end, str) and end for end in stop)):
        raise wrong("stop_sequences", "a list of texts that are not empty", stop)
    return fields | ({"stop": stop} if stop else {})


def form(body: Mapping[str, Any]) -> dict[str, Any]:
    """`response_format`, from the present field or from that of the beta. Raises BadRequest."""
    where = "output_config.format"
    given = optional(body.get("output_config"), "output_config").get("format")
    if given is None:
        where, given = "output_format", body.get("output_format")
    if given is None:
        return {}
    if mapping(given, where).get("type") != "json_schema":
        raise wrong(f"{where}.type", "json_schema", given.get("type"))
    schema = mapping(given.get("schema"), f"{where}.schema")
    return {"response_format": {"type": "json_schema", "json_schema": {"name": SCHEMA_NAME, "schema": schema}}}


def streaming(given: Any) -> dict[str, Any]:
    """The usage is needed at the end, whether or not the tier would tell it."""
    return {"stream": True, "stream_options": {"include_usage": True}} if flag(given, "stream") else {}


def session_of(metadata: Any, told: Told) -> str:
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    if isinstance(user, str) and user:
        return user
    if metadata:
        told.add("metadata")
    return ""


def unread(body: Mapping[str, Any], told: Told) -> None:
    """Tell which fields do nothing. Those that are empty ask for nothing."""
    for field, value in body.items():
        if field not in READ and field not in PASSED and value not in (None, "", [], {}):
            told.add(field)
