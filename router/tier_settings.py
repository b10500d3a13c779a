"""One rung of the ladder: its engine, its window, its price. Part of the YAML file that router/config.py reads."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Settings(BaseModel):
    """The base of all settings: frozen, closed, docstrings become descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Price(Settings):
    """What a tier costs: list prices per token, or the price of its accelerators by the hour, or both."""

    usd_per_1m_input: Annotated[float, Field(ge=0)] | None = None
    """USD per million input tokens"""
    usd_per_1m_output: Annotated[float, Field(ge=0)] | None = None
    """USD per million output tokens"""
    usd_per_1m_cached_input: Annotated[float, Field(ge=0)] | None = None
    """USD per million input tokens that were in the prefix cache; none: as other input"""
    usd_per_accelerator_hour: Annotated[float, Field(ge=0)] | None = None
    """USD per hour of one accelerator, busy or not"""

    @model_validator(mode="after")
    def known(self) -> "Price":
        tokens = (self.usd_per_1m_input, self.usd_per_1m_output)
        if (tokens[0] is None) != (tokens[1] is None):
            raise ValueError("give both usd_per_1m_input and usd_per_1m_output, or neither")
        if tokens[0] is None and self.usd_per_accelerator_hour is None:
            raise ValueError("an unknown price is no price: give usd_per_accelerator_hour, or both prices per 1m tokens")
        return self


class Tier(Settings):
    """A model size with a price. What all engines share."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """what clients put into `model`; short, lower case"""
    price: Price
    """what it costs"""
    context: Annotated[int, Field(gt=0)]
    """tokens that prompt and answer may have together"""
    tools: bool = True
    """may be given tools"""
    json_mode: bool = True
    """may be asked for JSON or a JSON schema"""
    images: bool = False
    """may be given images"""
    hedge_after_s: Annotated[float, Field(gt=0)] | Literal["p95"] | None = None
    """seconds without a first token after which a request is sent to another replica too (to the same address, of a remote
    tier); who begins first answers, the other is stopped, both are paid for. p95: longer than all but one in twenty of the
    last calls. No more than a tenth of the requests are sent twice, tries after failures included. None: never"""

    @field_validator("name")
    @classmethod
    def no_keyword(cls, name: str) -> str:
        if name.split(":")[0] == "auto":
            raise ValueError("'auto' is how clients ask for routing; call the tier something else")
        return name

    @property
    def accelerators(self) -> int:
        """Accelerators that one replica holds."""
        return 0

    @property
    def sleeps(self) -> bool:
        """It may have no replica, while nobody asks."""
        return False


class Scaling(Settings):
    """How the number of replicas follows the load, between a tier's `replicas` and `max_replicas`."""

    ongoing: Annotated[float, Field(gt=0)] | None = None
    """requests, under way and waiting, that each replica should have; none: half of `max_ongoing`"""
    look_back_s: Annotated[float, Field(gt=0)] = 20.0
    """seconds over which load is averaged; Ray takes it every 10 s"""
    up_delay_s: Annotated[float, Field(ge=0)] = 10.0
    """seconds that more replicas must have been wanted for; none are waited for where none run"""
    down_delay_s: Annotated[float, Field(ge=0)] = 300.0
    """seconds that fewer must have been wanted for"""
    idle_s: Annotated[float, Field(ge=0)] = 900.0
    """the same for the last one of a tier with `replicas: 0`"""
    cold_start_wait_s: Annotated[float, Field(ge=0)] = 10.0
    """seconds that a request waits for the first replica of a tier that has none"""
    when_cold: Literal["degrade", "wait"] = "degrade"
    """after that: another tier that has replicas answers (those that routing.when_down allows, and says so in
    x-stepdown-degraded), or 503 where the client named the tier; wait: until there is a replica, or request_timeout_s is over"""


class VllmTier(Tier):
    """A tier on vLLM replicas that Ray Serve runs."""

    engine: Literal["vllm"]
    """vllm"""
    source: str
    """a hub id, or a folder (from this file's place) with the model in safetensors"""
    replicas: Annotated[int, Field(ge=0)] = 1
    """replicas to keep running; 0, with `max_replicas`: none while nobody asks"""
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    """grow by load up to this many; by default the number stays as it is"""
    scaling: Scaling = Scaling()
    """how it grows, and what happens to who asks a tier without a replica"""
    affinity: Literal["prefix", "session", "none"] = "prefix"
    """of several replicas a request goes to the one that has read its conversation before; a new conversation to the one
    that has read its first `affinity_chars` (prefix), or to any (session); none: always the less busy of two"""
    affinity_chars: Annotated[int, Field(ge=1, le=20_000)] = 1_000
    """characters that are a beginning: enough to tell apart what is asked about, few enough to be the same in its questions"""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """accelerators that share one replica"""
    accelerator: str | None = None
    """Ray's name of the accelerator, such as H100; none: the model runs on CPUs"""
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray reserves for one replica; fractions let several share a small machine"""
    resources: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]{0,62}$")], Annotated[float, Field(gt=0)]] = {}
    """Ray resources that a replica reserves besides, for each accelerator: marks of the nodes that it may run on, such as
    {tier-large: 0.01} for nodes started with `ray start --resources '{"tier-large": 1}'`"""
    max_ongoing: Annotated[int, Field(ge=1)] = 64
    """requests that one replica takes at once; more wait"""
    engine_kwargs: dict[str, Any] = {}
    """passed on to vLLM as they are"""
    env: dict[str, str] = {}
    """environment variables of the replicas"""

    @field_validator("resources")
    @classmethod
    def no_twin(cls, resources: dict[str, float]) -> dict[str, float]:
        """What has a setting of its own has it once. Ray takes a quantity above one only whole."""
        twins = {"CPU": "cpus", "GPU": "accelerator and tensor_parallel"}
        if name := next((name for name in twins if name in resources), None):
            raise ValueError(f"{name} has a setting of its own: {twins[name]}")
        if odd := next((name for name, n in resources.items() if n > 1 and n != int(n)), None):
            raise ValueError(f"{odd}: {resources[odd]:g} is neither whole nor below 1")
        return resources

    @model_validator(mode="after")
    def in_order(self) -> "VllmTier":
        if self.max_replicas is None and self.replicas == 0:
            raise ValueError("replicas: 0 needs max_replicas, the number that may start when somebody asks")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas: {self.max_replicas} is less than replicas: {self.replicas}")
        return self

    @property
    def accelerators(self) -> int:
        return self.tensor_parallel if self.accelerator else 0

    @property
    def most_replicas(self) -> int:
        """That it may have."""
        return self.max_replicas or self.replicas

    @property
    def sleeps(self) -> bool:
        return self.replicas == 0


class RemoteTier(Tier):
    """A tier behind any OpenAI-compatible URL."""

    engine: Literal["remote"]
    """remote"""
    url: Annotated[str, Field(pattern=r"^https?://")]
    """base address, up to and with /v1"""
    model: str
    """the model's name there"""
    api_key_env: str | None = None
    """the environment variable that holds its key; never the key itself"""


class EchoTier(Tier):
    """A tier with no model: says back what it was asked. For tests and demos of the plumbing."""

    engine: Literal["echo"]
    """echo"""
    answers: dict[str, str] = {}
    """answers by prompt; other prompts are said back"""
    delay_s: Annotated[float, Field(ge=0)] = 0.0
    """seconds before the first token, and again between tokens"""
    fail: Literal["", "error", "refuse", "mid-stream"] = ""
    """fail on purpose: with status 500, with status 400, or after two tokens of a stream"""


AnyTier = Annotated[VllmTier | RemoteTier | EchoTier, Field(discriminator="engine")]


def comparable(tier: Tier) -> dict[str, float]:
    """A tier's price in the units by which tiers can be put in order."""
    found = {}
    if tier.price.usd_per_1m_output is not None:
        found["per 1m output tokens"] = tier.price.usd_per_1m_output
    if tier.price.usd_per_accelerator_hour is not None:
        found["per hour of a replica"] = tier.price.usd_per_accelerator_hour * max(1, tier.accelerators)
    return found
