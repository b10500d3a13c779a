"""Settings that tiers and services have in common: a name, and where and how a model runs.

Bases only; the classes of engines are in router/tier_settings.py and router/service_settings.py.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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


NOTHING: Mapping[str, Any] = MappingProxyType({})


class ModelSource(NamedTuple):
    """Where a model comes from."""

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
    adapter: Path | None = None
    """the folder of a LoRA adapter that is put on the model"""


class Served(Settings):
    """What clients may name in `model` and an engine runs. Defaults suit an engine elsewhere."""

    local: ClassVar[bool] = False
    """Ray Serve runs its replicas on this cluster"""
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """the name that clients put into `model`; short, lower case"""
    engine: str
    """what runs it: vllm, remote or echo"""

    @field_validator("name")
    @classmethod
    def no_keyword(cls, name: str) -> str:
        if name.split(":")[0] == "auto":
            raise ValueError("'auto' is how clients ask for routing; call it something else")
        return name

    @property
    def sleeps(self) -> bool:
        """It may have no replica while no request needs one."""
        return False

    @property
    def model_source(self) -> ModelSource:
        return ModelSource(self.engine)

    def placed(self, folder: Path) -> Self:
        """The same with its paths, which are relative to `folder`, made absolute."""
        return self

    def missing(self) -> str:
        """The setting that names something this machine does not have, and how to mend it; empty: nothing is missing."""
        return ""


def by_engine(base: type[Served]) -> Callable[[Any], Any]:
    """A function that reads settings by the subclass of `base` whose literal `engine` they must name."""

    def read(given: Any) -> Any:
        """Raises ValueError, as pydantic wants."""
        if not isinstance(given, dict):
            return given
        engines = ((kind.model_fields["engine"], kind) for kind in base.__subclasses__())
        known = {get_args(field.annotation)[0]: kind for field, kind in engines if field.is_required()}
        engine = given.get("engine")
        if not isinstance(engine, str) or engine not in known:
            raise ValueError(f"engine: found {engine!r}, expected one of {', '.join(known)}")
        return known[engine].model_validate(given)

    return read


class Scaling(Settings):
    """How the number of replicas follows the load, between `replicas` and `max_replicas`."""

    ongoing: Annotated[float, Field(gt=0)] | None = None
    """requests, running and waiting, that each replica should have; none: half of `max_ongoing`"""
    look_back_s: Annotated[float, Field(gt=0)] = 20.0
    """seconds over which load is averaged; Ray samples it every 10 s"""
    up_delay_s: Annotated[float, Field(ge=0)] = 10.0
    """seconds that the load must call for more replicas before they start; the first replica starts at once"""
    down_delay_s: Annotated[float, Field(ge=0)] = 300.0
    """seconds that the load must call for fewer before one stops"""
    idle_s: Annotated[float, Field(ge=0)] = 900.0
    """the same for the last replica where `replicas` is 0"""
    cold_start_wait_s: Annotated[float, Field(ge=0)] = 10.0
    """seconds that a request waits for the first replica where there is none"""
    when_cold: Literal["degrade", "wait"] = "degrade"
    """after that wait. degrade: another tier with replicas answers (one that routing.when_down allows; the answer says so in
    x-stepdown-degraded), or 503 if the client named the tier, or for a service. wait: until a replica is there or
    request_timeout_s is over"""


class VllmReplicas(Settings):
    """Replicas of a model on vLLM that Ray Serve runs. Stands before `Served` among a class's bases."""

    local: ClassVar[bool] = True
    source: str
    """a hub id, or a folder (relative to this file) with the model in safetensors"""
    replicas: Annotated[int, Field(ge=0)] = 1
    """replicas to keep running; 0, with `max_replicas`: none while nobody asks"""
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    """grow with the load up to this many; by default the number is fixed"""
    scaling: Scaling = Scaling()
    """how it grows, and what a request does that finds no replica"""
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
    def in_order(self) -> Self:
        if self.max_replicas is None and self.replicas == 0:
            raise ValueError("replicas: 0 needs max_replicas, the number that may start when a request comes")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas: {self.max_replicas} is less than replicas: {self.replicas}")
        return self

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return self.tensor_parallel if self.accelerator else 0

    @property
    def most_replicas(self) -> int:
        """Upper bound on its replicas."""
        return self.max_replicas or self.replicas

    @property
    def sleeps(self) -> bool:
        return self.replicas == 0

    @property
    def model_source(self) -> ModelSource:
        folder, given = Path(self.source), self.engine_kwargs
        options = json.dumps({name: given[name] for name in ANSWER_OPTIONS if name in given}, sort_keys=True)
        named = Path(own) if (own := str(given.get("tokenizer") or "")) and Path(own).is_dir() else None
        template = str(given.get("chat_template") or "")
        return ModelSource(self.source, folder if folder.is_dir() else None, options, template, given, self.env, named)

    def placed(self, folder: Path) -> Self:
        if self.source.startswith((".", "/")) or (folder / self.source).is_dir():
            return self.model_copy(update={"source": as_given(folder / self.source)})
        return self

    def missing(self) -> str:
        if self.source.startswith("/") and not Path(self.source).is_dir():
            return f"source: no folder {self.source}; give a hub id or a model's folder"
        return ""


class Upstream(Settings):
    """A model behind an OpenAI-compatible URL. Stands before `Served` among a class's bases."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """base address, up to and including /v1"""
    model: str
    """the model's name there"""
    api_key_env: str | None = None
    """the environment variable that holds its key; never the key itself. A key that is refused makes it count as down"""
    tokenizer: str | None = None
    """a folder (relative to this file) with the model's tokenizer.json and chat template; none: every byte counts as a token"""

    @property
    def model_source(self) -> ModelSource:
        return ModelSource(f"{self.url}#{self.model}", tokenizer=Path(self.tokenizer) if self.tokenizer else None)

    def placed(self, folder: Path) -> Self:
        return self.model_copy(update={"tokenizer": str((folder / self.tokenizer).resolve())}) if self.tokenizer else self

    def missing(self) -> str:
        if self.tokenizer and not (Path(self.tokenizer) / "tokenizer.json").is_file():
            return f"tokenizer: no file {self.tokenizer}/tokenizer.json; name a folder that has one, or leave the setting out"
        return ""
