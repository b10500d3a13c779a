"""The values that travel through the router, in the order of a request: request, decision, calls and replies, flow, verdicts."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from router.client_options import ClientLimits
from router.errors import RequestFailed
from router.trace import FlowKind

Counter = Callable[[str], int]
"""Estimates the tokens of a text for one tier, one question's chat template included. Further attributes, where it has them:

exact: whether it is the tier's own tokenizer. tokens: counts a text without a template. template, rendered: what the chat
template costs, see router/request/token_bounds.py. longest: bytes of text that one token may stand for, 0 if unknown.
"""


def byte_bound(text: str) -> int:
    """Upper bound of a text's tokens: no tokenizer that we serve makes more tokens than bytes."""
    return len(text.encode("utf-8", "replace"))


# -- the request -----------------------------------------------------------------------------------------------------------

Path = Literal["chat/completions", "completions"]
UNKNOWN_PART = "part "  # begins the need of a message part whose type we do not know; the type follows


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the client sent it. The fields that we read are checked; all others are untouched."""

    path: Path
    body: Mapping[str, Any]
    limits: ClientLimits | None = None
    """from the body's `stepdown`, which is not sent to any tier"""
    tests: str = ""
    """what a smaller tier's code has to pass, also from `stepdown`; see router/cascade/code_tests.py"""
    store: bool | None = None
    """a chat's own word on whether it may be kept; None: it says nothing. As `metadata`, not sent to any tier"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """what the client notes with a chat that is kept"""
    size: int = field(default=0, compare=False)
    """bytes of the body"""

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a tier reads for one answer: a whole chat, or one prompt of a completion. See router/request/token_bounds.py."""

    text: str = ""
    """all its texts, joined by newlines"""
    messages: int = 1
    """0: a completion's prompt"""
    ids: int = 0
    """token ids that the client sent instead of a text"""
    images: int = 0
    unbounded: bool = False
    """it has audio, video, a file or a template of its own, of which no bound is known: it may fill any window"""
    tools: bool = False
    form: str = ""
    """the form asked for, as JSON: a tier that is not known may write it into the prompt"""
    shaped: int = 0
    """characters of the text that are JSON: tools, tool calls"""
    body: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    """of a chat with more than plain messages, to be rendered where the template is known"""


# -- the decision ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """All that deciding needs to know of a request."""

    text: str
    """what the classifier sees: `classifiers.prompt_text`"""
    counted: str
    """all text that takes up context"""
    wanted: str
    """the request's `model`"""
    answer_tokens: int
    """tokens asked for the answer, at least 1"""
    needs: frozenset[str] = frozenset()
    """abilities that the tier must have: keys of `decide.abilities.CANNOT`, or types of message parts that we do not know"""
    temperature: float | None = None
    """None: the request leaves it to the model"""
    stream: bool = False
    one_answer: bool = True
    """a chat request for one answer, which may be judged before the client gets it"""
    as_measured: bool = True
    """it asks for nothing that would change answers from those that certificates are made on: tools, a format, tests, ..."""
    prompts: tuple["Prompt", ...] = ()
    """what takes up context, as `counted` and beside it; empty: one message of that text"""


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


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes, and all that led there."""

    tier: str
    reason: Reason
    target: str
    """`balanced`, `0.97`, ..., or the tier that was asked for"""
    p: Mapping[str, float] = field(default_factory=dict)
    """the chance of each permitted tier that its answer is good enough, in [0, 1]; empty: the classifier was not asked"""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """tiers ruled out before the classifier was asked, each with the reason"""
    unfamiliar: float | None = None
    """how unlike the training prompts it is, from 0 (alike) to 1 (nothing alike); None: the classifier was not asked"""
    certificate: str = ""
    """state of the certificate: `valid`, `uncovered`, `stale`, `retired`, `infeasible`, `none`; empty: answers are not judged"""
    cost: Mapping[str, float] = field(default_factory=dict, repr=False)
    """expected cost of each permitted tier; the top tier's mean = 1"""
    barred: frozenset[str] = frozenset()
    """tiers that may not be asked for any part of the request"""
    first: tuple[str, ...] = ()
    """tiers to ask first, in parallel, where answers are judged before they are accepted"""
    judge: "Judge | None" = field(default=None, repr=False, compare=False)
    """judges their answers; None: the first answer is the client's"""
    considered: "DelegationEstimate | None" = field(default=None, repr=False, compare=False)
    """whether delegation is expected to pay; None: the gates were not asked"""
    instead: tuple[str, ...] = ()
    """tiers that may answer in place of the chosen one where it is down, best first"""
    wider: tuple[str, ...] = ()
    """those with a larger window, which may answer where the chosen one says that the request does not fit into its own"""
    resting: Mapping[str, str] = field(default_factory=dict)
    """tiers that were not considered as they are down or full -> the code of that; they are in `barred` too"""
    degraded: str = ""
    """`TIER CODE` of the tier that would have been chosen, where it is one of `resting`"""

    def allowed(self, names: Sequence[str]) -> list[str]:
        """The tiers among `names` that may answer, in the same order."""
        return [name for name in names if name not in self.excluded]

    @property
    def confidence(self) -> float | None:
        """The chance of the chosen tier, in [0, 1]; None: the client chose it."""
        return self.p.get(self.tier)


class DelegationEstimate(Protocol):
    """What the gates of delegation found (`delegate.gates.Considered`)."""

    @property
    def state(self) -> str | None: ...  # why there will be no plan, as a code; None: ask for one
    @property
    def direct_usd(self) -> float: ...  # expected cost of the plain call
    @property
    def delegated_usd(self) -> float: ...
    def as_json(self) -> dict[str, Any]: ...  # as JSON, for the client


# -- calls and replies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the tier counted them; usages add up."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


Role = Literal["attempt", "plan", "repair", "subtask", "turn", "final", "audit", "fill", "judge", "embedding", "rerank", "score"]
"""what a call is for; the last three are a service's"""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one tier, as a flow asks for it."""

    id: str
    """unique within the flow"""
    tier: str
    role: Role
    body: Mapping[str, Any]
    """OpenAI's chat body; the driver sets `model` and `stream`"""
    hold: int = 0
    """above 0, if the client streams: reply after that many tokens; the rest of the stream waits for a Commit"""
    timeout_s: float | None = None
    """seconds until it counts as failed"""
    tests: str = ""
    """tests that the driver runs on the answer's code; empty: none"""
    committed: bool = False
    """the flow takes whatever it says, if it says anything: a first token of its thought ends `hold` too"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a call. With an `error` everything else is empty."""

    call: Call
    text: str = ""
    """the answer; nothing of the thought"""
    finish_reason: str = ""
    """OpenAI's; empty while the answer is partial"""
    usage: Usage = Usage()
    logprobs: tuple[float, ...] = ()
    """of the answer's tokens, none of the thought's; empty: the tier gave none, which says nothing about its certainty"""
    first_margin: float | None = None
    """log-probability of the first token minus that of the runner-up"""
    stats: tuple[float, ...] = ()
    """of a kept answer: `classifiers.replies.signals.statistics` of all its tokens, of which `logprobs` has only the first"""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    refusal: str = ""
    error: RequestFailed | None = None
    partial: bool = False
    """the stream goes on"""
    passed: bool | None = None
    """whether its code passed the call's tests; None: there were none, or the test runner could not tell"""
    at_s: float = 0.0
    """seconds since the request was received"""
    sent: int = 1
    """replicas that were sent the call; each has read the prompt"""
    thought: str = ""
    """what the model thought before it answered; never judged, graded or compared"""


# -- the flow --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """What a flow asks of the driver, which sends back the new replies: at least one, unless `until_s` has passed.

    A step that starts nothing waits for the calls in flight.
    """

    start: tuple[Call, ...] = ()
    cancel: tuple[str, ...] = ()
    """ids of calls to cancel; no reply to them will come"""
    until_s: float | None = None
    """seconds since the request was received; after them the flow is sent [] if nothing came"""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """call id -> what became of its answer, for the trace: `accepted`, `low confidence`, `schema invalid`, ... Only those that
    are new since the last step; a later outcome of the same call replaces the earlier one"""
    phase: str = ""
    """shown to waiting clients: `plan`, `subtasks 3/8`"""
    kind: FlowKind | None = None
    """from this step on another kind of flow answers the request; None: no change"""


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a flow: this call's answer is the client's, from its first byte on."""

    call_id: str
    splice: Mapping[str, str] = field(default_factory=dict)
    """texts that replace `{{id}}` in the answer"""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """new since the last step, as a step's"""
    report: Mapping[str, Any] = field(default_factory=dict)
    """what `usage.stepdown` says besides the calls"""
    departed: bool = False
    """something happened on the way that no certificate knows of: a tier failed, or an answer was taken without being judged"""
    hidden: tuple[Mapping[str, Any], ...] = ()
    """messages between the client's last and the answer, which the client does not see; kept in case the answer calls tools"""


@dataclass(frozen=True, slots=True)
class Say:
    """The end of a flow: this text is the answer, composed without a further call."""

    text: str
    tier: str
    """named as the answer's author: the tier that planned it"""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fail:
    """The end of a flow: no answer."""

    error: RequestFailed
    outcomes: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


End = Commit | Say | Fail
Flow = Generator[Step, Sequence[Reply], End]
"""Answers one request: it yields steps, is sent replies, and returns the end. It has no side effects, so its tests are lists in
and lists out."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The flow that answers a request. Whatever wraps the steps keeps the kind."""

    kind: FlowKind
    steps: Flow | None = None
    """None: one plain call to the chosen tier, whose answer is passed through as it comes"""


# -- verdicts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    """A judge's verdict: this tier's answer is good enough."""

    tier: str


@dataclass(frozen=True, slots=True)
class GoUp:
    """A judge's verdict: no answer is good enough yet; ask these tiers in parallel."""

    tiers: tuple[str, ...]
    reason: str
    """`low confidence`, `disagreement`, `no evidence`, `no certificate`"""


class Judge(Protocol):
    """Decides about the answers to one request."""

    def next(self, answers: Mapping[str, Reply]) -> Accept | GoUp:
        """answers: tier -> its reply, of those that could be given to the client."""
        ...
