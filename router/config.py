"""The one YAML file, as frozen and closed types. Whatever is wrong in it stops the start and says how to mend it."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from router.errors import BadConfig
from router.tier_settings import AnyTier, EchoTier, Price, RemoteTier, Settings, Tier, VllmTier, comparable

__all__ = [
    "AnyTier",
    "Config",
    "Delegation",
    "EchoTier",
    "Escalation",
    "Ledger",
    "Price",
    "RemoteTier",
    "Routing",
    "SHIPPED",
    "Server",
    "Settings",
    "Tier",
    "VllmTier",
    "describe",
    "find_config",
    "load_config",
    "placed",
]

SHIPPED = Path(__file__).parent.parent / "deployments" / "configs"
RENAMED = {"escalation.hedge_after_s": "is now larger_after_s (hedge_after_s is a tier's, for its own replicas)"}


class Routing(Settings):
    """How `auto` decides."""

    artefact: str | None = None
    """the trained router's folder (from this file's place); none: `auto` is the largest tier"""
    target: Annotated[float, Field(ge=0, le=1, strict=True)] | Literal["cheap", "balanced", "quality"] = "balanced"
    """what `auto` means: a target of the artefact (cheap, balanced, quality), or a chance from 0 to 1"""

    when_down: Literal["none", "larger", "any"] = "any"
    """a tier that `auto` chose cannot answer: give the error, ask the next larger tiers, or these and then smaller ones"""


class Escalation(Settings):
    """What happens after a smaller tier has answered: accept it, or go up."""

    mode: Literal["buffer", "holdback", "pre", "hedge"] = "pre"
    """buffer: look at the whole answer; holdback: at its first tokens when streaming; pre: decide before only; hedge: as pre,
    and where the tier is late the next larger one is asked too"""
    holdback_tokens: Annotated[int, Field(ge=1, le=256)] = 16
    """tokens of a stream to look at before it is committed"""
    larger_after_s: Annotated[float, Field(gt=0)] = 2.0
    """seconds after which a tier that has said nothing is late, and the next larger one is asked too (hedge)"""
    max_steps: Annotated[int, Field(ge=1)] = 3
    """tiers that may be tried for one request"""
    without_certificate: Literal["escalate", "uncalibrated"] = "uncalibrated"
    """no valid certificate covers the request: always go up, or go by expected worth and say that nothing is promised"""
    audit_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of accepted answers that the largest tier is asked for too, in the background"""
    tests: str | None = None
    """package.module:function of yours that runs an answer's code against the tests that came with its request, in your sandbox;
    none: such requests are refused"""
    tests_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """seconds after which nobody waits for it any more: the answer is then judged as if it had no tests"""

    @property
    def looks(self) -> bool:
        """Whether answers are looked at before they are accepted."""
        return self.mode in ("buffer", "holdback")


class Delegation(Settings):
    """When the largest tier may hand parts of a request down, and within which limits."""

    mode: Literal["off", "plan", "tool", "auto"] = "off"
    """plan: where its gates pass; tool: where the client offers `stepdown:delegate`; auto: both"""
    min_input_tokens: Annotated[int, Field(ge=1)] = 4_000
    """shorter requests are answered directly, unless a long answer is expected"""
    min_parts: Annotated[int, Field(ge=2)] = 3
    """parts that a request must visibly have"""
    min_saving: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """share of the direct cost that delegation must be expected to save"""
    offload_min_tokens: Annotated[int, Field(ge=1)] = 2_000
    """text blocks of that many tokens are put behind a handle; the planner sees a preview"""
    preview_chars: Annotated[int, Field(ge=8)] = 400
    """characters of a block that the planner sees"""
    plan_prompt: str | None = None
    """what the planner is told, with {preview}, {manifest} and {task}; none: the shipped instruction"""
    plan_max_tokens: Annotated[int, Field(ge=16)] = 2_048
    """tokens that a plan may have"""
    worker_prompt: str | None = None
    """what a worker is told, with {context} and {task}; none: the shipped instruction"""
    subtask_max_tokens: Annotated[int, Field(ge=16, le=2048)] = 512
    """tokens of a subtask's answer where the plan sets none; doubled once if they were too few"""
    call_timeout_s: Annotated[float, Field(gt=0)] = 20.0
    """seconds for the plan or for one subtask's answer; less where the deadline is near"""
    min_answer_tokens: Annotated[int, Field(ge=1)] = 1_500
    """an answer of that many tokens asked for makes a short request long enough"""
    max_subtasks: Annotated[int, Field(ge=2, le=64)] = 8
    """subtasks of one plan, parts of a mapped subtask counted singly"""
    max_plans: Annotated[int, Field(ge=1, le=2)] = 2
    """plans for one request, repairs counted"""
    max_calls: Annotated[int, Field(ge=3)] = 16
    """calls for one request, retries counted"""
    max_in_flight: Annotated[int, Field(ge=1)] = 8
    """calls of one request at the same time"""
    max_cost_ratio: Annotated[float, Field(gt=0)] = 1.0
    """delegation may spend this many times the direct estimate; checked before every call. The plain answer that is given
    when delegation came to nothing is not part of it"""
    deadline_s: Annotated[float, Field(gt=0)] = 60.0
    """seconds for the whole request"""
    final_reserve: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """share of the deadline kept for the final call"""
    grounding: list[str] = ["extract", "answer"]
    """kinds of subtasks whose evidence must be a verbatim quote of their context"""
    digest_over_tokens: Annotated[int, Field(ge=16)] = 400
    """longer results are shown to the merging tier by head and tail, and spliced by reference"""


class Server(Settings):
    """The HTTP side."""

    host: str = "127.0.0.1"
    """address to listen on"""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """port to listen on; STEPDOWN_PORT and --port go before it"""
    max_body_bytes: Annotated[int, Field(gt=0)] = 8_000_000
    """larger bodies get 413"""
    first_token_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """seconds to wait for a tier's first token before answering 503"""
    request_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """seconds for a whole request, its stream included; then 504, or an error as the last event of the stream"""
    body_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """seconds for the body of a request to arrive; then 408"""
    replicas: Annotated[int, Field(ge=1)] = 1
    """ingress replicas"""
    reload: Literal["watch", "asked"] = "watch"
    """routing, escalation, delegation and the artefact are read again when their files change, or by POST /v1/admin/reload"""
    drain_s: Annotated[float, Field(ge=0)] = 30.0
    """seconds that answers under way have to end when the server stops"""
    front: Literal["fast", "plain"] = "fast"
    """fast: HAProxy, whose side ports (statistics) listen on every interface, and which so stands only where keys are asked for;
    plain: Ray's own proxy"""


class Ledger(Settings):
    """Where every call is written down, and what is kept of it."""

    url: str | None = None
    """SQLAlchemy's address: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME (needed when ingress replicas run on
    several machines; give the password by the environment, PGPASSWORD or PGPASSFILE). None: a file in the state folder,
    STEPDOWN_STATE_DIR or ~/.local/state/stepdown"""
    down: Literal["spool", "refuse"] = "spool"
    """the database does not answer: keep serving and write rows to a local file until it does, or answer 503 at once"""
    journal_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    """SQLite: an answer ends when its row is in a synced file of the spool, and the row is in the tables within about so many
    seconds. 0: an answer ends when its row is in the tables, as always with PostgreSQL and for keys with limits"""
    spool_max_s: Annotated[float, Field(ge=0)] = 600.0
    """seconds that the spool may be in use before requests get 503"""
    spool_max_bytes: Annotated[int, Field(gt=0)] = 256_000_000
    """bytes that the spool may hold before requests get 503"""
    store: Literal["nothing", "prompts", "all"] = "nothing"
    """texts that are kept: none, prompts, or prompts and answers; learning from the log needs them"""
    redact: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    """module:function that a text goes through before it is kept: str -> str, or None to keep nothing of it"""
    keep_days: Annotated[float, Field(gt=0)] | None = 90.0
    """days that single rows are kept; sums by the hour stay. None: for ever"""
    keep_bytes: Annotated[int, Field(gt=0)] | None = None
    """size that the rows may have; the oldest go first. None: no limit"""


class Config(Settings):
    """A ladder and how it is served. Tiers are listed cheapest first."""

    tiers: Annotated[list[AnyTier], Field(min_length=1)]
    """the ladder, cheapest first"""
    routing: Routing = Routing()
    """how `auto` decides"""
    escalation: Escalation = Escalation()
    """after a smaller tier has answered"""
    delegation: Delegation = Delegation()
    """handing parts of a request down"""
    server: Server = Server()
    """the HTTP side"""
    ledger: Ledger = Ledger()
    """what every call cost, written down"""

    @property
    def names(self) -> list[str]:
        return [tier.name for tier in self.tiers]

    @property
    def sleepers(self) -> list[str]:
        """Tiers that may have no replica, while nobody asks."""
        return [tier.name for tier in self.tiers if tier.sleeps]

    @model_validator(mode="after")
    def different_names(self) -> "Config":
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise ValueError(f"tiers: the name {twice[0]!r} is used twice; names must differ")
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


def find_config(name: str) -> Path:
    """A path as it is; a bare name (`pocket`) is one of the shipped files."""
    path = Path(name)
    shipped = SHIPPED / f"{name.removesuffix('.yaml')}.yaml"
    if path.exists() or not shipped.exists():
        return path
    return shipped


def describe(path: Path, error: ValidationError) -> str:
    """One line for each mistake: file, key, what is wrong, what was found."""
    lines = []
    for found in error.errors():
        key = ".".join(str(part) for part in found["loc"]) or "file"
        given = "" if isinstance(found["input"], dict | list | Config) else f"; found {found['input']!r}"
        what = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            what = RENAMED.get(key, "no such setting; remove it or correct its spelling (see router/config.py, tier_settings.py)")
        lines.append(f"{path}: {key}: {what}{given}")
    return "\n".join(lines)


def load_config(name: str | Path) -> Config:
    """Read and check a YAML file, or a shipped one by name. Raises BadConfig."""
    path = find_config(str(name))
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise BadConfig(f"{path}: {error.strerror}; give a file, or one of the shipped ladders: {shipped}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise BadConfig(f"{path}: expected settings (tiers: ...), found {type(data).__name__}")
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise BadConfig(describe(path, error)) from None
    return placed(config, path.parent)


def placed(config: Config, folder: Path) -> Config:
    """The same with paths made absolute: sources that are folders, and the artefact."""
    tiers = [tier.placed(folder) for tier in config.tiers]
    routing = config.routing
    if routing.artefact:
        routing = routing.model_copy(update={"artefact": str((folder / routing.artefact).resolve())})
    return config.model_copy(update={"tiers": tiers, "routing": routing})
