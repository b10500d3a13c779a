"""The settings of one tier: its engine, context window and price. Part of the YAML file that router/config.py reads.

Each engine has one class here. Their base, `Tier`, answers every question that the rest of the product asks of a tier, with
a default that suits an engine elsewhere; so only an engine's own files need to know its class.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, field_validator, model_validator

UNBOUNDED = 1e9  # requests at once of a tier whose size we do not know
ANSWER_RESERVE = 2_048  # tokens that a window must have left for an answer, by default
# The vLLM options that fingerprints knew before deployments/tiers/engine_options.py; for certificates of that time.
ANSWER_OPTIONS = ("dtype", "quantization", "revision", "tokenizer", "logprobs_mode")


def as_given(path: Path) -> str:
    """The absolute path, with its links as they are: a link may lead elsewhere while the server runs, as in a ConfigMap.

    `..` is taken out where that does not change where the path leads.
    """
    given = path.absolute()
    short = os.path.normpath(given)
    return short if os.path.realpath(short) == os.path.realpath(given) else str(given)


class Settings(BaseModel):
    """The base of all settings: frozen, closed to unknown names, with attribute docstrings as descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


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


NOTHING: Mapping[str, Any] = MappingProxyType({})


class ModelSource(NamedTuple):
    """Where a tier's model comes from."""

    id: str
    """identifies the model if its files are not on this machine"""
    folder: Path | None = None
    """the model's files, if they are on this machine"""
    options: str = ""
    """JSON of the options among ANSWER_OPTIONS; empty: it has none"""
    chat_template: str = ""
    """the settings' own, or the name of its file, if they replace the model's"""
    settings: Mapping[str, Any] = NOTHING
    """all options of the engine, by name"""
    env: Mapping[str, str] = NOTHING
    """the environment variables that the engine gets"""
    tokenizer: Path | None = None
    """the folder of the tokenizer, if the settings name one on this machine"""


class Tier(Settings):
    """A model size with a price: the settings that all engines share, and what the product may ask of any tier.

    A subclass with a literal `engine` is an engine's settings; a tier in the YAML file is read by the class of its engine.
    """

    local: ClassVar[bool] = False
    """Ray Serve runs its replicas on this cluster, so the machine time that they hold is counted"""
    licence: Licence = Licence()
    """of its model"""
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """the name that clients put into `model`; short, lower case"""
    engine: str
    """what runs the tier: vllm, remote or echo"""
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
    hedge_after_s: Annotated[float, Field(gt=0)] | Literal["p95"] | None = None
    """seconds without a first token after which a request is also sent to another replica (of a remote tier: to the same
    address). The first to begin answers, the other is stopped, and both are paid for. p95: longer than 19 of 20 recent
    calls took. At most a tenth of the requests are sent twice, retries after failures included. None: never"""

    @field_validator("name")
    @classmethod
    def no_keyword(cls, name: str) -> str:
        if name.split(":")[0] == "auto":
            raise ValueError("'auto' is how clients ask for routing; call the tier something else")
        return name

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return 0

    @property
    def most_replicas(self) -> int:
        """Upper bound on its replicas."""
        return 1

    @property
    def sleeps(self) -> bool:
        """It may have no replica while no request needs one."""
        return False

    def capacity(self, running: int) -> float:
        """Requests that it can work on at once when the last look found `running` replicas."""
        return UNBOUNDED

    @property
    def model_source(self) -> ModelSource:
        return ModelSource(self.engine)

    def placed(self, folder: Path) -> "Tier":
        """The same with its paths, which are relative to `folder`, made absolute."""
        return self

    def missing(self) -> str:
        """The setting that names something this machine does not have, and how to mend it; empty: nothing is missing."""
        return ""


class Scaling(Settings):
    """How the number of replicas follows the load, between a tier's `replicas` and `max_replicas`."""

    ongoing: Annotated[float, Field(gt=0)] | None = None
    """requests, running and waiting, that each replica should have; none: half of `max_ongoing`"""
    look_back_s: Annotated[float, Field(gt=0)] = 20.0
    """seconds over which load is averaged; Ray samples it every 10 s"""
    up_delay_s: Annotated[float, Field(ge=0)] = 10.0
    """seconds that the load must call for more replicas before they start; the first replica starts at once"""
    down_delay_s: Annotated[float, Field(ge=0)] = 300.0
    """seconds that the load must call for fewer before one stops"""
    idle_s: Annotated[float, Field(ge=0)] = 900.0
    """the same for the last replica of a tier with `replicas: 0`"""
    cold_start_wait_s: Annotated[float, Field(ge=0)] = 10.0
    """seconds that a request waits for the first replica of a tier that has none"""
    when_cold: Literal["degrade", "wait"] = "degrade"
    """after that wait. degrade: another tier with replicas answers (one that routing.when_down allows; the answer says so in
    x-stepdown-degraded), or 503 if the client named the tier. wait: until a replica is there or request_timeout_s is over"""


class VllmTier(Tier):
    """A tier on vLLM replicas that Ray Serve runs."""

    local: ClassVar[bool] = True
    engine: Literal["vllm"]
    """vllm"""
    source: str
    """a hub id, or a folder (relative to this file) with the model in safetensors"""
    replicas: Annotated[int, Field(ge=0)] = 1
    """replicas to keep running; 0, with `max_replicas`: none while the tier is idle"""
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    """grow with the load up to this many; by default the number is fixed"""
    scaling: Scaling = Scaling()
    """how it grows, and what a request does that finds no replica"""
    affinity: Literal["prefix", "session", "none"] = "prefix"
    """which of several replicas gets a request: the one that has read its conversation before. A new conversation goes to
    one that has read its first `affinity_chars` (prefix), or to any (session). none: always the less busy of two"""
    affinity_chars: Annotated[int, Field(ge=1, le=20_000)] = 1_000
    """characters that make up a beginning: enough to tell topics apart, few enough to be shared by questions about one topic"""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """accelerators that share one replica"""
    accelerator: str | None = None
    """Ray's name of the accelerator, such as H100; none: the model runs on CPUs"""
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that Ray reserves for one replica; fractions let several share a small machine"""
    resources: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]{0,62}$")], Annotated[float, Field(gt=0)]] = {}
    """further Ray resources that a replica reserves for each accelerator: marks of the nodes that it may run on, such as
    {tier-large: 0.01} for nodes started with `ray start --resources '{"tier-large": 1}'`"""
    max_ongoing: Annotated[int, Field(ge=1)] = 64
    """requests that one replica takes at once; more wait"""
    engine_kwargs: dict[str, Any] = {}
    """passed on to vLLM unchanged"""
    env: dict[str, str] = {}
    """environment variables of the replicas"""

    @field_validator("resources")
    @classmethod
    def no_twin(cls, resources: dict[str, float]) -> dict[str, float]:
        """CPUs and GPUs have their own settings, and Ray takes a quantity above one only as a whole number."""
        twins = {"CPU": "cpus", "GPU": "accelerator and tensor_parallel"}
        if name := next((name for name in twins if name in resources), None):
            raise ValueError(f"{name} has a setting of its own: {twins[name]}")
        if odd := next((name for name, n in resources.items() if n > 1 and n != int(n)), None):
            raise ValueError(f"{odd}: {resources[odd]:g} is neither whole nor below 1")
        return resources

    @model_validator(mode="after")
    def in_order(self) -> "VllmTier":
        if self.max_replicas is None and self.replicas == 0:
            raise ValueError("replicas: 0 needs max_replicas, the number that may start when a request comes")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas: {self.max_replicas} is less than replicas: {self.replicas}")
        return self

    @property
    def accelerators(self) -> int:
        return self.tensor_parallel if self.accelerator else 0

    @property
    def most_replicas(self) -> int:
        return self.max_replicas or self.replicas

    @property
    def sleeps(self) -> bool:
        return self.replicas == 0

    def capacity(self, running: int) -> float:
        """A tier of which no replica was seen counts in full: it may have started since, and if not it fails by itself."""
        return float((running or max(1, self.replicas)) * self.max_ongoing)

    @property
    def model_source(self) -> ModelSource:
        folder, given = Path(self.source), self.engine_kwargs
        options = json.dumps({name: given[name] for name in ANSWER_OPTIONS if name in given}, sort_keys=True)
        named = Path(own) if (own := str(given.get("tokenizer") or "")) and Path(own).is_dir() else None
        template = str(given.get("chat_template") or "")
        return ModelSource(self.source, folder if folder.is_dir() else None, options, template, given, self.env, named)

    def placed(self, folder: Path) -> "VllmTier":
        if self.source.startswith((".", "/")) or (folder / self.source).is_dir():
            return self.model_copy(update={"source": as_given(folder / self.source)})
        return self

    def missing(self) -> str:
        if self.source.startswith("/") and not Path(self.source).is_dir():
            return f"source: no folder {self.source}; give a hub id or a model's folder"
        return ""


class RemoteTier(Tier):
    """A tier behind any OpenAI-compatible URL."""

    engine: Literal["remote"]
    """remote"""
    url: Annotated[str, Field(pattern=r"^https?://")]
    """base address, up to and including /v1"""
    model: str
    """the model's name there"""
    api_key_env: str | None = None
    """the environment variable that holds its key; never the key itself. A key that is refused makes the tier count as down"""
    prefill: bool = False
    """continues an answer that the client began; few upstreams know `continue_final_message`"""
    tokenizer: str | None = None
    """a folder (relative to this file) with the model's tokenizer.json and chat template; none: every byte counts as a token"""

    @property
    def model_source(self) -> ModelSource:
        return ModelSource(f"{self.url}#{self.model}", tokenizer=Path(self.tokenizer) if self.tokenizer else None)

    def placed(self, folder: Path) -> "RemoteTier":
        return self.model_copy(update={"tokenizer": str((folder / self.tokenizer).resolve())}) if self.tokenizer else self

    def missing(self) -> str:
        if self.tokenizer and not (Path(self.tokenizer) / "tokenizer.json").is_file():
            return f"tokenizer: no file {self.tokenizer}/tokenizer.json; name a folder that has one, or leave the setting out"
        return ""


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
        return ModelSource(self.engine, settings={"answers": self.answers} if self.answers else NOTHING)


def by_engine(given: Any) -> Any:
    """A tier's settings, read by the subclass of `Tier` whose engine they name. Raises ValueError, as pydantic wants."""
    if not isinstance(given, dict):
        return given
    known = {get_args(kind.model_fields["engine"].annotation)[0]: kind for kind in Tier.__subclasses__()}
    engine = given.get("engine")
    if not isinstance(engine, str) or engine not in known:
        raise ValueError(f"engine: found {engine!r}, expected one of {', '.join(known)}")
    return known[engine].model_validate(given)


AnyTier = Annotated[SerializeAsAny[Tier], BeforeValidator(by_engine)]


def comparable(tier: Tier) -> dict[str, float]:
    """A tier's price in each unit that tiers can be ordered by."""
    found = {}
    if tier.price.usd_per_1m_output is not None:
        found["per 1m output tokens"] = tier.price.usd_per_1m_output
    if tier.price.usd_per_accelerator_hour is not None:
        found["per hour of a replica"] = tier.price.usd_per_accelerator_hour * max(1, tier.accelerators)
    return found
