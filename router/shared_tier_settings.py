"""The settings of a rung: a tier that shares the replicas of another one, its host, which it names with `on`.

A rung is a tier to clients, keys, prices, the classifier and the ledger. Its engine, window, tools and machine time are its
host's, so the file says only what differs, the fields in `OWN`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_serializer, model_validator

from router.engine_settings import ModelSource, as_given, by_engine
from router.reasoning_settings import Reasoning
from router.tier_settings import Licence, Price, Tier, VllmTier

OWN = ("name", "on", "lora", "licence", "price")
"""the fields that a rung may have, in the order in which they are written; all others are its host's"""
OTHER_NAMES = {"base": "on", "adapter": "lora"}
HOURLY = "usd_per_accelerator_hour"


class Ladder(NamedTuple):
    """The tiers of the file that a rung is read from, by name, as they were given. No YAML can make one."""

    tiers: Mapping[str, Any]


class SharedTier(Tier):
    """A rung: a LoRA adapter on the replicas of another tier of this file."""

    local: ClassVar[bool] = True
    engine: Literal["vllm"] = "vllm"
    """the host's"""
    on: str
    """the tier whose replicas it shares: a vllm tier of this file that is itself on no other. Also written `base`"""
    lora: Annotated[str, Field(min_length=1)]
    """folder of a LoRA adapter in safetensors, relative to this file, as peft writes it. Also written `adapter`"""
    licence: Licence = Licence()
    """of the adapter; by default the host's"""
    host: Annotated[VllmTier, Field(exclude=True, repr=False)]
    """the settings of the tier that it is on; found by `on`, never written"""

    @model_validator(mode="before")
    @classmethod
    def from_host(cls, given: Any) -> Any:
        """Everything that the rung does not say itself is its host's. Raises ValueError, as pydantic wants."""
        if not isinstance(given, Mapping):
            return given
        said = {OTHER_NAMES.get(name, name): value for name, value in given.items()}
        if len(said) < len(given):
            raise ValueError("base and adapter are other names of on and lora; give each only once")
        ladder = said.pop("host", Ladder({}))
        if not isinstance(ladder, Ladder):
            raise ValueError("host: no such setting; name the host with on")
        host = host_of(said.get("on"), ladder)
        if repeated := [name for name in said if name not in OWN and name in VllmTier.model_fields]:
            raise ValueError(f"{repeated[0]} is that of tier {host.name}, which it is on, and may not be repeated; remove it")
        inherited = {name: getattr(host, name) for name in Tier.model_fields if name != "name"}
        return {**inherited, **said, "price": price_on(host.price, said.get("price")), "host": host}

    @model_serializer
    def as_written(self) -> dict[str, Any]:
        """What the file says of it: the rest is found again when that is read."""
        return {name: getattr(self, name) for name in OWN}

    @property
    def runs_on(self) -> str:
        return self.on

    @property
    def sleeps(self) -> bool:
        return self.host.sleeps

    @property
    def accelerators(self) -> int:
        return self.host.accelerators

    @property
    def most_replicas(self) -> int:
        return self.host.most_replicas

    def capacity(self, running: int) -> float:
        return self.host.capacity(running)

    @property
    def thinking(self) -> Reasoning | None:
        return self.host.thinking

    @property
    def thought_settings(self) -> Mapping[str, Any]:
        return self.host.thought_settings

    @property
    def model_source(self) -> ModelSource:
        return self.host.model_source._replace(adapter=Path(self.lora))

    def placed(self, folder: Path) -> Self:
        return self.model_copy(update={"lora": as_given(folder / self.lora), "host": self.host.placed(folder)})

    def missing(self) -> str:
        return "" if Path(self.lora).is_dir() else f"lora: no folder {self.lora}; name that of an adapter, as peft writes it"


def host_of(on: Any, ladder: Ladder) -> VllmTier:
    """The settings of the tier that a rung is on. Raises ValueError where it cannot be on that one."""
    found = ladder.tiers.get(on) if isinstance(on, str) else None
    if isinstance(found, Mapping) and not found.keys() & {"on", "base"} and found.get("engine") == "vllm":
        try:
            return VllmTier.model_validate(found)
        except ValidationError:
            raise ValueError(f"on: tier {on} has mistakes of its own; mend those first") from None
    if isinstance(found, VllmTier):
        return found
    possible = [str(name) for name, tier in ladder.tiers.items() if may_be_host(tier)]
    expected = f"one of {', '.join(possible)}" if possible else "the name of a tier with engine: vllm, of which there is none"
    raise ValueError(f"on: found {on!r}, expected {expected}: a tier of this file with engine vllm that is on no other")


def may_be_host(tier: Any) -> bool:
    return isinstance(tier, VllmTier) or (isinstance(tier, Mapping) and tier.get("engine") == "vllm" and "on" not in tier)


def price_on(host: Price, given: Any) -> Any:
    """A rung's price: tokens may have their own, the hour of an accelerator is the host's. Raises ValueError."""
    if given is None:
        return host
    told = given.model_dump(exclude_none=True) if isinstance(given, Price) else given
    if not isinstance(told, Mapping) or host.usd_per_accelerator_hour is None:
        return given
    hourly = host.usd_per_accelerator_hour
    if told.get(HOURLY, hourly) != hourly:
        raise ValueError(f"price.{HOURLY}: found {told[HOURLY]}, expected {hourly} as for its host, whose time it is; remove it")
    return {**told, HOURLY: hourly}


def read_tier(given: Any) -> Any:
    """Settings of a tier, by their engine, or as a rung where they have `on`. Raises ValueError."""
    return SharedTier.model_validate(given) if is_rung(given) else by_engine(Tier)(given)


def with_hosts(given: Any) -> Any:
    """Tells each rung of a list of tiers about the others, among which its host is."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        return given
    ladder = Ladder({name_of(tier): tier for tier in given})
    return [{"host": ladder, **tier} if is_rung(tier) else tier for tier in given]


def is_rung(tier: Any) -> bool:
    return isinstance(tier, Mapping) and bool(tier.keys() & {"on", "base"})


def name_of(tier: Any) -> Any:
    return str(tier.get("name")) if isinstance(tier, Mapping) else getattr(tier, "name", None)


AnyTier = Annotated[SerializeAsAny[Tier], BeforeValidator(read_tier)]
AnyTiers = Annotated[list[AnyTier], BeforeValidator(with_hosts)]
"""the list of a file; rungs may stand before their hosts"""
