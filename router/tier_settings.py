"""The settings of one tier: its engine, context window and price. Part of the YAML file that router/config.py reads.

Each engine has one class here. Their base, `Tier`, answers every question that the rest of the product asks of a tier, with
a default that suits an engine elsewhere; so only an engine's own files need to know its class.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from router.doze_settings import DozingReplicas
from router.engine_settings import NOTHING, ModelSource, Served, Settings, Upstream
from router.reasoning_settings import Effort, Reasoning, fixed, named_parser, pinned

UNBOUNDED = 1e9  # requests at once of a tier whose size we do not know
ANSWER_RESERVE = 2_048  # tokens that a window must have left for an answer, by default
THE_REQUESTS = frozenset(
    """
    model messages prompt stream stream_options n best_of max_tokens max_completion_tokens tools tool_choice functions
    function_call response_format structured_outputs logprobs top_logprobs prompt_logprobs echo include_reasoning user store
    metadata stepdown
    """.split()
)
"""fields that a tier's `body` may not have: clients and the router set them, and both rely on what they set"""


class Price(Settings):
    """What a tier costs: list prices per token, or the price of its accelerators by the hour, or both."""

    usd_per_1m_input: Annotated[float, Field(ge=0)] | None = None
    """USD per million input tokens"""
    usd_per_1m_output: Annotated[float, Field(ge=0)] | None = None
    """USD per million output tokens"""
    usd_per_1m_cached_input: Annotated[float, Field(ge=0)] | None = None
    """USD per million input tokens that were in the prefix cache; none: the price of other input"""
    usd_per_accelerator_hour: Annotated[float, Field(ge=0)] | None = None
    """USD per hour of one accelerator, busy or idle"""

    @model_validator(mode="after")
    def known(self) -> "Price":
        tokens = (self.usd_per_1m_input, self.usd_per_1m_output)
        if (tokens[0] is None) != (tokens[1] is None):
            raise ValueError("give both usd_per_1m_input and usd_per_1m_output, or neither")
        if tokens[0] is None and self.usd_per_accelerator_hour is None:
            raise ValueError("an unknown price is no price: give usd_per_accelerator_hour, or both prices per 1m tokens")
        return self


class Licence(Settings):
    """The licence of a tier's model, kept with each answer of it."""

    id: Annotated[str, Field(max_length=64)] = "unknown"
    """its SPDX id, or a name"""
    train_on_outputs: Literal["any", "same-family", "none", "unknown"] = "unknown"
    """which models may be trained on its answers. Routers, which only learn which tier suffices, need no permission"""
    family: Annotated[str, Field(max_length=64)] = ""
    """the family of models that it belongs to, such as llama-3; `same-family` needs it on both tiers"""
    name_begins: Annotated[str, Field(max_length=64)] = ""
    """what the name of a model must begin with that is trained on its answers, such as Llama; empty: no such rule"""


class Tier(Served):
    """A model size with a price: the settings that all engines share, and what the product may ask of any tier.

    A subclass with a literal `engine` is an engine's settings; a tier in the YAML file is read by the class of its engine.
    """

    local: ClassVar[bool] = False
    """Ray Serve runs its replicas on this cluster, so the machine time that they hold is counted"""
    licence: Licence = Licence()
    """of its model"""
    price: Price
    """what it costs"""
    context: Annotated[int, Field(gt=0)]
    """tokens that prompt and answer may have together"""
    tools: bool | Literal["auto"] = "auto"
    """may be given tools. auto, of this and the next two: a vLLM tier finds out at its start; others may have tools and JSON,
    and no images. true is a promise: a model that cannot stops the start"""
    json_mode: bool | Literal["auto"] = "auto"
    """may be asked for JSON or a JSON schema"""
    images: bool | Literal["auto"] = "auto"
    """may be given images"""
    prefill: bool = True
    """continues an answer that the client began: the last message is the assistant's"""
    audio: bool = False
    """may be given sound, and asked for it"""
    video: bool = False
    """may be given videos"""
    files: bool = False
    """may be given files, such as PDFs"""
    parts: list[str] = []
    """further types of message parts that it understands, by the name that clients give them"""
    image_tokens: Annotated[int, Field(gt=0)] = 16_384
    """tokens that one image takes at most, in windows, reservations and limits; the default is the most that current vision
    models take (Qwen-VL). Audio, video and files have no known bound: each counts as a whole window"""
    reasoning: Annotated[Reasoning | None, BeforeValidator(named_parser)] = None
    """of a model that thinks; none: what it says of thinking passes as it is, and so does what clients ask of it. A text is its
    `parser`"""
    body: dict[str, Any] = {}
    """fields that every request to it gets, `chat_template_kwargs` key by key. They replace what the client says, but for
    sampling (temperature, top_p, stop and the like), where they are the defaults"""
    effort: Effort | None = None
    """how much it thinks, as a label for clients: it gets no request to `auto` with a smaller reasoning_effort. Never sent"""
    thought: Annotated[int, Field(ge=0)] | None = None
    """most tokens of a thought, and at most half of the answer's limit. A vLLM tier needs a parser for it, of a remote one it is
    taken for granted where `reasoning.parser` is not set"""
    hedge_after_s: Annotated[float, Field(gt=0)] | Literal["p95"] | None = None
    """seconds without a first token after which a request is also sent to another replica (of a remote tier: to the same
    address). The first to begin answers, the other is stopped, and both are paid for. p95: longer than 19 of 20 recent
    calls took. At most a tenth of the requests are sent twice, retries after failures included. None: never"""

    @property
    def runs_on(self) -> str:
        """The tier whose replicas answer for it: itself, unless it is a rung on another one."""
        return self.name

    @property
    def cache(self) -> str:
        """The tier whose prefix cache holds what it has read: itself, or its host where both read alike."""
        return self.name

    @property
    def accelerators(self) -> float:
        """Accelerators of one replica; a share of one is less than 1."""
        return 0.0

    @property
    def accelerators_billed(self) -> float:
        """The same in prices and books, where a replica on CPUs counts as one."""
        return self.accelerators or 1.0

    @property
    def most_replicas(self) -> int:
        """Upper bound on its replicas."""
        return 1

    def capacity(self, running: int) -> float:
        """Requests that it can work on at once when the last look found `running` replicas."""
        return UNBOUNDED

    @field_validator("body")
    @classmethod
    def may_be_sent(cls, body: dict[str, Any]) -> dict[str, Any]:
        if name := next((name for name in body if name in THE_REQUESTS), None):
            raise ValueError(f"{name} belongs to each request; remove it")
        if "thinking_token_budget" in body:
            raise ValueError("thinking_token_budget has a setting of its own: thought")
        if not isinstance(body.get("chat_template_kwargs", {}), dict):
            raise ValueError("chat_template_kwargs: expected fields of the chat template, such as {enable_thinking: false}")
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot be sent as JSON ({error}); put dates and the like in quotes") from None
        return body

    @model_validator(mode="after")
    def one_budget(self) -> "Tier":
        if self.thought is not None and self.reasoning is not None and self.reasoning.budget is not None:
            raise ValueError("thought and reasoning.budget are the same; give only thought")
        return self

    @property
    def thinks(self) -> bool | None:
        """Whether it thinks where a request does not say; None: nobody knows."""
        on, settings = pinned(self.body), self.thinking
        return on if on is not None or settings is None else settings.default == "on"

    @property
    def costs_by_thought(self) -> bool:
        """Its thoughts make up much of its cost, so its place in the ladder is the operator's to say, not the price's."""
        stated = self.effort is not None or self.thought is not None or pinned(self.body) is not None
        return stated and bool(self.thinks)

    @property
    def thinking(self) -> Reasoning | None:
        """`reasoning` with all that follows from the other settings."""
        return fixed(self.reasoning, self.body, self.thought)

    @property
    def thought_settings(self) -> Mapping[str, Any]:
        """What of these settings changes answers, as options of the engine; empty: there is none."""
        return own_settings(self.reasoning, self.body, self.thought)

    @property
    def model_source(self) -> ModelSource:
        return self.with_thoughts(super().model_source)

    def with_thoughts(self, source: ModelSource) -> ModelSource:
        return source._replace(settings={**source.settings, **self.thought_settings})


class VllmTier(DozingReplicas, Tier):
    """A tier on vLLM replicas that Ray Serve runs."""

    engine: Literal["vllm"]
    """vllm"""
    affinity: Literal["prefix", "session", "none"] = "prefix"
    """which of several replicas gets a request: the one that has read its conversation before. A new conversation goes to
    one that has read its first `affinity_chars` (prefix), or to any (session). none: always the less busy of two"""
    affinity_chars: Annotated[int, Field(ge=1, le=20_000)] = 1_000
    """characters that make up a beginning: enough to tell topics apart, few enough to be shared by questions about one topic"""
    resume: bool = True
    """a stream whose replica is lost in mid-answer goes on at another one, from the tokens that came; only with several replicas,
    and not with grammars, penalties, log-probabilities, several answers, or a tool call that has begun"""

    @model_validator(mode="after")
    def whole_window(self) -> "VllmTier":
        least = self.engine_kwargs.get("max_model_len")
        if isinstance(least, int) and not isinstance(least, bool) and 0 < least < self.context:
            raise ValueError(
                f"context is {self.context}, and engine_kwargs.max_model_len {least}, so longer requests would fail; remove the "
                "latter (it follows context), or set context to it"
            )
        return self

    @model_validator(mode="after")
    def one_parser(self) -> "VllmTier":
        named, given = self.reasoning and self.reasoning.parser, self.engine_kwargs.get("reasoning_parser")
        if named and given and named != given:
            raise ValueError(f"reasoning.parser is {named} and engine_kwargs.reasoning_parser {given}; give one of them")
        if self.reasoning and self.reasoning.budget is not None and not self.parser:
            raise ValueError("reasoning.budget needs reasoning.parser: without one vLLM refuses every request with a budget")
        if self.thought is not None and not self.parser:
            raise ValueError("thought needs reasoning.parser: without one vLLM refuses every request with a budget")
        return self

    @property
    def parser(self) -> str | None:
        """vLLM's parser of thoughts."""
        named = self.reasoning.parser if self.reasoning else None
        return named or self.engine_kwargs.get("reasoning_parser")

    @property
    def thinking(self) -> Reasoning | None:
        return self.thinking_with(self.body, self.thought)

    def thinking_with(self, body: Mapping[str, Any], thought: int | None) -> Reasoning | None:
        """The same for a rung on it with a body and a limit of its own. Who limits or switches thoughts knows of some."""
        known, parser = self.reasoning, self.parser
        if known is None and (parser is None or (thought is None and pinned(body) is None)):
            return None
        settings = known or Reasoning()
        found = {
            "parser": parser,
            "opened": parser is None if settings.opened is None else settings.opened,
            "limited": parser is not None if settings.limited is None else settings.limited,
        }
        return fixed(settings.model_copy(update=found), body, thought)

    @property
    def model_source(self) -> ModelSource:
        return self.with_thoughts(super().model_source)

    def capacity(self, running: int) -> float:
        """A tier of which no replica was seen counts in full: it may have started since, and if not it fails by itself."""
        return float((running or max(1, self.replicas)) * self.max_ongoing)


class RemoteTier(Upstream, Tier):
    """A tier behind any OpenAI-compatible URL."""

    engine: Literal["remote"]
    """remote"""
    prefill: bool = False
    """continues an answer that the client began; few upstreams know `continue_final_message`"""

    @property
    def model_source(self) -> ModelSource:
        return self.with_thoughts(super().model_source)


class EchoTier(Tier):
    """A tier without a model that repeats its prompt. For tests and demos of the plumbing."""

    engine: Literal["echo"]
    """echo"""
    answers: dict[str, str] = {}
    """answers by prompt; any other prompt is repeated"""
    delay_s: Annotated[float, Field(ge=0)] = 0.0
    """seconds before the first token, and again between tokens"""
    fail: Literal["", "error", "refuse", "mid-stream"] = ""
    """fail on purpose: with status 500, with status 400, or after two tokens of a stream"""
    thought: Annotated[int, Field(ge=0)] | None = None
    """words that it thinks before each answer of a chat that does not forbid it; none: it does not think"""
    thought_form: Literal["parsed", "reasoning_content", "raw", "opened", "cut"] = "parsed"
    """how it tells them, as servers differ. parsed: in the field `reasoning`, counted; reasoning_content: in that field, not
    counted; raw: in the text between <think> and </think>; opened: in the text before a lone </think>; cut: as parsed, and its
    limit is reached before the answer begins"""

    @property
    def model_source(self) -> ModelSource:
        said = {"answers": self.answers} if self.answers else NOTHING
        thought = {"thought": self.thought, "thought_form": self.thought_form} if self.thought else NOTHING
        return self.with_thoughts(ModelSource(self.engine, settings={**said, **thought} or NOTHING))


def comparable(tier: Tier) -> dict[str, float]:
    """A tier's price in each unit that tiers can be ordered by."""
    found = {}
    if tier.price.usd_per_1m_output is not None:
        found["per 1m output tokens"] = tier.price.usd_per_1m_output
    if tier.price.usd_per_accelerator_hour is not None:
        found["per hour of a replica"] = tier.price.usd_per_accelerator_hour * tier.accelerators_billed
    return found


def own_settings(reasoning: Reasoning | None, body: Mapping[str, Any], thought: int | None) -> Mapping[str, Any]:
    """What changes the answers of a tier, and is not the engine's, by name."""
    given = {"reasoning": reasoning.model_dump() if reasoning else None, "body": dict(body) or None, "thought": thought}
    return {name: value for name, value in given.items() if value is not None} or NOTHING


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a request over others, those of `chat_template_kwargs` one by one."""
    kwargs = "chat_template_kwargs"
    both = {**below, **above}
    if isinstance(below.get(kwargs), Mapping) and isinstance(above.get(kwargs), Mapping):
        both[kwargs] = {**below[kwargs], **above[kwargs]}
    return both


def sibling_without_thought(tiers: Sequence[Tier], name: str) -> Tier | None:
    """The cheapest tier on the same replicas that does not think, other than the named one; None: there is none."""
    host = next(tier.runs_on for tier in tiers if tier.name == name)
    return next((tier for tier in tiers if tier.runs_on == host and tier.name != name and tier.thinks is False), None)
