"""Kept requests for tests of what reads them: rows as the collector writes them."""

import json
from typing import Any

from sqlalchemy import Engine, insert

from deployments.ledger.database import writing
from deployments.ledger.schema import completions, feedback, fills, traces

AT_S = 1_790_000_000.0
QUESTION = [{"role": "user", "content": "how much is six times seven"}]
STATISTICS = {"mean_logprob": -0.01, "min_logprob": -0.02, "logprob_tokens": 3, "first_logprobs": [-0.01]}


def row(
    trace: str, role: str = "answer", tier: str = "small", text: str = "42", at_s: float = AT_S, **other: Any
) -> dict[str, Any]:
    own = role == "answer"
    found = {
        "id": f"chatcmpl-{trace}" if own else f"{trace}/{role}-{tier}",
        "trace_id": trace,
        "call_id": f"{trace}/{role}-{tier}",
        "key_id": "key-1",
        "created_s": at_s,
        "conversation": f"conversation of {trace}",
        "role": role,
        "tier": tier,
        "model": f"{tier}#1",
        "wanted": "auto",
        "messages": json.dumps(QUESTION) if own else None,
        "tools": None,
        "sampling": json.dumps({"max_tokens": 9}) if own else None,
        "answer": json.dumps({"role": "assistant", "content": text}),
        "finish": "stop",
        "input_tokens": 6,
        "output_tokens": 1,
        "cost_usd": 0.001,
        "signals": json.dumps(STATISTICS),
        "metadata": "{}",
        "consent": "all",
        "licence": "apache-2.0",
        "redaction": "",
        "expires_s": None,
    }
    return found | other


def trace_row(trace: str, **other: Any) -> dict[str, Any]:
    text = dict.fromkeys(("path", "wanted", "target", "reason", "error"), "x")
    found = {**text, "id": trace, "key_id": "key-1", "began_s": AT_S, "took_s": 1.0, "status": 200, "tier": "small"}
    more = {"flow": "cascade", "stream": False, "p": "{}", "certificate": "valid", "decision_ms": 1.0, "cost_usd": 0.001}
    return {**found, **more, "counterfactual_estimated": True, "router": "abc", **other}


def fill_row(trace: str, state: str = "waiting", at_s: float = AT_S, why: str = "", **other: Any) -> dict[str, Any]:
    return {"trace_id": trace, "drawn_s": at_s, "chance": 0.5, "state": state, "why": why, "changed_s": at_s, **other}


def feedback_row(trace: str, score: float | None = None, correction: str | None = None, at_s: float = AT_S) -> dict[str, Any]:
    given = {"score": score, "correction": correction, "comment": None, "at_s": at_s}
    return {"id": f"{trace}-{at_s}", "trace_id": trace, "key_id": "key-1", **given}


def store(engine: Engine, **rows: Any) -> None:
    """rows: by table, one or several."""
    tables = {"completions": completions, "fills": fills, "traces": traces, "feedback": feedback}
    with writing(engine) as connection:
        for name, given in rows.items():
            connection.execute(insert(tables[name]), given if isinstance(given, list) else [given])
