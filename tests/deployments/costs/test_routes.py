"""The page's routes: who may see what, the same figures as the command, nothing that a hostile name could break."""

import json

import pytest
from alembic import command
from click.testing import CliRunner
from kept_answers import keep, kept
from sample_traffic import KEY, NOW, app
from sqlalchemy import insert
from starlette.testclient import TestClient

from deployments.cli.main import main
from deployments.costs.decisions import every_request, recent, trace
from deployments.costs.interval import interval
from deployments.learning.kept.feedback import Said, give
from deployments.ledger.database import FIRST_REVISION, alembic_setup, connect, writing
from deployments.ledger.schema import grades
from router import config

SIGNED = {"authorization": f"Bearer {KEY}"}
SECRET = ["/costs.json", "/costs/live.json", "/costs/learning.json", "/costs/decisions.json", "/costs/traces/x.json"]
STATIC = ["costs.js", "costs.css", "uplot/uPlot.iife.min.js", "uplot/LICENSE"]
OPEN = ["/costs", "/costs/traces/x", *(f"/costs/static/{name}" for name in STATIC)]
WHEN = f"since={NOW - 3 * 86400:.0f}&until={NOW:.0f}"


@pytest.fixture(scope="session")
def client(engine, settings):
    return TestClient(app(engine, settings))


@pytest.mark.parametrize("path", SECRET)
def test_figures_need_a_key_with_the_right(client, path):
    assert client.get(path).status_code == 401
    refused = client.get(path, headers={"authorization": "Bearer sk-may-not"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")
    assert client.get(path, headers=SIGNED).status_code == (404 if "traces" in path else 200)


@pytest.mark.parametrize("path", [*OPEN, *SECRET])
def test_every_answer_forbids_foreign_and_inline_code(client, path):
    answer = client.get(path, headers=SIGNED)
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == ("no-store" if path in SECRET else "no-cache")


@pytest.mark.parametrize("path", OPEN)
def test_the_page_itself_is_open_and_is_sent_once(client, path):
    first = client.get(path)
    assert first.status_code == 200
    assert client.get(path, headers={"if-none-match": first.headers["etag"]}).status_code == 304


def test_the_page_asks_nothing_of_other_hosts(client):
    for path in OPEN:
        text = client.get(path).text
        assert "<script>" not in text and " style=" not in text and 'src="http' not in text and 'href="http' not in text


@pytest.mark.parametrize("name", ["../routes.py", "..%2froutes.py", "index.html", "", "uplot", "/etc/passwd"])
def test_nothing_but_the_pages_files_can_be_had(client, name):
    assert client.get(f"/costs/static/{name}").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize(
    "query, options",
    [("", []), ("&by=tier", ["--by=tier"]), ("&key=app", ["--key=app"]), ("&tier=small&by=key", ["--tier=small", "--by=key"])],
)
def test_json_and_command_are_equal(client, engine, settings, tmp_path, query, options):
    file = tmp_path / "ladder.yaml"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    asked = ["--config", str(file), "--ledger", str(engine.url), "--since", f"{NOW - 3 * 86400:.0f}", "--until", f"{NOW:.0f}"]
    printed = CliRunner().invoke(main, ["costs", *asked, *options, "--json"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.output) == client.get(f"/costs.json?{WHEN}{query}", headers=SIGNED).json()


@pytest.mark.parametrize("by, heads", [("tier", ["small", "large"]), ("key", ["Web app", "Docs search"]), ("day", ["2026-"])])
def test_the_command_prints_a_table(engine, by, heads):
    asked = ["--ledger", str(engine.url), "--since", f"{NOW - 3 * 86400:.0f}", "--until", f"{NOW:.0f}", "--by", by]
    printed = CliRunner().invoke(main, ["costs", *asked]).output
    assert all(head in printed for head in [*heads, "always large", "nobody's", "only when large replicas scale down"])


@pytest.mark.parametrize("query", ["since=soon", "since=2026-09-02&until=2026-09-01T00:00", "by=tier,colour"])
def test_bad_questions_are_refused_by_name(client, query):
    answer = client.get(f"/costs.json?{query}", headers=SIGNED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("query", ["limit=0", "limit=5000", "limit=ten", "before=yesterday"])
def test_bad_pages_are_refused(client, query):
    assert client.get(f"/costs/decisions.json?{query}", headers=SIGNED).status_code == 400


def test_access_is_told_without_an_error(client):
    assert client.get("/costs/access.json").json()["allowed"] is False
    assert client.get("/costs/access.json", headers=SIGNED).json() == {"allowed": True, "why": ""}


def test_no_ledger_is_one_line(tmp_path):
    found = CliRunner().invoke(main, ["costs", "--ledger", f"sqlite:///{tmp_path / 'none.db'}"])
    assert found.exit_code == 2 and "no ledger at" in found.output and not (tmp_path / "none.db").exists()


def test_a_ledger_of_an_older_version_is_told_how_to_be_mended(tmp_path):
    engine = connect(config.Ledger(url=f"sqlite:///{tmp_path / 'old.db'}"))
    with writing(engine) as connection:
        command.upgrade(alembic_setup(connection), FIRST_REVISION)
    engine.dispose()
    found = CliRunner().invoke(main, ["costs", "--ledger", f"sqlite:///{tmp_path / 'old.db'}"])
    assert found.exit_code == 2 and "older version" in found.output


@pytest.mark.parametrize("key, tier", [(None, None), ("app", None), (None, "large"), ("docs", "small"), ("nobody", None)])
def test_pages_of_decisions_are_all_requests_newest_first(engine, rows, key, tier):
    wanted = [t["id"] for t in rows.traces if key in (None, t["key_id"]) and tier in (None, t["tier"])]
    found, before = [], None
    while page := recent(engine, 37, key, tier, before):
        found += page
        before = page[-1]["cursor"]
    assert sorted(row["id"] for row in found) == sorted(wanted)
    assert [row["began_s"] for row in found] == sorted((row["began_s"] for row in found), reverse=True)


def test_decisions_of_a_time(engine, rows):
    since, until = NOW - 2 * 86400, NOW - 86400
    found = recent(engine, 200, since=since, until=until, tier="small")
    wanted = [t for t in rows.traces if since <= t["began_s"] < until and t["tier"] == "small"]
    assert {row["id"] for row in found} == {t["id"] for t in wanted}


def test_a_trace_has_its_calls(engine, rows):
    found = trace(engine, rows.traces[0]["id"])
    assert [call["id"] for call in found["calls"]] == [c["id"] for c in rows.calls if c["trace_id"] == found["id"]]
    assert trace(engine, "nothing") is None


def test_a_trace_says_whether_it_is_kept_and_what_was_said_of_it(engine, rows):
    first, other = rows.traces[0]["id"], rows.traces[1]["id"]
    keep(engine, kept(0, id=f"chatcmpl-{first}", trace_id=first), kept(0, role="fill", tier="large", id="f", trace_id=first))
    with writing(engine) as connection:
        give(connection, Said(first, "app", 5.0, 0.0, "It is 1."))
        connection.execute(insert(grades).values(trace_id=first, tier="large", score=1.0, source="top", detail="", at_s=1.0))
    found = trace(engine, first)
    assert found["kept"]["consent"] == "marked" and found["kept"]["licence"] == "apache-2.0"
    assert found["kept"]["answers"] == [{"tier": "small", "role": "answer"}, {"tier": "large", "role": "fill"}]
    assert found["kept"]["grades"] == [{"tier": "large", "score": 1.0, "source": "top"}]
    assert [(said["key_id"], said["score"], said["correction"]) for said in found["feedback"]] == [("app", 0.0, "It is 1.")]
    assert (trace(engine, other)["kept"], trace(engine, other)["feedback"]) == (None, [])


def test_the_export_is_every_row_once(engine, rows):
    found = list(every_request(engine, interval(NOW - 5 * 86400, NOW)))
    assert sorted(row["id"] for row in found) == sorted(t["id"] for t in rows.traces)
    assert sum(len(row["calls"]) for row in found) == len(rows.calls)
