"""What a request came to, as it is kept: one `Trace` a request, one `CallRow` for each of its calls to a tier."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FlowKind = Literal["direct", "cascade", "race", "delegation", "tools"]
"""How a request is answered; the ledger's `flow`. direct: one plain call. cascade: answers of smaller tiers are looked at before
they are accepted. race: a late tier is raced by a larger one. delegation: the largest tier plans. tools: it hands work down by a
tool call."""

# Two prices of the same call stand side by side. `cost_usd` is the token price: what lists say, or what an hourly price
# comes to at a stated speed (router/costs/prices.py). `gpu_usd` is the truth of the machine: busy seconds times the hourly price.


HEDGE = "-hedge"  # at the end of a call's id: the same call once more


@dataclass(slots=True)
class Reading:
    """What a replica measured of one call; empty where the engine does not measure."""

    replica: str = ""
    busy_s: float | None = None
    """the call's share of the replica's busy time, in seconds; None: nobody measured"""
    cached_tokens: int = 0
    """prompt tokens that were in the prefix cache"""
    twin: "Twin | None" = None
    """the same call, sent to another replica too since this one said nothing for long"""


@dataclass(slots=True)
class Twin:
    """The second of two calls for one answer (deployments/traffic/hedged_call.py)."""

    began_s: float
    """seconds after the first began"""
    reading: Reading
    won: bool = False
    """the answer is the second's"""
    ended_s: float = 0.0
    """seconds after the first began: when the loser was stopped"""
    lost: str = "cancelled"
    """what became of the loser: `CallRow.outcome`"""


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call to one tier, whatever became of it: accepted, rejected, cancelled, failed, audit."""

    id: str
    """`{trace id}/{call id}`: the same call is never kept twice"""
    trace_id: str
    key_id: str
    role: str
    """`router.types.Role`"""
    tier: str
    outcome: str
    """`answered`, `accepted`, `low confidence`, `cancelled`, `schema invalid`, an error's code, ..."""
    began_s: float
    """Unix time"""
    took_s: float
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """part of `input_tokens`"""
    estimated: bool = False
    """tokens were counted here since the tier did not say (a call that was cancelled)"""
    first_token_s: float | None = None
    """seconds after `began_s`; None: not streamed, or nothing came"""
    cost_usd: float = 0.0
    """by token prices"""
    replica: str = ""
    busy_s: float | None = None
    """share of the replica's busy time; times the tier's accelerators = accelerator-seconds. None: not measured"""
    gpu_usd: float | None = None
    """busy_s x accelerators x price per accelerator-hour; None: not measured, or no such price"""


@dataclass(frozen=True, slots=True)
class Trace:
    """One request: who asked, what was decided and why, what it came to."""

    id: str
    """what the client sees as x-stepdown-trace-id"""
    key_id: str
    began_s: float
    """Unix time"""
    took_s: float
    path: str
    wanted: str
    """the request's `model`"""
    status: int
    """HTTP status; 499: the client left"""
    tier: str = ""
    """whose answer the client got; empty: none"""
    target: str = ""
    reason: str = ""
    flow: FlowKind = "direct"
    error: str = ""
    """the error's code"""
    stream: bool = False
    confidence: float | None = None
    unfamiliar: float | None = None
    p: Mapping[str, float] = field(default_factory=dict)
    """chance of each tier, in [0, 1]"""
    certificate: str = ""
    decision_ms: float = 0.0
    first_byte_s: float | None = None
    """seconds from the request to the first content byte the client was sent"""
    counterfactual_usd: float | None = None
    """what the top tier alone would have cost, by token prices: its predicted output length, or its own real cost
    where the top tier answered alone; None: cannot be told"""
    counterfactual_estimated: bool = True
    """False: the top tier itself answered directly, so the figure is what was paid"""
    prompt: str | None = None
    """kept only where the settings say so, after the redaction hook"""
    answer: str | None = None
    calls: tuple[CallRow, ...] = ()

    @property
    def cost_usd(self) -> float:
        """All calls, rejected and cancelled ones too."""
        return sum(call.cost_usd for call in self.calls)


@dataclass(frozen=True, slots=True)
class Window:
    """Accelerator time that a tier held, used or not, between two instants."""

    tier: str
    began_s: float
    """Unix time, a multiple of the window's length: replicas of the ingress that see the same window keep it once"""
    seconds: float
    replicas: float
    """running on average over the window"""
    accelerators: int
    """of one replica, at least 1 (a tier on CPUs counts its machine share as one)"""
    usd_per_accelerator_hour: float | None = None

    @property
    def accelerator_s(self) -> float:
        return self.seconds * self.replicas * self.accelerators
