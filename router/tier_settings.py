"""The settings of one tier: its engine, context window and price. Part of the YAML file that router/config.py reads.

Each engine has one class here. Their base, `Tier`, answers every question that the rest of the product asks of a tier, with
a default that suits an engine elsewhere; so only an engine's own files need to know its class.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from router.engine_settings import NOTHING, ModelSource, Served, Settings, Upstream, VllmReplicas
from router.reasoning_settings import Reasoning

UNBOUNDED = 1e9  # requests at once of a tier whose size we do not know
ANSWER_RESERVE = 2_048  # tokens that a window must have left for an answer, by default


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
    tools: bool = True
    """may be given tools. Where the file itself says true to this or one of the next two, a model that cannot stops the start"""
    json_mode: bool = True
    """may be asked for JSON or a JSON schema"""
    prefill: bool = True
    """continues an answer that the client began: the last message is the assistant's"""
    images: bool = False
    """may be given images"""
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
    reasoning: Reasoning | None = None
    """of a model that thinks; none: what it says of thinking passes as it is, and so does what clients ask of it"""
    hedge_after_s: Annotated[float, Field(gt=0)] | Literal["p95"] | None = None
    """seconds without a first token after which a request is also sent to another replica (of a remote tier: to the same
    address). The first to begin answers, the other is stopped, and both are paid for. p95: longer than 19 of 20 recent
    calls took. At most a tenth of the requests are sent twice, retries after failures included. None: never"""

    @property
    def runs_on(self) -> str:
        """The tier whose replicas answer for it: itself, unless it is a rung on another one."""
        return self.name

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return 0

    @property
    def most_replicas(self) -> int:
        """Upper bound on its replicas."""
        return 1

    def capacity(self, running: int) -> float:
        """Requests that it can work on at once when the last look found `running` replicas."""
        return UNBOUNDED

    @property
    def thinking(self) -> Reasoning | None:
        """`reasoning` with all that follows from the engine's other settings."""
        return self.reasoning

    @property
    def thought_settings(self) -> Mapping[str, Any]:
        """What of `reasoning` changes answers, as an option of the engine; empty: there is none."""
        return {"reasoning": self.reasoning.model_dump()} if self.reasoning else NOTHING

    @property
    def model_source(self) -> ModelSource:
        return self.with_thoughts(super().model_source)

    def with_thoughts(self, source: ModelSource) -> ModelSource:
        return source._replace(settings={**source.settings, **self.thought_settings})


class VllmTier(VllmReplicas, Tier):
    """A tier on vLLM replicas that Ray Serve runs."""

    engine: Literal["vllm"]
    """vllm"""
    affinity: Literal["prefix", "session", "none"] = "prefix"
    """which of several replicas gets a request: the one that has read its conversation before. A new conversation goes to
    one that has read its first `affinity_chars` (prefix), or to any (session). none: always the less busy of two"""
    affinity_chars: Annotated[int, Field(ge=1, le=20_000)] = 1_000
    """characters that make up a beginning: enough to tell topics apart, few enough to be shared by questions about one topic"""

    @model_validator(mode="after")
    def one_parser(self) -> "VllmTier":
        if self.reasoning is None:
            return self
        named, given = self.reasoning.parser, self.engine_kwargs.get("reasoning_parser")
        if named and given and named != given:
            raise ValueError(f"reasoning.parser is {named} and engine_kwargs.reasoning_parser {given}; give one of them")
        if self.reasoning.budget is not None and not (named or given):
            raise ValueError("reasoning.budget needs reasoning.parser: without one vLLM refuses every request with a budget")
        return self

    @property
    def thinking(self) -> Reasoning | None:
        if self.reasoning is None:
            return None
        parser, opened = self.reasoning.parser or self.engine_kwargs.get("reasoning_parser"), self.reasoning.opened
        return self.reasoning.model_copy(update={"parser": parser, "opened": parser is None if opened is None else opened})

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

    @property
    def model_source(self) -> ModelSource:
        return self.with_thoughts(ModelSource(self.engine, settings={"answers": self.answers} if self.answers else NOTHING))


def comparable(tier: Tier) -> dict[str, float]:
    """A tier's price in each unit that tiers can be ordered by."""
    found = {}
    if tier.price.usd_per_1m_output is not None:
        found["per 1m output tokens"] = tier.price.usd_per_1m_output
    if tier.price.usd_per_accelerator_hour is not None:
        found["per hour of a replica"] = tier.price.usd_per_accelerator_hour * max(1, tier.accelerators)
    return found
