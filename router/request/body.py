"""Each field of a request's body that more than one place needs, read here by one rule. Bodies have passed `wire.parse`."""

from collections.abc import Mapping, Sequence
from typing import Any


def limit_field(body: Mapping[str, Any]) -> str:
    """The field whose value limits the answer: OpenAI's newer one where a chat sets it, else `max_tokens`.

    A 0 sets nothing. A completion knows only `max_tokens`, to OpenAI and to vLLM.
    """
    return "max_completion_tokens" if "prompt" not in body and body.get("max_completion_tokens") else "max_tokens"


def answer_limit(body: Mapping[str, Any]) -> int | None:
    """The client's limit of one answer, in tokens, at least 1; None: it set none."""
    return body.get(limit_field(body)) or None


def with_answer_limit(body: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """The body with this limit of one answer, in the field that counts."""
    return {**body, limit_field(body): tokens}


def one_answer_limit(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body without the limit that does not count, so that every backend goes by the same one; often the same object."""
    twins = ("max_tokens", "max_completion_tokens")
    if not all(name in body for name in twins):
        return body
    return {name: value for name, value in body.items() if name not in twins or name == limit_field(body)}


def answer_count(body: Mapping[str, Any]) -> int:
    """How many answers the request may make: each prompt's, times the larger of `n` and `best_of`."""
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not is_ids(prompt) else 1
    wanted = [body.get(name) for name in ("n", "best_of")]
    return prompts * max([1, *(n for n in wanted if isinstance(n, int))])


def several_wanted(body: Mapping[str, Any]) -> bool:
    """Whether a chat asks for more than one answer to the same messages."""
    return (body.get("n") or 1) > 1


def wants_json(body: Mapping[str, Any]) -> bool:
    """Whether the answer must be JSON, with a schema or without."""
    return (body.get("response_format") or {}).get("type") in ("json_object", "json_schema")


def is_text(content: Any) -> bool:
    """Whether a message's content has no part that is something else, such as a picture."""
    return not isinstance(content, list) or all(part.get("type") == "text" for part in content)


def is_ids(prompt: Sequence[Any]) -> bool:
    """Whether a completion's `prompt` is one prompt as token ids, not a list of prompts."""
    return all(isinstance(item, int) for item in prompt)


def beyond_flows(body: Mapping[str, Any]) -> str:
    """What is asked for that an answer made of several calls cannot have; empty if nothing is."""
    for found, what in (
        (several_wanted(body), "several answers are asked for"),
        (body.get("logprobs") or body.get("top_logprobs") or body.get("prompt_logprobs"), "log-probabilities are asked for"),
        (body.get("echo"), "echo is asked for"),
    ):
        if found:
            return what
    return ""
