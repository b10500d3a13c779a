"""The panels of Stepdown's boards, as data; deployments/monitoring/grafana.py makes Grafana's JSON of them.

Queries name metrics without `ray_stepdown_`; `$Cluster`, `$__rate_interval` and `$__range` are Grafana's to fill in.
"""

from dataclasses import dataclass
from typing import Literal

USD, USD_H, SHARE, SECONDS, PER_S = "currencyUSD", "suffix: USD/h", "percentunit", "s", "reqps"
TOKENS_S, COUNT, DEVICES, STATE = "suffix: tokens/s", "short", "suffix: accelerators", "none"
UNITS = frozenset({USD, USD_H, SHARE, SECONDS, PER_S, TOKENS_S, COUNT, DEVICES, STATE})


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. Thresholds: (value, colour), rising; the first colour holds from below."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    """(PromQL, legend)"""
    kind: Literal["timeseries", "stat", "heatmap", "state-timeline"] = "timeseries"
    stacked: bool = False
    thresholds: tuple[tuple[float, str], ...] = ()
    empty: str = ""
    """when it rightly has no data; empty: traffic on a ladder always gives it some"""


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


# -- PromQL ----------------------------------------------------------------------------------------------------------------


CLUSTER = 'ray_io_cluster=~"$Cluster"'


def series(name: str, *matchers: str) -> str:
    return f"ray_stepdown_{name}{{{','.join((*matchers, CLUSTER))}}}"


def rate(name: str, *by: str, times: str = "") -> str:
    """A counter's growth per second, over all replicas of the ingress."""
    return f"sum by ({', '.join(by)}) (rate({series(name + '_total')}[$__rate_interval])){times}"


def held(name: str, times: str = "") -> str:
    """As `rate` by tier, of what every replica of the ingress tells in full."""
    return f"max by (tier) (rate({series(name + '_total')}[$__rate_interval])){times}"


def quantile(q: float, name: str, *by: str) -> str:
    rates = f"sum by ({', '.join(('le', *by))}) (rate({series(name + '_bucket')}[$__rate_interval]))"
    return f"histogram_quantile({q}, {rates})"


def total(name: str, *by: str) -> str:
    """A counter since the processes began: for what is rare."""
    return f"sum by ({', '.join(by)}) ({series(name + '_total')})"


def level(name: str, *by: str) -> str:
    return f"max by ({', '.join(by)}) ({series(name)})"


def total_of(name: str, when: str = "") -> str:
    """A sum of the ledger, over all tiers."""
    return f"sum(max by (tier) ({series(name)}{when}))"


def grown(name: str) -> str:
    """The same over the range shown: exact, whichever replica told it and whether that one still lives."""
    now, then = total_of(name), total_of(name, " offset $__range")
    return f"({now} - ({then} or vector(0)))"


HOURLY = " * 3600"
SAVED = grown("ledger_saving_usd")
AGREES = 'outcome="agrees"'
AGREED = f"sum by (target) ({series('audits_total', AGREES)})"
BUSY, HELD = "accelerator_busy_seconds", "accelerator_held_seconds"
NOT_STREAMED = "nothing was streamed yet"
NO_HOURLY = "no tier has a price by the accelerator-hour"
UNMEASURED = "no tier runs on vLLM here, so nobody measures busy time"

# -- rows ------------------------------------------------------------------------------------------------------------------

COST = Row(
    "Cost",
    (
        Panel(
            "Cost",
            "What all calls of the time shown cost by token price: rejected, cancelled and audit calls too. From the ledger.",
            USD,
            ((grown("ledger_cost_usd"), "cost"),),
            "stat",
        ),
        Panel(
            "The same on the top tier alone",
            "What the largest tier alone would have cost for the same requests, by token"
            " price; requests for which that cannot be told are left out.",
            USD,
            ((grown("ledger_counterfactual_usd"), "top tier alone"),),
            "stat",
        ),
        Panel(
            "Saved",
            "The top tier alone, less what the same requests cost, less audits. By token price: on your own GPUs it"
            " becomes money only when large replicas scale down or serve someone else.",
            USD,
            ((SAVED, "saved"),),
            "stat",
            thresholds=((-1e9, "red"), (0, "green")),
        ),
        Panel(
            "Saved, as a share",
            "What was saved, as a share of the top tier alone.",
            SHARE,
            ((f"{SAVED} / ({grown('ledger_counterfactual_usd')} > 0)", "saved"),),
            "stat",
            thresholds=((-1e9, "red"), (0, "orange"), (0.2, "green")),
        ),
        Panel(
            "Cost by tier",
            "USD an hour by token price, by the tier that was called.",
            USD_H,
            ((rate("cost_usd", "tier", times=HOURLY), "{{tier}}"),),
            stacked=True,
        ),
        Panel(
            "Cost by role",
            "USD an hour by what the call was for: attempts, plans, subtasks, audits.",
            USD_H,
            ((rate("cost_usd", "role", times=HOURLY), "{{role}}"),),
            stacked=True,
        ),
        Panel(
            "As served and on the top tier alone",
            "USD an hour, of the requests for which both are known.",
            USD_H,
            ((rate("compared_usd", times=HOURLY), "as served"), (rate("counterfactual_usd", times=HOURLY), "top tier alone")),
        ),
        Panel(
            "What the saving is made of",
            "Of all that the ledger holds: the top tier alone, less as served, less audits.",
            USD,
            (
                (total_of("ledger_counterfactual_usd"), "top tier alone"),
                (total_of("ledger_compared_usd"), "as served"),
                (total_of("ledger_audit_usd"), "audits"),
            ),
        ),
        Panel(
            "Accelerators in USD",
            "What the accelerators cost an hour, and which part of it was used.",
            USD_H,
            (
                (held("accelerator_held_usd", HOURLY), "held {{tier}}"),
                (rate("accelerator_busy_usd", "tier", times=HOURLY), "used {{tier}}"),
            ),
            empty=NO_HOURLY,
        ),
        Panel(
            "Budgets",
            "The share of its tightest budget that each key has spent; at 100 % it is refused until the period ends.",
            SHARE,
            ((level("budget_used", "key"), "{{key}}"),),
            thresholds=((0, "green"), (0.8, "orange"), (1, "red")),
            empty="no key has a budget",
        ),
    ),
)

MACHINES = Row(
    "Machines",
    (
        Panel(
            "Accelerators held and busy",
            "Accelerators that each tier holds, and how many of them were busy on average.",
            DEVICES,
            ((held(HELD), "held {{tier}}"), (rate(BUSY, "tier"), "busy {{tier}}")),
            empty=UNMEASURED,
        ),
        Panel(
            "Idle",
            "Held accelerators that nobody used.",
            DEVICES,
            ((f"clamp_min({held(HELD)} - ({rate(BUSY, 'tier')} or {held(HELD, ' * 0')}), 0)", "{{tier}}"),),
            stacked=True,
            empty=UNMEASURED,
        ),
        Panel("Replicas", "Replicas that run, by tier.", COUNT, ((level("replicas", "tier"), "{{tier}}"),), empty=UNMEASURED),
    ),
)

TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Requests by answering tier",
            "Requests a second; `none`: nobody answered.",
            PER_S,
            ((rate("requests", "tier"), "{{tier}}"),),
            stacked=True,
        ),
        Panel(
            "Requests by reason",
            "Why the first tier was taken.",
            PER_S,
            ((rate("requests", "reason"), "{{reason}}"),),
            stacked=True,
        ),
        Panel(
            "Requests by status",
            "2xx answered, 4xx the client's mistake, 5xx ours, left: the client closed its connection.",
            PER_S,
            ((rate("requests", "status"), "{{status}}"),),
            stacked=True,
        ),
        Panel(
            "Targets, flows and certificates",
            "What was asked for, how it was worked on, and what covered it.",
            PER_S,
            ((rate("routed", "target", "flow", "certificate"), "{{target}} · {{flow}} · {{certificate}}"),),
            stacked=True,
        ),
        Panel(
            "Whole requests",
            "Seconds from the decision to the last byte, by answering tier: median and 99th percentile.",
            SECONDS,
            (
                (quantile(0.5, "request_seconds", "tier"), "p50 {{tier}}"),
                (quantile(0.99, "request_seconds", "tier"), "p99 {{tier}}"),
            ),
        ),
        Panel(
            "First byte",
            "Seconds until the client got its first content, by answering tier.",
            SECONDS,
            (
                (quantile(0.5, "first_byte_seconds", "tier"), "p50 {{tier}}"),
                (quantile(0.99, "first_byte_seconds", "tier"), "p99 {{tier}}"),
            ),
            empty=NOT_STREAMED,
        ),
        Panel(
            "Requests in the ledger",
            "Since it began, by answering tier.",
            COUNT,
            ((level("ledger_requests", "tier"), "{{tier}}"),),
        ),
    ),
)

ROUTING = Row(
    "Routing",
    (
        Panel(
            "Time to decide",
            "Seconds: median, 99th percentile.",
            SECONDS,
            ((quantile(0.5, "decision_seconds"), "p50"), (quantile(0.99, "decision_seconds"), "p99")),
            thresholds=((0, "green"), (0.0015, "orange"), (0.005, "red")),
        ),
        Panel(
            "Stepdown's own time",
            "Seconds of a request during which no tier worked on it, deciding included; reading the"
            " body and the ledger's commit are left out.",
            SECONDS,
            (
                (quantile(0.5, "overhead_seconds", "flow"), "p50 {{flow}}"),
                (quantile(0.99, "overhead_seconds", "flow"), "p99 {{flow}}"),
            ),
        ),
        Panel(
            "Chance of the tier taken",
            "How sure the classifier was: requests by the chance it gave to the tier that was taken.",
            COUNT,
            ((f"sum by (le) (increase({series('confidence_bucket')}[$__rate_interval]))", "{{le}}"),),
            "heatmap",
            empty="no classifier decides: `routing.artefact` is not set",
        ),
        Panel(
            "Calibration error",
            "Chance given to audited answers, less the share of them that agreed with the top tier; above"
            " nothing: it promises too much. Since the ingress started.",
            SHARE,
            (
                (
                    f"({total('audited_chance', 'target')} - ({AGREED} or {total('audits', 'target')} * 0))"
                    f" / {total('audits', 'target')}",
                    "{{target}}",
                ),
            ),
            thresholds=((-1, "orange"), (-0.05, "green"), (0.05, "orange"), (0.1, "red")),
            empty="nothing was audited yet",
        ),
        Panel(
            "Escalations",
            "Answers of a tier that were not accepted, a second, by reason.",
            PER_S,
            ((rate("escalations", "tier", "reason"), "{{tier}}: {{reason}}"),),
            stacked=True,
            empty="nothing was escalated yet",
        ),
        Panel(
            "Delegations",
            "Requests that delegation or tools worked on, a second; `not worth it`: no part went down.",
            PER_S,
            ((rate("delegations", "flow", "outcome"), "{{flow}}: {{outcome}}"),),
            stacked=True,
            empty="nothing was delegated yet",
        ),
        Panel(
            "Audits",
            "Accepted answers that were compared with the top tier's, since the ingress started.",
            COUNT,
            ((total("audits", "target", "outcome"), "{{target}} {{outcome}}"),),
            empty="nothing was audited yet",
        ),
        Panel(
            "Certificates",
            "What each target's certificate is worth: 1 for the state that it is in.",
            STATE,
            ((f"{level('certificate', 'target', 'state')} == 1", "{{target}}: {{state}}"),),
            "state-timeline",
            empty="no router was trained",
        ),
    ),
)

CALLS = Row(
    "Calls to tiers",
    (
        Panel(
            "Calls by outcome",
            "Calls a second, by tier and what became of the answer.",
            PER_S,
            ((rate("calls", "tier", "outcome"), "{{tier}}: {{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "Tokens",
            "Tokens a second; cached ones are among the input.",
            TOKENS_S,
            (
                (rate("input_tokens", "tier"), "input {{tier}}"),
                (rate("output_tokens", "tier"), "output {{tier}}"),
                (rate("cached_tokens", "tier"), "cached {{tier}}"),
            ),
            empty="no prompt was in a prefix cache yet",
        ),
        Panel(
            "First token",
            "Seconds from the call to the tier's first token.",
            SECONDS,
            (
                (quantile(0.5, "first_token_seconds", "tier"), "p50 {{tier}}"),
                (quantile(0.99, "first_token_seconds", "tier"), "p99 {{tier}}"),
            ),
            empty=NOT_STREAMED,
        ),
        Panel(
            "Whole calls",
            "Seconds of a call.",
            SECONDS,
            ((quantile(0.5, "call_seconds", "tier"), "p50 {{tier}}"), (quantile(0.99, "call_seconds", "tier"), "p99 {{tier}}")),
        ),
        Panel("Tokens in the ledger", "Since it began.", COUNT, ((level("ledger_tokens", "tier", "kind"), "{{kind}} {{tier}}"),)),
        Panel("Calls in the ledger", "Since it began, by tier.", COUNT, ((level("ledger_calls", "tier"), "{{tier}}"),)),
        Panel(
            "Ledger",
            "`ok`: rows go to its database. `spooling`: to a local file until the database answers again. `down`:"
            " requests are refused.",
            STATE,
            ((f"{level('ledger', 'state')} == 1", "{{state}}"),),
            "state-timeline",
        ),
        Panel(
            "Rows in the spool",
            "Rows that wait for the ledger's database.",
            COUNT,
            ((f"sum({series('ledger_spooled')})", "rows"),),
            "stat",
            thresholds=((0, "green"), (1, "orange")),
        ),
    ),
)

ROWS = (COST, MACHINES, TRAFFIC, ROUTING, CALLS)
SERVE_ROWS = (COST, MACHINES)
"""what the Serve page's board gets besides Ray's own panels"""
