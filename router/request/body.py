"""The fields of a body that several places need, each read here by one rule. Bodies have passed `wire.parse`."""

from collections.abc import Mapping, Sequence
from typing import Any


def limit_field(body: Mapping[str, Any]) -> str:
    """The field that limits the answer: in a chat `max_completion_tokens`, if it is set and not 0, else `max_tokens`.

    A completion has only `max_tokens`, for OpenAI and for vLLM.
    """
    return "max_completion_tokens" if "prompt" not in body and body.get("max_completion_tokens") else "max_tokens"


def answer_limit(body: Mapping[str, Any]) -> int | None:
    """The client's limit of one answer, in tokens, at least 1; None: it set none, or 0."""
    return body.get(limit_field(body)) or None


def answer_reserve(wanted: int, reserve: int, context: int) -> int:
    """Tokens that a window must have left for an answer of at most `wanted` tokens.

    A limit is a ceiling and no need: clients send the largest that their model could write. reserve: the most that counts.
    """
    return max(1, min(wanted, reserve, context // 4))


def with_answer_limit(body: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """The body with this limit of one answer, in the field that counts."""
    return {**body, limit_field(body): tokens}


def one_answer_limit(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body without the limit field that does not count, so that all backends use the same one; often the same object."""
    twins = ("max_tokens", "max_completion_tokens")
    if not all(name in body for name in twins):
        return body
    return {name: value for name, value in body.items() if name not in twins or name == limit_field(body)}


def answer_count(body: Mapping[str, Any]) -> int:
    """Upper bound of the answers that are generated: for each prompt, the larger of `n` and `best_of`."""
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not is_ids(prompt) else 1
    wanted = [body.get(name) for name in ("n", "best_of")]
    return prompts * max([1, *(n for n in wanted if isinstance(n, int))])


def several_wanted(body: Mapping[str, Any]) -> bool:
    """Whether a chat asks for more than one answer to the same messages."""
    return (body.get("n") or 1) > 1


def continues(body: Mapping[str, Any]) -> bool:
    """Whether the answer goes on with the last message, the beginning of which the client wrote."""
    return body.get("continue_final_message") is True


def wants_json(body: Mapping[str, Any]) -> bool:
    """Whether the answer must be JSON, with or without a schema."""
    return (body.get("response_format") or {}).get("type") in ("json_object", "json_schema")


def is_text(content: Any) -> bool:
    """Whether all parts of a message's content are text."""
    return not isinstance(content, list) or all(part.get("type") == "text" for part in content)


def is_ids(prompt: Sequence[Any]) -> bool:
    """Whether a completion's `prompt` is one prompt as token ids, not a list of prompts."""
    return all(isinstance(item, int) for item in prompt)


def beyond_flows(body: Mapping[str, Any]) -> str:
    """Why an answer made of several calls could not satisfy the request; empty: it can."""
    reasons = (
        (several_wanted(body), "several answers are asked for"),
        (continues(body), "the answer continues a message"),
        (body.get("logprobs") or body.get("top_logprobs") or body.get("prompt_logprobs"), "log-probabilities are asked for"),
        (body.get("echo"), "echo is asked for"),
    )
    return next((why for found, why in reasons if found), "")


PASSIVE = frozenset(  # fields that leave an answer as it would be without them
    "model messages stream stream_options logprobs top_logprobs temperature max_tokens max_completion_tokens user metadata store "
    "service_tier safety_identifier prompt_cache_key prompt_cache_retention request_id priority cache_salt "
    "return_token_ids return_tokens_as_token_ids include_reasoning parallel_tool_calls".split()
)
GREEDY = frozenset({"top_p", "top_k", "min_p", "seed"})  # do nothing at temperature 0
NEUTRAL: Mapping[str, Any] = {
    "n": 1,
    "best_of": 1,
    "top_p": 1,
    "min_p": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "min_tokens": 0,
    "response_format": {"type": "text"},
    "use_beam_search": False,
    "ignore_eos": False,
    "add_generation_prompt": True,
    "continue_final_message": False,
    "skip_special_tokens": True,
    "echo": False,
    "tool_choice": "none",
}
"""values that mean the same as leaving the field out"""


def asks_for_more(body: Mapping[str, Any]) -> bool:
    """Whether a chat asks for anything that may change its answer: tools, a format, penalties, or any field not known here."""
    passive = PASSIVE | GREEDY if body.get("temperature") == 0 else PASSIVE
    rest = [(name, value) for name, value in body.items() if name not in passive and value not in (None, "", [], {})]
    return any(value != NEUTRAL.get(name) for name, value in rest)
