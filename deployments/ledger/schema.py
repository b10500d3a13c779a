"""The ledger's tables. A change here needs a migration in migrations/ and a test that an old file opens."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, text

metadata = MetaData()
PARTS = ("busy", "idle", "nobody", "over")  # of held time, as router/costs/machine_time.py splits it
AUDITS = text("role = 'audit'")  # to be used as it is: the database finds a partial index by the text of its condition

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
    Index("calls_trace", "trace_id"),
    Index("calls_began", "began_s"),
    Index("calls_audits", "began_s", sqlite_where=AUDITS, postgresql_where=AUDITS),
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
