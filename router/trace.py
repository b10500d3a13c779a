"""The rows that are recorded: one `Trace` for a request, one `CallRow` for each of its calls, one `Window` of held time.

A call has two prices. `cost_usd` is by token prices: list prices, or an hourly price at an assumed speed
(router/costs/prices.py). `gpu_usd` is what the machine really cost: busy seconds times the hourly price.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FlowKind = Literal["direct", "cascade", "race", "delegation", "tools", "service"]
"""How a request is answered; the ledger's `flow`. direct: one plain call. cascade: answers of smaller tiers are looked at before
they are accepted. race: a late tier is raced by a larger one. delegation: the largest tier plans. tools: it hands work down by a
tool call. service: no tier answers, but a service beside the ladder."""

AUDITS = "audits"  # `key_id` of audits: no key asked for them, so no key's budget, list or table counts them
LEARNING = "learning"  # `key_id` of calls that are made to learn from: for the same reason
UNASKED = ("audit", "fill", "judge")  # roles of calls that are made after the answer, for which no key asked
HEDGE = "-hedge"  # suffix of a call's id: the same call, sent to a second replica


@dataclass(slots=True)
class Reading:
    """What a replica measured for one call; empty where the engine does not measure."""

    replica: str = ""
    busy_s: float | None = None
    """the call's share of the replica's busy time, in seconds; None: not measured"""
    cached_tokens: int = 0
    """prompt tokens that were in the prefix cache"""
    twin: "Twin | None" = None
    """the same call, also sent to another replica because this one was slow to start"""


@dataclass(slots=True)
class Twin:
    """The second of two calls for the same answer (deployments/traffic/hedged_call.py)."""

    began_s: float
    """seconds after the first began"""
    reading: Reading
    won: bool = False
    """the answer is the second call's"""
    ended_s: float = 0.0
    """seconds after the first began: when the losing call was stopped"""
    lost: str = "cancelled"
    """the losing call's `CallRow.outcome`"""


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call to one tier, whatever its outcome: accepted, rejected, cancelled, failed, or an audit."""

    id: str
    """`{trace id}/{call id}`, unique: a call that is recorded twice is kept once"""
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
    """tokens were counted by the ingress because the tier did not report them (a cancelled call)"""
    first_token_s: float | None = None
    """seconds after `began_s`; None: not streamed, or no token came"""
    cost_usd: float = 0.0
    """by token prices"""
    replica: str = ""
    busy_s: float | None = None
    """share of the replica's busy time; times the tier's accelerators = accelerator-seconds. None: not measured"""
    gpu_usd: float | None = None
    """busy_s x accelerators x price per accelerator-hour; None: not measured, or no such price"""
    model: str = ""
    """fingerprint of the tier's model, as certificates keep it; empty: not known"""


@dataclass(frozen=True, slots=True)
class Trace:
    """One request: its key, the decision and its reason, the result."""

    id: str
    """the client sees it as x-stepdown-trace-id"""
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
    """the tier whose answer the client got; empty: none"""
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
    router: str = ""
    """digest of the artefact that decided; empty: none did"""
    decision_ms: float = 0.0
    first_byte_s: float | None = None
    """seconds from the request to the first content byte the client was sent"""
    counterfactual_usd: float | None = None
    """what the top tier alone would have cost by token prices: estimated, or its real cost where it answered; None: unknown"""
    counterfactual_estimated: bool = True
    """False: the top tier answered the client's prompt itself, so the figure is its real cost"""
    prompt: str | None = None
    """kept only if `ledger.store` says so, after the redaction hook; so is `answer`"""
    answer: str | None = None
    calls: tuple[CallRow, ...] = ()

    @property
    def cost_usd(self) -> float:
        """The cost of all calls, rejected and cancelled ones included."""
        return sum(call.cost_usd for call in self.calls)


@dataclass(frozen=True, slots=True)
class Window:
    """Accelerator time that a tier held, used or not, in one interval."""

    tier: str
    began_s: float
    """Unix time, a multiple of the window's length, so that a window seen by several ingress replicas is kept once"""
    seconds: float
    replicas: float
    """mean number of running replicas"""
    accelerators: int
    """accelerators of one replica, at least 1 (a replica on CPUs counts as one)"""
    usd_per_accelerator_hour: float | None = None

    @property
    def accelerator_s(self) -> float:
        return self.seconds * self.replicas * self.accelerators
