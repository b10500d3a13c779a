"""The tokens that a tier reports, in the dialects of several providers, as OpenAI's `usage`; what cannot be true is left out.

What can be true follows from the request: how much text of how many answers it lets the tier write.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from router.request.body import answer_count, answer_limit

MOST_CHARS = 256  # of text in one token: the longest in use are runs of 128 spaces
CACHE_PARTS = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""input that Anthropic reports beside `input_tokens`"""
CACHED = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("", "prompt_cache_hit_tokens"),  # DeepSeek
    ("", "cache_read_input_tokens"),  # Anthropic
    ("", "cached_tokens"),  # Moonshot
)
COMPLETION = (("", "completion_tokens"), ("", "output_tokens"))
REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("", "reasoning_tokens"),
)


DOCUMENT_BYTES = 1_000_000  # of a document without its tokens
TOKEN_BYTES = 64  # of a token in a document, prompts that are given back included
CHANCE_BYTES = 250  # of one log-probability
CHUNK_BYTES = 1_000  # of what a stream has around a token
ALL = 1_000  # log-probabilities where the client asks for all


@dataclass(frozen=True, slots=True)
class Most:
    """Upper bounds of what one call can use. prompt, completion: tokens."""

    prompt: int
    completion: int
    document_bytes: int
    stream_bytes: int

    @classmethod
    def of(cls, body: Mapping[str, Any], context: int) -> "Most":
        """context: the tier's window."""
        answers = answer_count(body)
        prompt = context * (answers if isinstance(body.get("prompt"), list) else 1)
        completion = answers * min(answer_limit(body) or context, context)
        asked = [body.get(name) for name in ("logprobs", "top_logprobs", "prompt_logprobs")]
        chances = max((1 + (int(found) if found >= 0 else ALL) for found in asked if found and isinstance(found, int)), default=0)
        document = DOCUMENT_BYTES + (prompt + completion) * (TOKEN_BYTES + CHANCE_BYTES * chances)
        return cls(prompt, completion, document, document + completion * CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Told:
    """What a tier reported, as far as it can be true."""

    usage: dict[str, Any] | None
    """OpenAI's; None: it has to be counted here"""
    untrue: str = ""
    """a figure that cannot be true; empty: all can"""


def is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0  # true and false are integers to Python, not here


def reported(given: Any, most: Most, chars: int) -> Told:
    """chars: characters of text that the tier has sent so far."""
    if not isinstance(given, Mapping):
        return Told(None, f"{show(given)} usage")
    prompt, completion = prompt_of(given), figure(given, COMPLETION)
    if not is_count(prompt) or not 0 < prompt <= most.prompt:
        return Told(None, f"{show(prompt)} prompt tokens, of which {most.prompt} are possible")
    if not is_count(completion):
        return Told(None, f"{show(completion)} completion tokens")
    reasoning = figure(given, REASONING)
    apart = (
        reasoning if is_count(reasoning) and given.get("total_tokens") == prompt + completion + reasoning else 0
    )  # xAI, Gemini
    if not chars <= completion * MOST_CHARS or completion > most.completion or apart > most.prompt:
        return Told(None, f"{show(completion)} completion tokens for {chars} characters, of which {most.completion} are possible")
    completion += apart
    made: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    untrue = add_part(made, "prompt_tokens_details", "cached_tokens", figure(given, CACHED), given, prompt)
    untrue = add_part(made, "completion_tokens_details", "reasoning_tokens", reasoning, given, completion) or untrue
    return Told(made, untrue)


def add_part(made: dict[str, Any], details: str, name: str, part: Any, given: Mapping[str, Any], whole: int) -> str:
    """Add a part of `whole` tokens, and the other parts beside it, to the usage. Returns it where it cannot be true."""
    others = given.get(details)
    kept = {k: v for k, v in others.items() if k != name and is_count(v) and v <= whole} if isinstance(others, Mapping) else {}
    true = is_count(part) and part <= whole
    if kept or true:
        made[details] = kept | ({name: part} if true else {})
    return "" if true or part is None else f"{show(part)} {name} of {whole}"


def prompt_of(given: Mapping[str, Any]) -> Any:
    """The prompt's tokens, those in the cache included."""
    if given.get("prompt_tokens") is not None:
        return given["prompt_tokens"]
    beside = [part for name in CACHE_PARTS if is_count(part := given.get(name))]
    found = given.get("input_tokens")
    return found + sum(beside) if is_count(found) else found


def figure(given: Mapping[str, Any], places: tuple[tuple[str, str], ...]) -> Any:
    """The first figure found; None: there is none."""
    for outer, name in places:
        holder = given.get(outer) if outer else given
        if isinstance(holder, Mapping) and holder.get(name) is not None:
            return holder[name]
    return None


def show(value: Any) -> str:
    """A figure as the log gets it: never long."""
    return (
        str(value)
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**18)
        else f"{type(value).__name__} as"
    )
