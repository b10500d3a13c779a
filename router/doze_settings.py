"""The settings of a tier that dozes. Part of the YAML file that router/config.py reads."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from router.engine_settings import Settings, VllmReplicas

SLEEP_MODE = "enable_sleep_mode"  # vLLM's option


class Doze(Settings):
    """An idle replica gives the memory of its GPU back (its weights go to the machine's memory, its cache is dropped) but stays
    where it is, and takes it again for the next call, which waits for that.
    """

    after_s: Annotated[float, Field(ge=1)] = 300.0
    """seconds without a call after which it dozes"""


class Card(Settings):
    """One of several tiers that take turns on a GPU whose memory does not hold all of them."""

    group: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}$")]
    """a name that they share. All of its replicas on one machine take turns, so each GPU of a machine needs a group of its own"""
    gib: Annotated[float, Field(gt=0)]
    """memory of the GPU that a replica holds while it is awake, in GiB: all that its engine takes, cache included"""
    of_gib: Annotated[float, Field(gt=0)]
    """memory of the GPU that the group may hold together, in GiB"""
    kept_gib: Annotated[float, Field(ge=0)] = 1.5
    """what it still holds while it dozes (context and graphs), in GiB"""

    @model_validator(mode="after")
    def fits(self) -> Self:
        if not self.kept_gib < self.gib <= self.of_gib:
            raise ValueError(
                f"card: found gib {self.gib:g} of {self.of_gib:g}, kept_gib {self.kept_gib:g}; expected kept_gib < gib <= of_gib"
                ": a tier needs more while it is awake than while it dozes, and no more than there is"
            )
        return self


def refusal(doze: Doze | None, card: Card | None, on_cpu: bool, options: Mapping[str, Any], gone_after_s: float | None) -> str:
    """Why these settings contradict each other, and what to change; empty: they do not.

    options: of the engine. gone_after_s: when the last replica is stopped; None: it never is.
    """
    if doze is None:
        return "card: tiers take turns by dozing; add doze: {after_s: 300}" if card else ""
    if on_cpu:
        return "doze: found a tier on CPUs, where vLLM has no sleep mode; remove doze, or set accelerator or gpu"
    if options.get(SLEEP_MODE, True) is not True:
        return f"doze: engine_kwargs.{SLEEP_MODE} is {options[SLEEP_MODE]!r}, expected true; remove it, for doze sets it"
    if gone_after_s is not None and gone_after_s <= doze.after_s:
        return (
            f"doze.after_s: {doze.after_s:g} s comes after scaling.idle_s: {gone_after_s:g} s, when the replica is stopped; "
            "make it shorter than that, or remove doze"
        )
    return ""


class DozingReplicas(VllmReplicas):
    """Replicas that may doze. Stands before `Tier` among a class's bases, as VllmReplicas does."""

    doze: Doze | None = None
    """give the memory of an idle replica's GPU back until the next call; none: it is held as long as the replica runs. It stays
    reserved for the tier in Ray, and so is paid for as before"""
    card: Card | None = None
    """take turns with others on a GPU that does not hold all of them: whoever wakes lets those doze that were idle longest"""

    @model_validator(mode="after")
    def can_doze(self) -> Self:
        gone_after_s = self.scaling.idle_s if self.sleeps else None
        if why := refusal(self.doze, self.card, self.on_cpu, self.engine_kwargs, gone_after_s):
            raise ValueError(why)
        return self

    @property
    def shares_a_card(self) -> bool:
        """Other engines may hold memory of its replicas' GPUs, so only one at a time may start, doze or wake."""
        return self.doze is not None or self.gpu is not None
