"""The ledger's tables. A change here needs a migration in migrations/ and a test that an old file opens."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

metadata = MetaData()
PARTS = ("busy", "idle", "nobody", "over")  # of held time, as router/costs/machine_time.py splits it
AUDITS = text("role = 'audit'")  # to be used as it is: the database finds a partial index by the text of its condition
LEARNED = text("key_id = 'learning'")  # likewise: calls that were made to learn from, router.trace.LEARNING

traces = Table(
    "traces",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("began_s", Float(53), nullable=False),
    Column("took_s", Float(53), nullable=False),
    Column("path", String(32), nullable=False),
    Column("wanted", String(128), nullable=False),
    Column("status", Integer, nullable=False),
    Column("tier", String(64), nullable=False),
    Column("target", String(64), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("flow", String(32), nullable=False),
    Column("error", String(64), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("confidence", Float(53)),
    Column("unfamiliar", Float(53)),
    Column("p", Text, nullable=False),  # JSON: tier -> chance
    Column("certificate", String(32), nullable=False),
    Column("decision_ms", Float(53), nullable=False),
    Column("first_byte_s", Float(53)),
    Column("cost_usd", Float(53), nullable=False),
    Column("counterfactual_usd", Float(53)),
    Column("counterfactual_estimated", Boolean, nullable=False),
    Column("prompt", Text),
    Column("answer", Text),
    Column("router", String(64)),  # digest of the artefact that decided; null in rows of before
    Index("traces_began", "began_s"),
    Index("traces_key_began", "key_id", "began_s"),
)

calls = Table(
    "calls",
    metadata,
    Column("id", String(160), primary_key=True),
    Column("trace_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("tier", String(64), nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("began_s", Float(53), nullable=False),
    Column("took_s", Float(53), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("first_token_s", Float(53)),
    Column("cost_usd", Float(53), nullable=False),
    Column("replica", String(128), nullable=False),
    Column("busy_s", Float(53)),
    Column("gpu_usd", Float(53)),
    Column("model", String(64)),  # the tier's fingerprint; null in rows of before
    Index("calls_trace", "trace_id"),
    Index("calls_began", "began_s"),
    Index("calls_audits", "began_s", sqlite_where=AUDITS, postgresql_where=AUDITS),
    Index("calls_learned", "began_s", sqlite_where=LEARNED, postgresql_where=LEARNED),
)

# -- sums ------------------------------------------------------------------------------------------------------------------
#
# Kept in the transaction that writes the rows, so that a page over a million rows reads a few thousand. Only new rows are
# counted, so a row that is written twice is summed once. Sums stay when old rows are deleted.


def of_calls() -> list[Column[Any]]:
    return [
        *(Column(name, BigInteger, nullable=False) for name in ("calls", "input_tokens", "output_tokens", "cached_tokens")),
        *(Column(name, Float(53), nullable=False) for name in ("cost_usd", "busy_s", "gpu_usd")),
    ]


def of_traces() -> list[Column[Any]]:
    return [
        Column("requests", BigInteger, nullable=False),
        Column("failed", BigInteger, nullable=False),  # status 400 and above
        Column("cost_usd", Float(53), nullable=False),  # of requests whose counterfactual is known
        Column("counterfactual_usd", Float(53), nullable=False),  # of the same requests
        Column("cost_all_usd", Float(53), nullable=False),  # of all requests
        Column("confidence", Float(53), nullable=False),  # sum, over requests that have one
        Column("confident", BigInteger, nullable=False),  # how many have one
    ]


def groups(*names: str) -> list[Column[Any]]:
    """The primary key.

    hour, day: Unix time of its begin, UTC. tier: the one called; of traces the one whose answer the client got, "" for none.
    """
    lengths = {"role": 16, "flow": 32}
    kinds = {name: BigInteger() if name in ("hour", "day") else String(lengths.get(name, 64)) for name in names}
    return [Column(name, kind, primary_key=True, autoincrement=False) for name, kind in kinds.items()]


hourly = Table("hourly", metadata, *groups("hour", "key_id", "tier", "role"), *of_calls())
daily = Table("daily", metadata, *groups("day", "key_id", "tier", "role"), *of_calls())

DECIDED = ("tier", "target", "reason", "flow")
hourly_traces = Table("hourly_traces", metadata, *groups("hour", "key_id", *DECIDED), *of_traces())
daily_traces = Table("daily_traces", metadata, *groups("key_id", "day", *DECIDED), *of_traces())  # a key's rows are adjacent
daily_totals = Table("daily_totals", metadata, *groups("day", *DECIDED), *of_traces())  # over all keys
daily_keys = Table("daily_keys", metadata, *groups("day", "key_id", "tier", "flow"), *of_traces())

# Sums of windows.
hourly_held = Table(
    "hourly_held",
    metadata,
    *groups("hour", "tier"),
    Column("replica_s", Float(53), nullable=False),
    Column("accelerator_s", Float(53), nullable=False),
    Column("usd", Float(53), nullable=False),  # 0 where the tier has no price by the hour
)

# Who used the machines' time and who bears its idle part, for days that are over (machine_time_sums.py). A late row reopens
# its day.
closed_days = Table("closed_days", metadata, *groups("day"))
daily_machines = Table(
    "daily_machines",
    metadata,
    *groups("day", "tier", "key_id"),  # key_id: also NOBODY and OVER of router/costs/machine_time.py
    *(Column(f"{part}_{unit}", Float(53), nullable=False) for unit in ("s", "usd") for part in PARTS),
)

# Accelerator time that was held. Windows older than a day are merged into rows of up to an hour without a gap.
windows = Table(
    "windows",
    metadata,
    Column("tier", String(64), primary_key=True),
    Column("began_s", BigInteger, primary_key=True),
    Column("seconds", Float(53), nullable=False),
    Column("replicas", Float(53), nullable=False),
    Column("accelerators", Integer, nullable=False),
    Column("usd_per_accelerator_hour", Float(53)),
    Index("windows_began", "began_s"),
)

# Tiers without replicas of their own: their calls use the time that their host holds. Windows are the host's alone.
shared_replicas = Table(
    "shared_replicas", metadata, Column("tier", String(64), primary_key=True), Column("host", String(64), nullable=False)
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),  # shown in lists and reports; not secret
    Column("name", String(128), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of the key, hexadecimal
    Column("created_s", Float(53), nullable=False),
    Column("revoked_s", Float(53)),
    Column("tiers", Text),  # JSON list; null: all
    Column("targets", Text),  # JSON list; null: all
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("usd_per_day", Float(53)),
    Column("usd_per_month", Float(53)),
    Column("rights", Text, nullable=False),  # JSON list of router.limits.key_limits.RIGHTS
    Column("learning", String(16), nullable=False, server_default="never"),  # router.limits.consent.CONSENTS
)

# What a key has spent and reserved in one day or month. One statement reserves, so that concurrent requests, in any number of
# processes, never reserve more than the limit.
budgets = Table(
    "budgets",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("period", String(10), primary_key=True),  # `2026-11-24` or `2026-11`, UTC
    Column("spent_usd", Float(53), nullable=False),
    Column("reserved_usd", Float(53), nullable=False),
)

# A reservation whose process died before settling it is given back when it expires.
reservations = Table(
    "reservations",
    metadata,
    Column("id", String(64), primary_key=True),  # the trace's id
    Column("key_id", String(64), nullable=False),
    Column("usd", Float(53), nullable=False),
    Column("expires_s", Float(53), nullable=False),
    Column("periods", Text, nullable=False),  # JSON list of the periods that hold it
    Index("reservations_expires", "expires_s"),
)

# What audits have found of each certificate, by all processes; see router/decide/drift.py.
certificates = Table(
    "certificates",
    metadata,
    Column("digest", String(64), primary_key=True),  # of the certificate's content
    Column("rule", String(128), nullable=False),  # its target, or `TARGET:holdback`
    Column("audits", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),  # audited answers that differed
    Column("retired", Text, nullable=False),  # when and why; "": it is not retired
    Column("changed_s", Float(53), nullable=False),
)

# -- learning --------------------------------------------------------------------------------------------------------------
#
# What was served and may be kept, and what is learned from it. docs/learning.md tells the whole story.

COMPLETION = String(192)
ANSWERS = text("role = 'answer'")  # as AUDITS: to be used as it is
# A page of answers is found in the index alone; SQLite does so only if the index has the column of its own condition, too.
LISTED = ("created_s", "id", "tier", "wanted", "role")

completions = Table(
    "completions",
    metadata,
    Column("id", COMPLETION, primary_key=True),  # role `answer`: `chatcmpl-TRACE`, which the client got; else `TRACE/CALL`
    Column("trace_id", String(64), nullable=False),
    Column("call_id", String(160), nullable=False),  # of calls.id; empty: spliced from several
    Column("key_id", String(64), nullable=False),  # the key that asked, in every role
    Column("created_s", Float(53), nullable=False),
    Column("conversation", String(64), nullable=False),  # digest of sessions.key_of; empty: none
    Column("role", String(16), nullable=False),  # answer, draft, audit, fill
    Column("tier", String(64), nullable=False),
    Column("model", String(64), nullable=False),  # the tier's fingerprint
    Column("wanted", String(128), nullable=False),  # the request's `model`
    Column("finish", String(32), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_usd", Float(53), nullable=False),
    Column("consent", String(16), nullable=False),  # by what it was kept: `marked` (the request's store) or `all` (its key)
    Column("licence", String(64), nullable=False),  # of the tier's model
    Column("redaction", String(128), nullable=False),  # hook and version of what it was redacted by; empty: by none
    Column("expires_s", Float(53)),  # null: never
    # Long texts stand last, so that SQLite reads the columns above without them.
    Column("messages", Text),  # JSON, redacted; null in rows that are no `answer`: they share their trace's
    Column("tools", Text),  # JSON; null: none
    Column("sampling", Text),  # JSON: the other fields of the body that a tier reads; null as `messages`
    Column("answer", Text, nullable=False),  # JSON of OpenAI's message
    Column("signals", Text),  # JSON: statistics of log-probabilities, as `stepdown label` writes them; null: none
    Column("metadata", Text, nullable=False),  # JSON object of the client's
    Index("completions_trace", "trace_id"),
    Index("completions_created", "created_s", "id"),
    Index("completions_expires", "expires_s"),
    Index("completions_answers", "key_id", *LISTED, sqlite_where=ANSWERS, postgresql_where=ANSWERS),
    Index("completions_answers_of_all", *LISTED, sqlite_where=ANSWERS, postgresql_where=ANSWERS),
)

# One row for each pair of `metadata` of an answer, so that a list by metadata needs no scan.
completion_metadata = Table(
    "completion_metadata",
    metadata,
    Column("completion_id", COMPLETION, primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(512), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("created_s", Float(53), nullable=False),
    Index("completion_metadata_value", "key_id", "name", "value", "created_s", "completion_id"),
    Index("completion_metadata_of_all", "name", "value", "created_s", "completion_id"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("trace_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),  # who gave it
    Column("score", Float(53)),  # in [0, 1]; null: only a correction
    Column("correction", Text),  # the answer as it should have been
    Column("comment", Text),
    Column("at_s", Float(53), nullable=False),
    Index("feedback_trace", "trace_id"),
    Index("feedback_at", "at_s"),
)

# Stored prompts of which the tiers that were not asked are to be asked, drawn at random with a known chance.
fills = Table(
    "fills",
    metadata,
    Column("trace_id", String(64), primary_key=True),
    Column("drawn_s", Float(53), nullable=False),
    Column("chance", Float(53), nullable=False),  # with which it was drawn, in (0, 1]
    Column("state", String(16), nullable=False),  # waiting, done, failed, dropped
    Column("why", Text, nullable=False),
    Column("changed_s", Float(53), nullable=False),
    Index("fills_state", "state", "drawn_s"),
)

grades = Table(
    "grades",
    metadata,
    Column("trace_id", String(64), primary_key=True),
    Column("tier", String(64), primary_key=True),
    Column("score", Float(53)),  # in [0, 1]; null: could not be graded
    Column("source", String(16), nullable=False),  # feedback, tests, agreement, judge, top
    Column("detail", Text, nullable=False),
    Column("at_s", Float(53), nullable=False),
    Index("grades_at", "at_s"),
)

# Runs of the flywheel. `run_events` are only ever added.
runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # router
    Column("began_s", Float(53), nullable=False),
    Column("ended_s", Float(53)),
    Column("stage", String(16), nullable=False),  # router.flywheel.stages.Stage
    Column("candidate", String(64), nullable=False),  # digest of the artefact; empty: not made yet
    Column(
        "incumbent", String(64), nullable=False
    ),  # digest of the artefact that it is compared with; empty: always the top tier
    Column("started_by", String(128), nullable=False),
    Column("settings", Text, nullable=False),  # JSON: section flywheel, seed, versions
    Index("runs_began", "began_s"),
)
run_events = Table(
    "run_events",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 0, 1, 2, ... within its run
    Column("at_s", Float(53), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("what", String(64), nullable=False),  # began, looked, passed, refused, promoted, rolled back, ...
    Column("numbers", Text, nullable=False),  # JSON object
    Column("by", String(128), nullable=False),  # host:pid of the process, or who asked
)

run_pairs = Table(  # drawn requests on which a run has compared its candidate with the incumbent; each once
    "run_pairs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("trace_id", String(64), primary_key=True),
    Column("number", Integer, nullable=False),  # 0, 1, 2, ... in the order in which they were looked at
    Column("stage", String(16), nullable=False),  # of the run, when it was looked at
    Column("conversation", String(64), nullable=False),  # the trace's id where it belongs to none
    Column("d", Float(53)),  # the candidate's score less the incumbent's, in [-1, 1]; null: it does not count
    Column("chance", Float(53), nullable=False),  # with which the request was drawn
    Column("candidate_usd", Float(53), nullable=False),
    Column("incumbent_usd", Float(53), nullable=False),
    Column("why", Text, nullable=False),  # why it does not count; empty: it does
    Column("at_s", Float(53), nullable=False),
    Index("run_pairs_conversation", "run_id", "conversation"),
    Index("run_pairs_number", "run_id", "number"),
)

# Artefacts that were learned from the log, with their files, so that every ingress of a cluster can load them.
models = Table(
    "models",
    metadata,
    Column("digest", String(64), primary_key=True),  # of names and contents of its files
    Column("kind", String(16), nullable=False),  # router; weights: their files are in the store of weights
    Column("parent", String(64), nullable=False),  # digest of the incumbent when it was made; of weights: of those they replace
    Column("run_id", String(64), nullable=False),
    Column("method", String(64), nullable=False),  # the classifier
    Column("dataset", String(64), nullable=False),  # SHA-256 of what it was trained and calibrated on
    Column("seed", BigInteger, nullable=False),
    Column("licence", String(64), nullable=False),
    Column("made_s", Float(53), nullable=False),
    Column("files", Text, nullable=False),  # JSON: name -> SHA-256
    Column("tier", String(64), nullable=False, server_default=""),  # of weights: whose they are
    Column("numbers", Text, nullable=False, server_default="{}"),  # JSON: what a generation learned, cost and saves
)
model_files = Table(
    "model_files",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
model_rows = Table(  # which requests an artefact was made from, by trace id
    "model_rows",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("trace_id", String(64), primary_key=True),
    Index("model_rows_trace", "trace_id"),
)

# What every ingress decides by. Slots: promoted, canary, previous.
bundles = Table(
    "bundles",
    metadata,
    Column("slot", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),  # of `models`; empty: the configured artefact, or none
    Column("run_id", String(64), nullable=False),
    Column("share", Float(53), nullable=False),  # of conversations; 1 for `promoted`
    Column("since_s", Float(53), nullable=False),
    Column("over", String(64), nullable=False),  # digest of the artefact that the configuration named then; empty: none
    Column("by", String(128), nullable=False),
)
leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("until_s", Float(53), nullable=False),
)

# -- answers of the Responses protocol that a later request may continue ---------------------------------------------------

response_states = Table(
    "response_states",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("kept", LargeBinary, nullable=False),  # deployments/endpoint/response_states.py: Kept, packed
    Column("expires_s", Float(53), nullable=False),
    Index("response_states_expires", "expires_s"),
)
