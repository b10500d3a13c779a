"""`stepdown serve` on echo tiers beside a real Prometheus: what clients were told, the ledger and the metrics agree."""

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import httpx
import openai
import pytest

from deployments.monitoring.prometheus import DISCOVERY, check_panels, prometheus
from deployments.serve.background import free_port, served

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt install prometheus"),
]
CONFIG = """
tiers:
  - {name: small, engine: echo, context: 200, delay_s: 0.01, price: {usd_per_1m_input: 1, usd_per_1m_output: 1}}
  - {name: large, engine: echo, context: 1024, price: {usd_per_1m_input: 5, usd_per_1m_output: 5}}
"""
ROUNDS = 10


@pytest.fixture(scope="module")
def seen():
    """(usages of all answers, address of Prometheus, ledger's file)"""
    folder = Path(tempfile.mkdtemp(prefix="sd"))  # short: Ray's sockets are in it
    (folder / "echo.yaml").write_text(CONFIG)
    state = folder / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("STEPDOWN_STATE_DIR", str(state))
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        scraped = prometheus(free_port(), folder / "prometheus", folder / "ray" / DISCOVERY, every_s=1)
        with served(str(folder / "echo.yaml"), 240) as (url, key), scraped as metrics:
            yield traffic(openai.OpenAI(base_url=url, api_key=key, max_retries=0)), metrics, next(state.glob("**/*.db"))
    shutil.rmtree(folder, ignore_errors=True)


def traffic(client):
    usages = []
    for n in range(ROUNDS):
        for model in ("auto", "small"):
            asked = {"model": model, "messages": [{"role": "user", "content": "word " * (n + 1)}]}
            usages.append(client.chat.completions.create(**asked).usage)
            *_, last = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
            usages.append(last.usage)
        time.sleep(1.5)
    return usages


def becomes(url, query, wanted, timeout_s=60.0):
    until, found = time.monotonic() + timeout_s, -1.0
    while time.monotonic() < until and found != pytest.approx(wanted, rel=1e-9):
        time.sleep(1)
        rows = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()["data"]["result"]
        found = float(rows[0]["value"][1]) if rows else -1.0
    return found


def test_clients_ledger_and_prometheus_agree(seen):
    usages, url, file = seen
    given, answered = sum(u.prompt_tokens for u in usages), sum(u.completion_tokens for u in usages)
    sums = "select sum(input_tokens), sum(output_tokens), sum(cost_usd) from calls"
    until = time.monotonic() + 10  # rows are in the tables a second after they are durable
    while (row := sqlite3.connect(file).execute(sums).fetchone())[:2] != (given, answered) and time.monotonic() < until:
        time.sleep(0.1)
    assert row[:2] == (given, answered)
    assert becomes(url, "sum(ray_stepdown_input_tokens_total)", given) == given
    assert becomes(url, "sum(ray_stepdown_output_tokens_total)", answered) == answered
    assert becomes(url, "sum(ray_stepdown_cost_usd_total)", row[2]) == pytest.approx(row[2], rel=1e-9)
    of_ledger = 'sum(max by (tier) (ray_stepdown_ledger_tokens{kind="%s"}))'
    assert becomes(url, of_ledger % "input", given) == given
    assert becomes(url, of_ledger % "output", answered) == answered
    assert becomes(url, "sum(max by (tier) (ray_stepdown_ledger_cost_usd))", row[2]) == pytest.approx(row[2], rel=1e-9)


def test_a_panel_without_data_says_why(seen):
    assert not [(row.panel, row.expr, row.error) for row in check_panels(seen[1]) if row.wrong]
