"""The YAML file as frozen types that allow no unknown key. A mistake in it stops the start with a message that says the fix."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from router.engine_settings import Settings, as_given
from router.errors import BadConfig
from router.service_settings import AnyService
from router.shared_tier_settings import AnyTier, AnyTiers, SharedTier
from router.tier_settings import ANSWER_RESERVE, EchoTier, Licence, Price, RemoteTier, Tier, VllmTier, comparable

__all__ = [
    "AnyTier",
    "Config",
    "Delegation",
    "EchoTier",
    "Escalation",
    "Flywheel",
    "Learning",
    "Ledger",
    "Licence",
    "Price",
    "RemoteTier",
    "Routing",
    "SHIPPED",
    "Server",
    "Settings",
    "SharedTier",
    "Tier",
    "VllmTier",
    "as_given",
    "describe",
    "find_config",
    "load_config",
    "with_absolute_paths",
]

NamedTarget = Literal["cheap", "balanced", "quality"]
LARGEST_FILE = 4 * 2**20  # bytes; parsing YAML takes a second for each MiB
SHIPPED = Path(__file__).parent.parent / "deployments" / "configs"
EXPLAINED = "router/config.py and router/*_settings.py"
RENAMED = {"escalation.hedge_after_s": "is now larger_after_s (hedge_after_s is a tier's setting, for its own replicas)"}


class Routing(Settings):
    """How `auto` decides."""

    artefact: str | None = None
    """folder of the trained router, relative to this file; none: `auto` is the largest tier"""
    target: Annotated[float, Field(ge=0, le=1, strict=True)] | NamedTarget = "balanced"
    """what `auto` stands for: a target of the artefact (cheap, balanced, quality), or a chance from 0 to 1"""

    answer_reserve: Annotated[int, Field(ge=1)] = ANSWER_RESERVE
    """tokens that a tier's window must have left for the answer, or a quarter of the window, or the client's limit, whichever is
    least. A larger limit is cut to the room that is left"""
    when_down: Literal["none", "larger", "any"] = "any"
    """where the tier that `auto` chose cannot answer (down, full, set up wrongly): none: return the error; larger: ask
    the next larger tiers; any: ask these, then the smaller ones. A request that exceeds its window goes to the next wider tier"""


class Escalation(Settings):
    """Whether a smaller tier's answer is accepted or a larger tier is asked."""

    mode: Literal["buffer", "holdback", "pre", "hedge"] = "pre"
    """buffer: judge the whole answer; holdback: judge the first tokens of a stream; pre: decide before the first call only;
    hedge: as pre, and where the tier is slow to start, ask the next larger one too"""
    holdback_tokens: Annotated[int, Field(ge=1, le=256)] = 16
    """tokens of a stream that are judged before any is sent"""
    larger_after_s: Annotated[float, Field(gt=0)] = 2.0
    """mode hedge: seconds without a first token after which the next larger tier is asked too"""
    max_steps: Annotated[int, Field(ge=1)] = 3
    """most tiers tried for one request"""
    without_certificate: Literal["escalate", "uncalibrated"] = "uncalibrated"
    """where no valid certificate covers the request: escalate: always go up; uncalibrated: go by expected worth and report
    that nothing is promised"""
    audit_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of accepted answers for which the largest tier is asked too, in the background"""
    tests: str | None = None
    """package.module:function of yours that runs an answer's code, in your sandbox, against the tests sent with the request;
    none: such requests are refused"""
    tests_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """seconds after which that function is given up, and the answer is judged as if it had no tests"""

    @property
    def looks(self) -> bool:
        """Whether answers are judged before they are accepted."""
        return self.mode in ("buffer", "holdback")


class Delegation(Settings):
    """When the largest tier may delegate parts of a request to smaller tiers, and within which limits."""

    mode: Literal["off", "plan", "tool", "auto"] = "off"
    """plan: where a request passes the gates below; tool: where the client offers `stepdown:delegate`; auto: both"""
    min_input_tokens: Annotated[int, Field(ge=1)] = 4_000
    """shorter requests are answered directly, unless a long answer is expected"""
    min_parts: Annotated[int, Field(ge=2)] = 3
    """least number of visible parts of a request"""
    min_saving: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """least expected saving, as a share of the direct cost"""
    offload_min_tokens: Annotated[int, Field(ge=1)] = 2_000
    """a text block of so many tokens is replaced by a handle; the planner sees a preview of it"""
    preview_chars: Annotated[int, Field(ge=8)] = 400
    """characters of that preview"""
    plan_prompt: str | None = None
    """the planner's prompt, with {preview}, {manifest} and {task}; none: the shipped prompt"""
    plan_max_tokens: Annotated[int, Field(ge=16)] = 2_048
    """most tokens of a plan"""
    worker_prompt: str | None = None
    """a worker's prompt, with {context} and {task}; none: the shipped prompt"""
    subtask_max_tokens: Annotated[int, Field(ge=16, le=2048)] = 512
    """most tokens of a subtask's answer where the plan sets none; doubled once if they were too few"""
    call_timeout_s: Annotated[float, Field(gt=0)] = 20.0
    """seconds for the plan or for one subtask's answer; less where the deadline is near"""
    min_answer_tokens: Annotated[int, Field(ge=1)] = 1_500
    """a short request qualifies too if it asks for an answer of so many tokens"""
    max_subtasks: Annotated[int, Field(ge=2, le=64)] = 8
    """most subtasks of one plan; each part of a mapped subtask counts"""
    max_plans: Annotated[int, Field(ge=1, le=2)] = 2
    """most plans for one request, repairs included"""
    max_calls: Annotated[int, Field(ge=3)] = 16
    """most calls for one request, retries included"""
    max_in_flight: Annotated[int, Field(ge=1)] = 8
    """most calls of one request at the same time"""
    max_cost_ratio: Annotated[float, Field(gt=0)] = 1.0
    """most that delegation may spend, as a multiple of the direct estimate; checked before every call. The direct answer that
    is given when delegation fails does not count"""
    deadline_s: Annotated[float, Field(gt=0)] = 60.0
    """seconds for the whole request"""
    final_reserve: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """share of the deadline reserved for the final call"""
    grounding: list[str] = ["extract", "answer"]
    """kinds of subtasks whose evidence must be a verbatim quote of their context"""
    digest_over_tokens: Annotated[int, Field(ge=16)] = 400
    """of longer results the merging tier sees head and tail, and includes them by reference"""


class Server(Settings):
    """The HTTP server."""

    host: str = "127.0.0.1"
    """address to listen on"""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """port to listen on; STEPDOWN_PORT and --port override it"""
    max_body_bytes: Annotated[int, Field(gt=0)] = 32_000_000
    """a larger body gets 413; of a compressed one, what is in it counts"""
    first_token_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """seconds to wait for a tier's first token before answering 503"""
    stream_idle_s: Annotated[float, Field(gt=0)] = 300.0
    """seconds that a tier may say nothing in the middle of a stream, comments not counted; then 504, or an error as the last
    event of the stream. A client that reads nothing for as long loses it too"""
    request_timeout_s: Annotated[float, Field(gt=0)] = 3_600.0
    """seconds for a whole request, its stream included, however much it says; then the same"""
    body_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """seconds for a request's body to arrive; then 408"""
    replicas: Annotated[int, Field(ge=1)] = 1
    """ingress replicas"""
    reload: Literal["watch", "asked"] = "watch"
    """when routing, escalation, delegation and the artefact are read again. watch: when their files change, or by POST
    /v1/admin/reload; asked: by the latter only"""
    ready_tiers: Annotated[int, Field(ge=1)] = 1
    """tiers that must be up, or asleep on purpose, for /readyz to say that this server should get requests"""
    drain_delay_s: Annotated[float, Field(ge=0)] = 5.0
    """seconds from the signal to stop, when /readyz turns to 503, until new requests are refused: load balancers notice
    meanwhile. `stepdown serve` waits for none where nobody has asked /readyz within half a minute"""
    drain_s: Annotated[float, Field(ge=0)] = 30.0
    """seconds that running answers have to end after that"""
    hosts: list[str] = []
    """names, beside this machine's own, by which clients may call a server that asks for no key: others are refused, since a
    web page could have pointed its own name here"""
    cors: list[Annotated[str, Field(pattern=r"^https?://[^/\s]+$")]] | Literal["*"] | None = None
    """web pages that may use the endpoint from a browser: origins such as https://chat.example.com, or "*" for all; none: no
    page may. Without keys "*" counts as none"""
    reasoning: Literal["pass", "hide"] = "pass"
    """whether clients get the reasoning of models that think: in chats, and so in every protocol. hide: neither its text nor the
    log-probabilities of its tokens; it is paid for and counted all the same"""
    reasoning_field: Literal["reasoning", "reasoning_content", "both"] | None = None
    """the field in which chats have it, also where a tier leaves it in the text between <think> and </think>. None: as the tier
    has it, which for vLLM is `reasoning`; older clients read only `reasoning_content`"""
    stream_usage: Literal["asked", "always"] = "asked"
    """when a stream ends in a chunk with the usage, whose `choices` is empty. asked: where `stream_options.include_usage` is
    true, as with OpenAI; always: unless it is false"""
    usage: Literal["answer", "sum"] = "answer"
    """what `prompt_tokens` and `completion_tokens` of an answer made of several calls say. answer: the tokens of the
    conversation and of the answer that the client gets; sum: those of all calls. Both are under `usage.stepdown`"""
    front: Literal["fast", "plain"] = "fast"
    """fast: HAProxy; its statistics ports listen on every interface, so it is used only where clients need keys. plain: Ray's
    own proxy"""


class Ledger(Settings):
    """Where every call is recorded, and what is kept."""

    url: str | None = None
    """an SQLAlchemy URL: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME (needed when ingress replicas run on several
    machines; set the password in the environment, PGPASSWORD or PGPASSFILE). None: a file in the state folder,
    STEPDOWN_STATE_DIR or ~/.local/state/stepdown"""
    down: Literal["spool", "refuse"] = "spool"
    """while the database does not answer: spool: keep serving and write rows to a local file; refuse: answer 503 at once"""
    journal_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    """SQLite: an answer ends when its row is synced to the spool, and the row reaches the tables within about so many
    seconds. 0: an answer ends when its row is in the tables, as always with PostgreSQL and for keys with limits"""
    spool_max_s: Annotated[float, Field(ge=0)] = 600.0
    """seconds that the spool may be in use before requests get 503"""
    spool_max_bytes: Annotated[int, Field(gt=0)] = 256_000_000
    """bytes that the spool may hold before requests get 503"""
    store: Literal["nothing", "prompts", "all"] = "nothing"
    """texts that are kept: nothing, prompts, or prompts and answers; learning from the log needs them"""
    redact: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    """module:function that changes each text before it is kept: str -> str, or None to keep nothing of it"""
    keep_days: Annotated[float, Field(gt=0)] | None = 90.0
    """days that single rows are kept; hourly sums stay. None: for ever"""
    keep_bytes: Annotated[int, Field(gt=0)] | None = None
    """most bytes of the rows; the oldest are deleted first. None: no limit"""


class Learning(Settings):
    """What is kept of what was served, and how it becomes known which tiers would have been good enough."""

    collect: Literal["off", "consented"] = "off"
    """off: nothing is kept; consented: the requests that their key and they themselves allow: `stepdown keys create --learning`,
    `store`"""
    own_key: Literal["never", "marked", "all"] = "marked"
    """the same consent for the key in STEPDOWN_API_KEY, and for everybody where no key is asked for"""
    keep_days: Annotated[float, Field(gt=0)] | None = 30.0
    """days that conversations are kept. None: for ever"""
    keep_bytes: Annotated[int, Field(gt=0)] | None = 2_000_000_000
    """most bytes of them; the oldest are deleted first. None: no limit"""
    redact: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    """module:function that changes a whole conversation before it is kept: list of messages -> list of as many messages, or
    None to keep nothing of it"""
    fill_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """share of the kept requests, drawn at random, for which the tiers that were not asked are asked afterwards, at idle"""
    fill_usd_day: Annotated[float, Field(ge=0)] = 1.0
    """most USD of a day (UTC) for these calls and for judging answers, by token prices"""
    judge: Literal["top", "none"] = "top"
    """who grades answers that cannot be compared. top: the top tier, blind and in both orders; none: they stay without a grade"""
    start: Literal["asked", "auto"] = "asked"
    """asked: `stepdown flywheel` trains routers; auto: the server does, as soon as the log suffices, and uses those that pass"""

    @model_validator(mode="after")
    def has_something_to_learn_from(self) -> "Learning":
        if self.start == "auto" and self.collect == "off":
            raise ValueError("start: auto learns from what is kept, and collect: off keeps nothing; set collect: consented")
        return self


class Flywheel(Settings):
    """How a router that was learned from the log is tried and promoted."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """certify: at most this share of the requests gets a smaller tier's answer that is worse than the top tier's"""
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.10
    """probability that this promise fails"""
    classifier: str | None = None
    """one of `stepdown classifiers`; none: the best of them"""
    least_pairs: Annotated[int, Field(ge=100)] = 400
    """graded requests, with the answers of all tiers, that a run needs"""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """how much worse than the incumbent, in mean score, a candidate is not to be; below alpha, a router that keeps its promise
    may never show it"""
    shadow_pairs: Annotated[int, Field(ge=1)] = 300
    """least number of graded live requests on which a candidate is compared before anybody gets its answers"""
    shadow_most_pairs: Annotated[int, Field(ge=1)] = 5_000
    """after so many without a result it is undecided, and the run ends"""
    shadow_wealth: Annotated[float, Field(gt=1)] = 20.0
    """evidence, as a bet's wealth, that it is not worse by the margin: a wrong promotion has the chance 1 / wealth"""
    canary_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """share of the conversations that get the candidate next"""
    canary_s: Annotated[float, Field(ge=0)] = 86_400.0
    """least seconds of that"""
    canary_requests: Annotated[int, Field(ge=0)] = 1_000
    """least number of requests of that"""
    rollback_wealth: Annotated[float, Field(gt=1)] = 100.0
    """evidence that it is worse by the margin after all, by which the incumbent comes back"""
    keep_old_s: Annotated[float, Field(ge=0)] = 86_400.0
    """seconds that the replaced router is kept ready, and watched for a rollback"""
    weights: str | None = None
    """folder of the weights that tiers have learned, relative to this file; all machines of a cluster must see it. None:
    `weights` in the state folder"""
    promote: Literal["asked", "auto"] = "asked"
    """asked: a run waits after the shadow for `stepdown flywheel promote`; auto: it goes on. learning.start auto goes on too"""


class Responses(Settings):
    """OpenAI's Responses protocol."""

    store: Literal["off", "memory", "ledger"] = "off"
    """where answers are kept so that `previous_response_id` continues them. off: nowhere; memory: for half an hour in the one
    ingress; ledger: in the database, for `learning.keep_days`"""
    keep_bytes: Annotated[int, Field(gt=0)] = 256_000_000
    """most bytes that memory holds of them; the oldest are forgotten first"""
    reasoning: Literal["summary", "text", "hidden"] = "summary"
    """how the reasoning of a model that thinks is shown. summary: as OpenAI's, which all clients show; text: as text"""


class Config(Settings):
    """A ladder and how it is served."""

    tiers: Annotated[AnyTiers, Field(min_length=1)]
    """the ladder, cheapest first"""
    services: list[AnyService] = []
    """models beside the ladder, for embeddings, rerank and score"""
    routing: Routing = Routing()
    """how `auto` decides"""
    escalation: Escalation = Escalation()
    """when a smaller tier's answer is not accepted"""
    delegation: Delegation = Delegation()
    """delegating parts of a request to smaller tiers"""
    server: Server = Server()
    """the HTTP server"""
    ledger: Ledger = Ledger()
    """the record of every call and its cost"""
    learning: Learning = Learning()
    """what is kept of what was served"""
    responses: Responses = Responses()
    """the protocol that Codex and OpenAI's SDKs speak"""
    aliases: dict[Annotated[str, Field(min_length=1, max_length=128)], str] = {}
    """other names that clients may ask for, `*` for any characters -> `auto`, `auto:TARGET`, a tier or a service. The first that
    fits counts"""
    flywheel: Flywheel = Flywheel()
    """how routers learned from it are promoted"""

    @property
    def names(self) -> list[str]:
        return [tier.name for tier in self.tiers]

    @property
    def service_names(self) -> list[str]:
        return [service.name for service in self.services]

    @property
    def served_names(self) -> list[str]:
        """Of tiers and services. None of them is ever an alias."""
        return [*self.names, *self.service_names]

    @property
    def rungs(self) -> list[SharedTier]:
        """The tiers that share the replicas of another one."""
        return [tier for tier in self.tiers if isinstance(tier, SharedTier)]

    @property
    def hosts(self) -> dict[str, str]:
        """rung -> the tier whose replicas it shares."""
        return {tier.name: tier.on for tier in self.rungs}

    @property
    def sleepers(self) -> list[str]:
        """Tiers that may be scaled to zero."""
        return [tier.name for tier in self.tiers if tier.sleeps]

    @model_validator(mode="after")
    def different_names(self) -> "Config":
        names = self.served_names
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            where = "services" if twice[0] in self.service_names else "tiers"
            raise ValueError(f"{where}: the name {twice[0]!r} is used twice; names of tiers and services must differ")
        return self

    @model_validator(mode="after")
    def can_be_ready(self) -> "Config":
        if self.server.ready_tiers > len(self.tiers):
            raise ValueError(
                f"server.ready_tiers is {self.server.ready_tiers}, and there are {len(self.tiers)} tiers; ask for fewer"
            )
        return self

    @model_validator(mode="after")
    def cheapest_first(self) -> "Config":
        prices = [comparable(tier) for tier in self.tiers]
        for unit in ("per 1m output tokens", "per hour of a replica"):
            known = [(t.name, p[unit]) for t, p in zip(self.tiers, prices, strict=True) if unit in p]
            if len(known) == len(prices):
                if [p for _, p in known] != sorted(p for _, p in known):
                    shown = ", ".join(f"{name} {p:g}" for name, p in known)
                    raise ValueError(f"tiers: list them cheapest first; USD {unit}: {shown}")
                return self
        raise ValueError("tiers: prices cannot be compared; give all tiers token prices, or all an accelerator-hour price")


class KeysAsTexts(yaml.SafeLoader):
    """Reads keys as they are written: to YAML 1.1 the key `on` is the boolean true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def find_config(name: str) -> Path:
    """The path itself, or the shipped file for a bare name (`pocket`)."""
    path = Path(name)
    shipped = SHIPPED / f"{name.removesuffix('.yaml')}.yaml"
    if path.exists() or not shipped.exists():
        return path
    return shipped


def describe(path: Path, error: ValidationError) -> str:
    """One line for each mistake: file, key, message, found value."""
    lines = []
    for found in error.errors():
        key = ".".join(str(part) for part in found["loc"]) or "file"
        given = "" if isinstance(found["input"], dict | list | Config) else f"; found {found['input']!r}"
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            message = RENAMED.get(key, f"no such setting; remove it or correct its spelling ({EXPLAINED} explain all settings)")
        lines.append(f"{path}: {key}: {message}{given}")
    return "\n".join(lines)


def load_config(name: str | Path) -> Config:
    """Read and check a YAML file, or a shipped one by name. Raises BadConfig."""
    path = find_config(str(name))
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BadConfig(f"{path}: larger than {LARGEST_FILE // 2**20} MiB, so no configuration; expected settings in YAML")
        data = yaml.load(path.read_text("utf-8"), KeysAsTexts)
    except OSError as error:
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise BadConfig(f"{path}: {error.strerror}; give a file, or one of the shipped ladders: {shipped}") from None
    except RecursionError:
        raise BadConfig(f"{path}: not YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date or number that cannot be
        raise BadConfig(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise BadConfig(f"{path}: expected settings (tiers: ...), found {type(data).__name__}")
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise BadConfig(describe(path, error)) from None
    return with_absolute_paths(config, path.parent)


def with_absolute_paths(config: Config, folder: Path) -> Config:
    """The same configuration with absolute paths: those of the artefact and of sources that are folders."""
    tiers = [tier.placed(folder) for tier in config.tiers]
    services = [service.placed(folder) for service in config.services]
    routing = config.routing
    if routing.artefact:
        routing = routing.model_copy(update={"artefact": as_given(folder / routing.artefact)})
    flywheel = config.flywheel
    if flywheel.weights:
        flywheel = flywheel.model_copy(update={"weights": as_given(folder / flywheel.weights)})
    return config.model_copy(update={"tiers": tiers, "services": services, "routing": routing, "flywheel": flywheel})
