"""The values that travel between reading a request and answering it."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from router.config import Delegation
from router.errors import RequestFailed
from router.trace import FlowKind

Path = Literal["chat/completions", "completions"]
Reason = Literal[
    "asked for",
    "only one fits",
    "good enough",
    "best we have",
    "worth its cost",
    "fixed",
    "kept for its cache",
    "kept in a tool loop",
    "moved off a queue",
]


Counter = Callable[[str], int]
"""Text to tokens, as one tier counts them. `exact` is set on it where the tier's own tokenizer counts."""


def byte_bound(text: str) -> int:
    """Tokens of a text at most: no tokenizer that we serve makes more tokens than bytes."""
    return len(text.encode("utf-8", "replace"))


class Limits(BaseModel):
    """`parameters` of `stepdown:delegate`, or a body's `stepdown`. They tighten the server's own limits; a wider one changes
    nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    max_subtasks: Annotated[int, Field(ge=1)] | None = None
    max_cost_usd: Annotated[float, Field(ge=0)] | None = None
    """for the whole request"""
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    """for the whole request"""
    max_calls: Annotated[int, Field(ge=1)] | None = None
    """of one delegation"""
    max_in_flight: Annotated[int, Field(ge=1)] | None = None

    def tightened(self, settings: Delegation) -> Delegation:
        given = {name: value for name, value in self if value is not None and name != "max_cost_usd"}
        return settings.model_copy(update={k: min(v, getattr(settings, k)) for k, v in given.items()})

    def and_(self, other: "Limits | None") -> "Limits":
        """The tighter of each."""
        pairs = {name: [v for v in (value, getattr(other, name, None)) if v is not None] for name, value in self}
        return Limits.model_construct(**{name: min(values, default=None) for name, values in pairs.items()})

    def after(self, spent_usd: float) -> "Limits":
        """What is left of them."""
        return self if self.max_cost_usd is None else self.model_copy(update={"max_cost_usd": self.max_cost_usd - spent_usd})


@dataclass(frozen=True, slots=True)
class Offered:
    """The server tools of one request."""

    delegate: Limits | None = None
    escalate: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What deciding needs to know of a request, and nothing else."""

    text: str
    """what the classifier sees: `classifiers.prompt_text`"""
    counted: str
    """all text that takes up context: messages and tool definitions"""
    wanted: str
    """the request's `model`"""
    answer_tokens: int
    """tokens asked for the answer, at least 1"""
    needs: frozenset[str] = frozenset()
    """of `tools`, `json`, `images`"""
    temperature: float | None = None
    """asked for; None leaves it to the model"""
    stream: bool = False
    """the answer is sent as it is written"""
    one_answer: bool = True
    """a chat request for one answer, which may be looked at before it is given out"""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes and why; every step is in it."""

    tier: str
    reason: Reason
    target: str
    """`balanced`, `0.97`, ..., or the tier that was asked for"""
    p: Mapping[str, float] = field(default_factory=dict)
    """the chance of each permitted tier that its answer is good enough, each in [0, 1]; empty when nobody asked"""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """tiers ruled out before the classifier was asked, each with the reason"""
    unfamiliar: float | None = None
    """how unlike the prompts of training, 0 (alike) to 1 (nothing seen is like it); None when nobody asked"""
    certificate: str = ""
    """what covers the request: `valid`, `uncovered`, `stale`, `retired`, `infeasible`, `none`; empty: no answer is looked at"""
    cost: Mapping[str, float] = field(default_factory=dict, repr=False)
    """what each permitted tier is expected to cost, the top tier's mean = 1"""
    barred: frozenset[str] = frozenset()
    """tiers that may not be asked for any part of the request"""
    first: tuple[str, ...] = ()
    """tiers asked side by side at first, where answers are looked at before they are accepted"""
    judge: "Judge | None" = field(default=None, repr=False, compare=False)
    """decides how to go on from their answers; None where the first answer stands"""
    considered: "Estimate | None" = field(default=None, repr=False, compare=False)
    """whether delegation is expected to pay; None: the gates were not asked"""

    def allowed(self, names: Sequence[str]) -> list[str]:
        """Those of the ladder's tiers that may answer, cheapest first."""
        return [name for name in names if name not in self.excluded]

    @property
    def confidence(self) -> float | None:
        """The chance of the tier taken, in [0, 1]; None when the client chose it."""
        return self.p.get(self.tier)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the client sent it, checked where we read it and untouched elsewhere."""

    path: Path
    body: Mapping[str, Any]
    limits: Limits | None = None
    """the client's own, from the body's `stepdown`, which no tier is sent"""
    tests: str = ""
    """what a smaller tier's code has to pass, from there too; see `router.code_tests`"""

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the tier counted them; usages add up."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


Role = Literal["attempt", "plan", "repair", "subtask", "turn", "final", "audit"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one tier, as a flow asks for it."""

    id: str
    """its name within the flow; no two calls of a flow share one"""
    tier: str
    role: Role
    body: Mapping[str, Any]
    """OpenAI's chat body; `model` and `stream` are the driver's"""
    hold: int = 0
    """above 0 and the client streams: reply after that many tokens, the rest of the stream waiting for a Commit"""
    timeout_s: float | None = None
    """seconds until it counts as failed"""
    tests: str = ""
    """what its answer's code is to pass, run by the driver; empty: nothing"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a call. With an `error` everything else is empty."""

    call: Call
    text: str = ""
    finish_reason: str = ""
    """OpenAI's; empty while the answer is partial"""
    usage: Usage = Usage()
    logprobs: tuple[float, ...] = ()
    """of the answer's tokens; empty: the tier gave none, which is not the same as certain or uncertain"""
    first_margin: float | None = None
    """log-probability of the first token over its runner-up"""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    refusal: str = ""
    error: RequestFailed | None = None
    partial: bool = False
    """more of it is to come"""
    passed: bool | None = None
    """whether its code passed the call's tests; None: there were none, or nobody could tell"""
    at_s: float = 0.0
    """seconds since the request was received"""


@dataclass(frozen=True, slots=True)
class Step:
    """What a flow asks of the driver. It is sent the replies that have come since, at least one unless `until_s` passed.

    A step that starts nothing waits for what is in flight.
    """

    start: tuple[Call, ...] = ()
    cancel: tuple[str, ...] = ()
    """ids of calls to give up; no reply to them will come"""
    until_s: float | None = None
    """seconds since the request was received; then the flow is sent [] if nothing came"""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """call id -> what became of its answer, for the trace: `accepted`, `low confidence`, `schema invalid`, ... Only what is new
    since the step before; a later outcome of the same call replaces the earlier one"""
    phase: str = ""
    """shown to waiting clients: `plan`, `subtasks 3/8`"""
    kind: FlowKind | None = None
    """from this step on the request is answered by another kind of flow than was chosen; None: nothing changes"""


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a flow: this call's answer is the client's, from its first byte on."""

    call_id: str
    splice: Mapping[str, str] = field(default_factory=dict)
    """texts that replace `{{id}}` in the answer"""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """new since the last step, as a step's"""
    told: Mapping[str, Any] = field(default_factory=dict)
    """what `usage.stepdown` says besides the calls"""
    hidden: tuple[Mapping[str, Any], ...] = ()
    """messages between the client's last and the answer that the client does not see; kept for it if the answer calls tools"""


@dataclass(frozen=True, slots=True)
class Say:
    """The end of a flow: this text is the answer, made from answers without a further call."""

    text: str
    tier: str
    """whose name the answer bears: the tier that planned it"""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fail:
    """The end of a flow: no answer."""

    error: RequestFailed
    outcomes: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


End = Commit | Say | Fail
Flow = Generator[Step, Sequence[Reply], End]
"""The steps of one request: the flow asks for calls, the driver makes them and sends the replies in. A flow touches nothing, so
its tests are lists in and lists out."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The flow that answers a request. Whatever wraps the steps keeps the kind."""

    kind: FlowKind
    steps: Flow | None = None
    """None: one plain call to the tier decided on, passed through as it comes"""


class Outcomes:
    """What became of a flow's calls. Each outcome is handed over once, with the next step or the end."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self._new: dict[str, str] = {}

    def set(self, call: str, outcome: str) -> None:
        """The latest outcome of a call counts."""
        self.known[call] = self._new[call] = outcome

    def set_if_none(self, call: str, outcome: str) -> None:
        if call not in self.known:
            self.set(call, outcome)

    def new(self) -> dict[str, str]:
        """Those that were set since the last call of this method."""
        new, self._new = self._new, {}
        return new


@dataclass(frozen=True, slots=True)
class Accept:
    """A judge's verdict: this tier's answer is good enough."""

    tier: str


@dataclass(frozen=True, slots=True)
class GoUp:
    """A judge's verdict: no answer is good enough yet, ask these tiers side by side."""

    tiers: tuple[str, ...]
    reason: str
    """`low confidence`, `disagreement`, `no evidence`, `no certificate`"""


class Judge(Protocol):
    """Decides about the answers to one request."""

    @property
    def allowed(self) -> Sequence[int]:
        """Places of the tiers that may be asked, rising."""
        ...

    def next(self, answers: Mapping[str, Reply]) -> Accept | GoUp:
        """answers: tier -> its reply, of those that could be given to the client."""
        ...


class Estimate(Protocol):
    """Whether a request is expected to be cheaper with its parts handed down (`delegate.gates.Considered`)."""

    @property
    def state(self) -> str | None:
        """Why not, as a code; None: ask for a plan."""
        ...

    @property
    def direct_usd(self) -> float:
        """Expected cost of the plain call."""
        ...

    @property
    def delegated_usd(self) -> float:
        """Expected cost with delegation."""
        ...

    def told(self) -> dict[str, Any]:
        """As JSON."""
        ...
