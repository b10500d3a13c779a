"""Rows of kept completions, as the collector writes them."""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import Engine, insert

from deployments.learning.kept.completions import metadata_rows
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.schema import completion_metadata, completions
from router import config

TRACE = "{:032x}"


def database(folder: Path, name: str = "ledger.db") -> Engine:
    """With all tables, copied from a file that is made once: making them takes longer than a test."""
    shutil.copy(template(), folder / name)
    return connect(config.Ledger(url=f"sqlite:///{folder / name}"))


@cache
def template() -> Path:
    file = Path(tempfile.mkdtemp(prefix="stepdown-tests-")) / "empty.db"
    engine = connect(config.Ledger(url=f"sqlite:///{file}"))
    migrate(engine)
    engine.dispose()
    return file


def kept(n: int, key: str = "app", role: str = "answer", tier: str = "small", **more) -> dict:
    """A row of `completions`: request number n, asked n seconds after 1000."""
    trace = TRACE.format(n)
    asked = {"messages": json.dumps([{"role": "user", "content": f"What is {n} plus 1?"}]), "sampling": '{"temperature": 0}'}
    return {
        "id": f"chatcmpl-{trace}" if role == "answer" else f"{trace}/{tier}-{role}",
        "trace_id": trace,
        "call_id": f"{trace}-{tier}-{role}",
        "key_id": key,
        "created_s": 1000.0 + n,
        "conversation": "",
        "role": role,
        "tier": tier,
        "model": f"{tier}-1",
        "wanted": "auto",
        "tools": None,
        **(asked if role == "answer" else {"messages": None, "sampling": None}),
        "answer": json.dumps({"role": "assistant", "content": f"It is {n + 1}."}),
        "finish": "stop",
        "input_tokens": 9,
        "output_tokens": 4,
        "cost_usd": 0.001,
        "signals": None,
        "metadata": "{}",
        "consent": "marked",
        "licence": "apache-2.0",
        "redaction": "",
        "expires_s": None,
        **more,
    }


def keep(engine: Engine, *rows: dict) -> None:
    """Write them, with the table by which lists find metadata."""
    pairs = [
        pair
        for row in rows
        if row["role"] == "answer"
        for pair in metadata_rows(row["id"], row["key_id"], row["created_s"], json.loads(row["metadata"]))
    ]
    with writing(engine) as connection:
        connection.execute(insert(completions), list(rows))
        if pairs:
            connection.execute(insert(completion_metadata), pairs)


def with_metadata(n: int, key: str = "app", metadata: dict | None = None, **more) -> dict:
    return kept(n, key, metadata=json.dumps(metadata or {}), **more)
