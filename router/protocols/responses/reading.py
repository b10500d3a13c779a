"""A request of Responses as a chat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.errors import BadRequest, Unsupported
from router.protocols.edge import About, Encoder, Name
from router.protocols.responses import fields, response_object
from router.protocols.responses.items import Conversation
from router.protocols.responses.output import Shown
from router.protocols.responses.stream import Stream, whole
from router.protocols.responses.tool_choice import chosen
from router.protocols.responses.tools import Tools, offered

PREFIX = "resp_"  # before a request's id
MOST_TOKENS = 10**9
ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
READ = frozenset(
    "model input instructions tools tool_choice parallel_tool_calls text reasoning include max_output_tokens top_logprobs stream "
    "store metadata previous_response_id background conversation prompt prompt_cache_key".split()
)
PASSED = frozenset(  # Responses' own fields that a chat has too, what vLLM adds to a chat, and our own limits
    "temperature top_p stepdown top_k min_p seed stop stop_token_ids bad_words presence_penalty frequency_penalty "
    "repetition_penalty length_penalty min_tokens ignore_eos include_stop_str_in_output skip_special_tokens "
    "spaces_between_special_tokens logit_bias allowed_token_ids logits_processors use_beam_search truncate_prompt_tokens "
    "add_generation_prompt continue_final_message add_special_tokens documents chat_template chat_template_kwargs "
    "mm_processor_kwargs media_io_kwargs structured_outputs guided_json guided_regex guided_choice guided_grammar "
    "guided_decoding_backend guided_whitespace_pattern include_reasoning thinking_token_budget enable_thinking priority "
    "request_id cache_salt return_token_ids return_tokens_as_token_ids kv_transfer_params vllm_xargs repetition_detection".split()
)
MOST_IGNORED = 32  # names that are told


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read: implements `edge.Edge`."""

    body: dict[str, Any]
    ignored: tuple[str, ...]
    session: str
    shown: Shown
    echoed: Mapping[str, Any]
    led: list[dict[str, Any]]
    """the chat but for instructions, which do not carry over to a request that continues the answer"""

    @property
    def name(self) -> Name:
        return "responses"

    @property
    def tells_prompt(self) -> bool:
        return False

    def document(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        output, finish = whole(self.shown, answer)
        return response_object.ended(self.echoed, finish, output.items, answer.get("usage"))

    def said(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        return whole(self.shown, answer)[0].as_chat()

    def encoder(self, prompt_tokens: int = 0) -> Encoder:
        return Stream(self.shown, self.echoed)


def previous(body: Any) -> str | None:
    """The id of the response that a request continues. Raises BadRequest."""
    given = body.get("previous_response_id") if isinstance(body, dict) else None
    return fields.some_text(given, "previous_response_id") or None


def read(body: Any, about: About) -> Asked:
    """body: the decoded JSON. Raises BadRequest, Unsupported, UnsupportedTool."""
    asked = fields.fields(body, "body")
    check(asked)
    tools = offered(asked.get("tools"))
    callable_, choice = chosen(asked.get("tool_choice"), tools)
    conversation = Conversation(tools, about.seals)
    conversation.read([] if asked.get("input") is None and about.history else asked.get("input"))
    included = {fields.text(name, f"include[{i}]") for i, name in enumerate(fields.listed(asked.get("include"), "include"))}
    instructions = fields.some_text(asked.get("instructions"), "instructions")
    led = [*map(dict, about.history), *conversation.messages]
    if not led:
        raise BadRequest("`input` must hold at least one message; send a text or a list of items", "input")
    made = {
        **{name: value for name, value in asked.items() if name in PASSED and value is not None},
        "model": asked["model"],
        "messages": with_one_head([*([{"role": "system", "content": instructions}] if instructions else []), *led]),
        **tooling(callable_, choice, fields.flag(asked.get("parallel_tool_calls"), "parallel_tool_calls")),
        **form(fields.some_fields(asked.get("text"), "text")),
        **wishes(asked, LOGPROBS in included),
    }
    shown = Shown(about.id, tools, about.seals, about.reasoning, ENCRYPTED in included, LOGPROBS in included)
    echoed = response_object.echo(asked, PREFIX + about.id, about.at_s, about.stores and asked.get("store") is not False)
    told = ignored(asked, about, tools, conversation, included)
    return Asked(made, told, session(asked), shown, echoed, with_one_head(led))


def check(asked: Mapping[str, Any]) -> None:
    """The fields that are only checked, or refused."""
    fields.name(asked.get("model"), "model")
    previous(asked)
    if fields.flag(asked.get("background"), "background"):
        raise Unsupported(
            "`background`: answers are not made in the background here; leave it out and wait, or stream", "background"
        )
    for name, instead in (("conversation", "the items in `input`"), ("prompt", "the text itself in `instructions` and `input`")):
        if asked.get(name) is not None:
            raise Unsupported(f"`{name}`: none are kept here; send {instead}", name)


def with_one_head(read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with system texts that stand together at the head as one: some templates take no second."""
    texts = []
    for message in read:
        if message.get("role") != "system" or not isinstance(message.get("content"), str):
            break
        texts.append(message["content"])
    return [{"role": "system", "content": "\n\n".join(texts)}, *read[len(texts) :]] if texts else read


def tooling(tools: Tools, choice: Any, parallel: bool | None) -> dict[str, Any]:
    """The chat's fields about tools: none of them where no tool is left."""
    if not tools.chat:
        return {}
    given = {"tool_choice": choice, "parallel_tool_calls": parallel}
    return {"tools": list(tools.chat), **{name: value for name, value in given.items() if value is not None}}


def form(text: Mapping[str, Any]) -> dict[str, Any]:
    """`text.format` as `response_format`."""
    where = "text.format"
    given = fields.some_fields(text.get("format"), where)
    kind = fields.some_text(given.get("type"), f"{where}.type") or "text"
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": kind}}
    if kind != "json_schema":
        raise BadRequest(f"`{where}.type` must be text, json_object or json_schema, found {kind[:60]!r}", f"{where}.type")
    fields.fields(given.get("schema"), f"{where}.schema")
    fields.some_text(given.get("name"), f"{where}.name")
    schema = {
        "name": "answer",
        **{name: given[name] for name in ("name", "description", "schema", "strict") if given.get(name) is not None},
    }
    return {"response_format": {"type": kind, "json_schema": schema}}


def wishes(asked: Mapping[str, Any], logprobs: bool) -> dict[str, Any]:
    """Fields that a chat calls otherwise, or has only beside another."""
    effort = fields.some_text(fields.some_fields(asked.get("reasoning"), "reasoning").get("effort"), "reasoning.effort")
    limit = fields.at_least_one(asked.get("max_output_tokens"), "max_output_tokens", MOST_TOKENS)
    made: dict[str, Any] = {}
    if limit:
        made["max_completion_tokens"] = limit
    if effort:
        made["reasoning_effort"] = effort
    if logprobs:
        made |= {"logprobs": True, "top_logprobs": asked.get("top_logprobs") or 0}
    if fields.flag(asked.get("stream"), "stream"):
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    if fields.flag(asked.get("store"), "store") is not None:
        made["store"] = asked["store"]
    if asked.get("metadata") is not None:
        made["metadata"] = fields.fields(asked["metadata"], "metadata")
    return made


def ignored(
    asked: Mapping[str, Any], about: About, tools: Tools, conversation: Conversation, included: set[str]
) -> tuple[str, ...]:
    """The names of all that does nothing here."""
    unread = [fields.tellable(name) for name, value in asked.items() if name not in READ | PASSED and value is not None]
    told = (
        ("store", asked.get("store") is True and not about.stores),
        ("text.verbosity", (asked.get("text") or {}).get("verbosity") is not None),
        ("top_logprobs", bool(asked.get("top_logprobs")) and LOGPROBS not in included),
    )
    others = [fields.tellable(f"include.{name}") for name in sorted(included - {ENCRYPTED, LOGPROBS})]
    names: Sequence[str] = [
        *(name for name, holds in told if holds),
        *unread,
        *(f"tools.{kind}" for kind in tools.left_out),
        *conversation.ignored,
        *others,
    ]
    return tuple(dict.fromkeys(names))[:MOST_IGNORED]


def session(asked: Mapping[str, Any]) -> str:
    """What the client calls the conversation."""
    metadata = asked.get("metadata")
    named = (asked.get("prompt_cache_key"), metadata.get("user_id") if isinstance(metadata, dict) else None)
    return next((name for name in named if isinstance(name, str) and name), "")
