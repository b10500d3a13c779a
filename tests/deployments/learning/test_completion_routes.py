"""OpenAI's own client lists, reads, changes and deletes what was kept; feedback is given; nobody sees another key's rows."""

import json
import threading

import openai
import pytest
from kept_answers import TRACE, database, keep, kept, with_metadata
from sqlalchemy import func, insert, select
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.testclient import TestClient

from deployments.learning.kept.completion_routes import routes
from deployments.ledger.database import writing
from deployments.ledger.schema import completion_metadata, completions, feedback, fills, grades, traces
from router.errors import BadKey, LedgerDown, TooLarge
from router.limits.key_limits import Key

pytestmark = pytest.mark.slow
KEYS = {
    "app": Key("app", "app"),
    "other": Key("other", "other"),
    "trainer": Key("trainer", "trainer", rights=frozenset({"learn"})),
}


async def look_up(headers) -> Key:
    key = KEYS.get(headers.get("authorization", "").removeprefix("Bearer "))
    if key is None:
        raise BadKey
    return key


async def settled() -> None:
    """Every row of these tests is in the tables."""


async def read(request, most: int) -> bytes:
    body = await request.body()
    if len(body) > most:
        raise TooLarge(most)
    return body


@pytest.fixture
def engine(tmp_path):
    made = database(tmp_path)
    yield made
    made.dispose()


@pytest.fixture(autouse=True)
def nothing_is_on_its_way(monkeypatch):
    monkeypatch.setattr("deployments.learning.kept.completion_routes.WAITS_S", ())


def http(engine, key: str = "app", redact: str | None = None) -> TestClient:
    app = Starlette(routes=routes(engine, look_up, settled, read, redact))
    return TestClient(app, headers={"authorization": f"Bearer {key}"}, raise_server_exceptions=False)


def client(engine, key: str = "app") -> openai.OpenAI:
    return openai.OpenAI(base_url="http://testserver/v1", api_key=key, max_retries=0, http_client=http(engine, key))


def reply(n: int) -> str:
    return f"chatcmpl-{TRACE.format(n)}"


def ids(found) -> list[str]:
    return [one.id for one in found]


# -- lists -----------------------------------------------------------------------------------------------------------------


def test_the_client_pages_through_everything_in_both_orders(engine):
    keep(engine, *(kept(n) for n in range(45)))
    stored = client(engine).chat.completions
    assert ids(stored.list()) == [reply(n) for n in range(45)]
    assert ids(stored.list(order="desc", limit=7)) == [reply(n) for n in reversed(range(45))]
    first = stored.list(limit=45)
    assert first.has_more is False and len(first.data) == 45


def test_only_answers_are_listed(engine):
    keep(engine, kept(0), kept(0, role="draft"), kept(0, role="fill", tier="large"))
    assert ids(client(engine).chat.completions.list()) == [reply(0)]


def test_rows_that_come_meanwhile_make_no_gap_and_no_repetition(engine):
    keep(engine, *(kept(n) for n in range(0, 40, 2)))
    stored = client(engine).chat.completions
    seen, page = [], stored.list(limit=5)
    for n in (1, 3, 100, 101, 102):  # into what was read already, and after it
        seen += ids(page.data)
        keep(engine, kept(n))
        page = page.get_next_page()
    while True:
        seen += ids(page.data)
        if not page.has_next_page():
            break
        page = page.get_next_page()
    assert seen == sorted(set(seen)) and {reply(n) for n in (*range(0, 40, 2), 100, 101, 102)} <= set(seen)


def test_rows_of_one_moment_are_listed_once_each(engine):
    keep(engine, *(kept(n, created_s=5.0) for n in range(9)))
    assert ids(client(engine).chat.completions.list(limit=2)) == [reply(n) for n in range(9)]


def test_lists_by_metadata_and_model(engine):
    keep(
        engine,
        with_metadata(0, metadata={"app": "mail", "user": "x"}),
        with_metadata(1, metadata={"app": "mail"}, tier="large"),
        with_metadata(2, metadata={"app": "chat", "user": "x"}, wanted="auto:cheap"),
        with_metadata(3, "other", metadata={"app": "mail"}),
    )
    stored = client(engine).chat.completions
    assert ids(stored.list(metadata={"app": "mail"})) == [reply(0), reply(1)]
    assert ids(stored.list(metadata={"app": "mail", "user": "x"})) == [reply(0)]
    assert ids(stored.list(metadata={"app": "mail"}, model="large")) == [reply(1)]
    assert ids(stored.list(model="auto:cheap")) == [reply(2)]
    assert ids(stored.list(metadata={"app": "mail"}, limit=1, order="desc")) == [reply(1), reply(0)]
    assert ids(stored.list(metadata={"app": "nothing"})) == []
    assert ids(client(engine, "trainer").chat.completions.list(metadata={"app": "mail"})) == [reply(0), reply(1), reply(3)]


def test_what_was_listed_may_be_deleted_before_the_next_page(engine):
    keep(engine, *(kept(n) for n in range(9)))
    with writing(engine) as connection:
        connection.execute(insert(traces), [trace_row(n) for n in range(9)])
    stored = client(engine).chat.completions
    for one in stored.list(limit=3):
        stored.delete(one.id)
    assert ids(stored.list()) == []


def trace_row(n: int) -> dict:
    words = dict.fromkeys(("path", "wanted", "tier", "target", "reason", "flow", "error", "certificate"), "")
    numbers = dict.fromkeys(("took_s", "decision_ms", "cost_usd"), 0.0)
    common = {"status": 200, "stream": False, "p": "{}", "counterfactual_estimated": False}
    return {"id": TRACE.format(n), "key_id": "app", "began_s": 1000.0 + n, **words, **numbers, **common}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("order=up", "order"),
        ("modle=small", "modle"),
        ("metadata=mail", "metadata"),
        ("metadata.app=mail", "metadata"),
        ("metadata[app]=a&metadata[app]=b", "metadata"),
        (f"metadata[app]={'x' * 513}", "metadata"),
        ("model=%00", None),
    ],
)
def test_a_bad_question_is_refused_by_its_parameter(engine, query, param):
    told = http(engine).get(f"/v1/chat/completions?{query}")
    assert (told.status_code, told.json()["error"]["code"], told.json()["error"]["param"]) == (400, "invalid_request", param)


def test_an_unknown_place_is_refused(engine):
    keep(engine, kept(0, "other"))
    for after in ("chatcmpl-none", reply(0)):
        assert http(engine).get(f"/v1/chat/completions?after={after}").status_code == 404


def test_a_page_of_large_answers_ends_early_and_the_next_goes_on(engine, monkeypatch):
    monkeypatch.setattr("deployments.learning.kept.completion_routes.PAGE_BYTES", 100)
    monkeypatch.setattr("deployments.learning.kept.completion_routes.PART", 1)
    keep(engine, *(kept(n, answer=json.dumps({"role": "assistant", "content": "x" * 50})) for n in range(5)))
    page = client(engine).chat.completions.list(limit=4)
    assert len(page.data) == 1 and page.has_more
    assert ids(page) == [reply(n) for n in range(5)]


# -- one -------------------------------------------------------------------------------------------------------------------


def test_the_client_reads_one(engine):
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "user": "u"}
    keep(
        engine,
        with_metadata(4, metadata={"app": "mail"}, tools=json.dumps(tools), sampling=json.dumps(sampling), finish="length"),
    )
    one = client(engine).chat.completions.retrieve(reply(4))
    assert (one.id, one.object, one.created, one.model) == (reply(4), "chat.completion", 1004, "small")
    assert (one.choices[0].message.content, one.choices[0].finish_reason) == ("It is 5.", "length")
    assert (one.usage.prompt_tokens, one.usage.completion_tokens, one.usage.total_tokens) == (9, 4, 13)
    assert (one.metadata, one.request_id, one.temperature, one.top_p, one.seed) == ({"app": "mail"}, TRACE.format(4), 0.5, 0.9, 7)
    assert one.tools == tools and one.system_fingerprint == "small-1" and one.input_user == "u"
    assert one.stepdown["asked_for"] == "auto" and one.stepdown["consent"] == "marked"


def test_the_client_reads_the_messages(engine):
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": parts},
        {"role": "user", "content": "Go."},
    ]
    keep(engine, kept(1, messages=json.dumps(messages)))
    listed = client(engine).chat.completions.messages.list
    found = list(listed(reply(1), limit=1))
    assert [(m.id, m.role, m.content) for m in found] == [
        (f"{reply(1)}-0", "system", "Be short."),
        (f"{reply(1)}-1", "user", None),
        (f"{reply(1)}-2", "user", "Go."),
    ]
    assert found[1].content_parts[0].text == "look" and found[0].content_parts is None
    assert [m.id[-1] for m in listed(reply(1), order="desc", after=f"{reply(1)}-2")] == ["1", "0"]
    with pytest.raises(openai.NotFoundError):
        listed(reply(1), after="nothing")


def test_the_client_replaces_metadata_and_lists_by_the_new_ones(engine):
    keep(engine, with_metadata(0, metadata={"app": "mail"}))
    stored = client(engine).chat.completions
    assert stored.update(reply(0), metadata={"app": "chat", "checked": "yes"}).metadata == {"app": "chat", "checked": "yes"}
    assert ids(stored.list(metadata={"app": "mail"})) == [] and ids(stored.list(metadata={"checked": "yes"})) == [reply(0)]
    assert stored.update(reply(0), metadata=None).metadata == {}
    assert count(engine, completion_metadata) == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"metadata": {}, "model": "large"},
        {"metadata": "app"},
        {"metadata": {"app": 1}},
        {"metadata": {"": "x"}},
        {"metadata": {"a" * 65: "x"}},
        {"metadata": {"a": "x" * 513}},
        {"metadata": {"a": "\0"}},
        {"metadata": {str(n): "x" for n in range(17)}},
    ],
)
def test_metadata_that_openai_would_refuse_is_refused(engine, body):
    keep(engine, with_metadata(0, metadata={"app": "mail"}))
    assert http(engine).post(f"/v1/chat/completions/{reply(0)}", json=body).status_code == 400
    assert client(engine).chat.completions.retrieve(reply(0)).metadata == {"app": "mail"}


def count(engine, table) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_deleting_leaves_nothing_of_a_request(engine):
    keep(engine, with_metadata(0, metadata={"app": "mail"}), kept(0, role="draft"), kept(0, role="fill", tier="large"), kept(1))
    with writing(engine) as connection:
        for n in (0, 1):
            trace = TRACE.format(n)
            connection.execute(insert(fills).values(trace_id=trace, drawn_s=1, chance=0.1, state="done", why="", changed_s=1))
            connection.execute(insert(grades).values(trace_id=trace, tier="small", score=1, source="top", detail="", at_s=1))
    assert http(engine).post("/v1/feedback", json={"id": reply(0), "score": 0}).status_code == 200
    gone = client(engine).chat.completions.delete(reply(0))
    assert (gone.id, gone.object, gone.deleted) == (reply(0), "chat.completion.deleted", True)
    assert [count(engine, table) for table in (completions, completion_metadata, fills, grades, feedback)] == [1, 0, 1, 1, 0]
    with pytest.raises(openai.NotFoundError):
        client(engine).chat.completions.delete(reply(0))


def test_an_answer_that_is_being_written_is_waited_for(engine, monkeypatch):
    monkeypatch.setattr("deployments.learning.kept.completion_routes.WAITS_S", (0.1,) * 100)
    writing_it = threading.Timer(0.3, keep, (engine, kept(0)))
    writing_it.start()
    assert http(engine).post("/v1/feedback", json={"id": reply(0), "score": 1}).status_code == 200
    writing_it.join()


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_deleting_while_paging_misses_nothing_also_where_rows_came_later_than_their_request(engine, order):
    keep(engine, *(kept(n, created_s=1000.0 + n + 1.5) for n in range(9)))
    with writing(engine) as connection:
        connection.execute(insert(traces), [trace_row(n) | {"took_s": 1.0} for n in range(9)])
    stored = client(engine).chat.completions
    for one in stored.list(limit=2, order=order):
        stored.delete(one.id)
    assert ids(stored.list()) == []


# -- whose ---------------------------------------------------------------------------------------------------------------


def test_another_key_sees_nothing_and_hears_the_same_as_of_what_never_was(engine):
    keep(engine, with_metadata(0, metadata={"app": "mail"}))
    stored = client(engine, "other").chat.completions
    assert ids(stored.list()) == ids(stored.list(metadata={"app": "mail"})) == []
    asks = [
        lambda id: stored.retrieve(id),
        lambda id: stored.update(id, metadata={}),
        lambda id: stored.delete(id),
        lambda id: list(stored.messages.list(id)),
    ]
    for ask in asks:
        words = []
        for id in (reply(0), "chatcmpl-" + "f" * 32):
            with pytest.raises(openai.NotFoundError) as told:
                ask(id)
            words.append(str(told.value).replace(id, "ID"))
        assert words[0] == words[1]
    assert ids(client(engine).chat.completions.list()) == [reply(0)]


def test_the_right_learn_sees_all_keys_or_one(engine):
    keep(engine, kept(0), kept(1, "other"), kept(2))
    trainer = client(engine, "trainer").chat.completions
    assert ids(trainer.list(limit=2)) == [reply(n) for n in range(3)]
    assert ids(trainer.list(extra_query={"key": "app"})) == [reply(0), reply(2)]
    assert trainer.retrieve(reply(1)).stepdown["key"] == "other"
    assert http(engine).get("/v1/chat/completions?key=app").status_code == 200
    refused = http(engine).get("/v1/chat/completions?key=other")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")


def test_no_key_no_answer(engine):
    for path in ("chat/completions", f"chat/completions/{reply(0)}", f"chat/completions/{reply(0)}/messages", "feedback?id=x"):
        assert http(engine, "nobody").get(f"/v1/{path}").status_code == 401


def test_a_dead_database_is_said(engine):
    with writing(engine) as connection:
        completions.drop(connection)
    told = http(engine).get("/v1/chat/completions")
    assert (told.status_code, told.json()["error"]["code"]) == (503, LedgerDown.code) and "SELECT" not in told.text


# -- feedback --------------------------------------------------------------------------------------------------------------


def said(engine, n: int = 0, key: str = "app") -> list[dict]:
    found = http(engine, key).get(f"/v1/feedback?id={reply(n)}").json()["data"]
    return [{name: one[name] for name in ("key", "score", "correction", "comment")} for one in found]


def test_the_last_feedback_of_each_key_counts(engine):
    keep(engine, kept(0))
    for key, body in [
        ("app", {"id": reply(0), "score": 0.5}),
        ("trainer", {"id": TRACE.format(0), "score": False, "correction": "It is 1."}),
        ("app", {"id": reply(0), "score": True, "comment": "fine"}),
    ]:
        given = http(engine, key).post("/v1/feedback", json=body)
        assert given.status_code == 200 and given.json()["id"] == reply(0)
    assert (
        said(engine)
        == said(engine, key="trainer")
        == [
            {"key": "app", "score": 1.0, "correction": None, "comment": "fine"},
            {"key": "trainer", "score": 0.0, "correction": "It is 1.", "comment": None},
        ]
    )


def test_feedback_is_for_the_key_that_asked_or_one_with_the_right(engine):
    keep(engine, kept(0))
    for n in (0, 7):
        told = http(engine, "other").post("/v1/feedback", json={"id": reply(n), "score": 1})
        assert told.status_code == 404 and "x-stepdown-stored" in told.json()["error"]["message"]
        assert http(engine, "other").get(f"/v1/feedback?id={reply(n)}").status_code == 404
    assert said(engine) == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"id": reply(0)}, "score"),
        ({"score": 1}, "id"),
        ({"id": reply(0), "score": 1.5}, "score"),
        ({"id": reply(0), "score": "good"}, "score"),
        ({"id": reply(0), "correction": "  "}, "correction"),
        ({"id": reply(0), "correction": 5}, "correction"),
        ({"id": reply(0), "comment": "x" * 10_001}, "comment"),
        ({"id": reply(0), "score": 1, "rating": 5}, "rating"),
        ([], None),
    ],
)
def test_bad_feedback_is_refused_by_its_field(engine, body, param):
    keep(engine, kept(0))
    told = http(engine).post("/v1/feedback", json=body)
    assert (told.status_code, told.json()["error"]["param"]) == (400, param)


def test_feedback_of_any_size_is_bounded(engine):
    assert http(engine).post("/v1/feedback", content=b"x" * 2_000_000).status_code == 413
    assert http(engine).post("/v1/feedback", content=b"{").status_code == 400


def hide(messages):
    """A hook that knows one name."""
    return [
        {**m, "content": m["content"].replace("Ada", "NAME") if isinstance(m["content"], str) else m["content"]} for m in messages
    ]


def nothing(messages):
    return None


def broken(messages):
    raise RuntimeError("Ada")


def test_feedback_is_redacted_before_it_is_kept(engine):
    keep(engine, kept(0))
    body = {"id": reply(0), "correction": "Ada knows.", "comment": "says Ada"}
    assert http(engine, redact=f"{__name__}:hide").post("/v1/feedback", json=body).status_code == 200
    assert (said(engine)[0]["correction"], said(engine)[0]["comment"]) == ("NAME knows.", "says NAME")


@pytest.mark.parametrize("hook", ["nothing", "broken"])
def test_feedback_that_may_not_be_kept_is_refused(engine, hook):
    keep(engine, kept(0))
    told = http(engine, redact=f"{__name__}:{hook}").post("/v1/feedback", json={"id": reply(0), "correction": "Ada"})
    assert (told.status_code, told.json()["error"]["param"]) == (400, "correction") and "Ada" not in told.text
    assert said(engine) == []


def test_a_database_that_is_locked_is_said(engine, monkeypatch):
    keep(engine, kept(0))

    def locked(*_):
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    monkeypatch.setattr("deployments.learning.kept.feedback.give", locked)
    assert http(engine).post("/v1/feedback", json={"id": reply(0), "score": 1}).status_code == 503
