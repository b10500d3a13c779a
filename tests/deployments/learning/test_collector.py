"""What was served is kept whole, by its own thread; troubles cost rows, which are counted, and nothing else."""

import json
import sqlite3
import threading
import time
from functools import partial

import pytest
import waiting
from collecting import CHAT, Place, ask, message
from scripted_tier import Said
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from deployments.endpoint import audit
from deployments.learning.kept import collector as collecting
from deployments.learning.kept import completion_store
from deployments.learning.kept.collected import NOT_SAMPLING, made
from deployments.learning.kept.collected import Said as Gathered
from deployments.ledger import schema
from deployments.ledger.retention import FREE_PAGES
from router.errors import BadConfig
from router.types import Call, Commit, Say, Step

until = partial(waiting.until, patience_s=20, every_s=0.02)
CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Berlin"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
UNSURE = Said("maybe 41", logprob=-3.0)
pytestmark = pytest.mark.slow  # each test opens a database


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(audit, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(collecting, "GATHER_S", 0.0)
    monkeypatch.setattr(collecting, "RETRY_S", 0.01)


# -- whole answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_kept_with_all_that_was_asked(tmp_path, stream):
    place = Place(tmp_path, said={"large": Said("it is 42")})
    more = {
        "temperature": 0.5,
        "seed": 7,
        "user": "bob",
        "logprobs": True,
        "stop": ["\n"],
        "metadata": {"app": "mail", "team": "a"},
    }
    with place.client() as client:
        trace = ask(client, stream=stream, tools=[TOOL], **more).headers["x-stepdown-trace-id"]
    (row,) = place.rows()
    assert (row["id"], row["trace_id"], row["call_id"]) == (f"chatcmpl-{trace}", trace, f"{trace}/final")
    assert (row["key_id"], row["role"], row["tier"], row["model"]) == ("nobody", "answer", "large", "print-of-large")
    about = [row[name] for name in ("wanted", "finish", "consent", "licence", "redaction")]
    assert about == ["auto", "stop", "all", "unknown", ""]
    assert message(row) == {"role": "assistant", "content": "it is 42"}
    assert json.loads(row["messages"]) == CHAT["messages"] and json.loads(row["tools"]) == [TOOL]
    assert json.loads(row["sampling"]) == {"temperature": 0.5, "seed": 7, "stop": ["\n"]}
    assert json.loads(row["metadata"]) == more["metadata"]
    assert (row["input_tokens"], row["output_tokens"]) == (6, 3) and row["cost_usd"] == pytest.approx(9 * 20e-6)
    assert len(row["conversation"]) == 64 and row["expires_s"] - row["created_s"] == pytest.approx(30 * 86_400)
    assert (
        json.loads(row["signals"])
        == {
            **dict.fromkeys(("mean_logprob", "min_logprob", "p10_logprob", "p25_logprob", "p50_logprob"), pytest.approx(-0.01)),
            "logprob_tokens": 3,
            "first_margin": pytest.approx(3.0) if not stream else None,
            "first_logprobs": [-0.01] * 3,
        }
        or stream
    )
    pairs = place.rows(schema.completion_metadata)
    assert [(p["completion_id"], p["name"], p["value"], p["key_id"]) for p in pairs] == [
        (row["id"], "app", "mail", "nobody"),
        (row["id"], "team", "a", "nobody"),
    ]
    assert place.collector.counts.kept == 1 and place.dropped == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("flow", ["", "buffer", "holdback"])
def test_a_call_of_a_tool_is_kept(tmp_path, stream, flow):
    place = Place(tmp_path, flow, dict.fromkeys(("small", "large"), Said(finish="tool_calls", tool_calls=[CALL])))
    with place.client() as client:
        ask(client, stream=stream, tools=[TOOL])
    (row,) = place.rows()
    assert row["finish"] == "tool_calls"
    (call,) = message(row)["tool_calls"]
    assert (call["id"], call["function"]) == (CALL["id"], CALL["function"]) and not message(row)["content"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("flow", ["buffer", "holdback"])
def test_the_answer_of_a_cascade_has_its_log_probabilities_though_the_client_gets_none(tmp_path, stream, flow):
    place = Place(tmp_path, flow, {"small": Said("it is 42")})
    with place.client() as client:
        answer = ask(client, stream=stream)
    assert "logprob" not in answer.text
    (row,) = place.rows()
    assert json.loads(row["signals"])["first_logprobs"] == [-0.01] * 3 and message(row)["content"] == "it is 42"


@pytest.mark.parametrize("stream", [False, True])
def test_a_rejected_draft_is_kept_beside_the_answer(tmp_path, stream):
    place = Place(tmp_path, "buffer", {"small": UNSURE, "large": Said("it is 42")})
    with place.client() as client:
        trace = ask(client, stream=stream).headers["x-stepdown-trace-id"]
    answer, draft = place.rows()
    assert (answer["id"], answer["role"], answer["tier"]) == (f"chatcmpl-{trace}", "answer", "large")
    assert (draft["id"], draft["role"], draft["tier"], draft["model"]) == (draft["call_id"], "draft", "small", "print-of-small")
    assert draft["trace_id"] == trace and message(draft)["content"] == "maybe 41" and message(answer)["content"] == "it is 42"
    assert draft["messages"] is draft["sampling"] is draft["tools"] is None
    assert json.loads(draft["signals"])["mean_logprob"] == pytest.approx(-3.0)
    calls = {row["id"] for row in place.rows(schema.calls)}
    assert {draft["call_id"], answer["call_id"]} == calls


def test_a_draft_that_was_stopped_is_no_answer(tmp_path):
    place = Place(tmp_path, "holdback", {"small": Said("maybe 41 or so I am not sure", logprob=-3.0), "large": Said("42")})
    with place.client() as client:
        ask(client, stream=True)
    assert [row["role"] for row in place.rows()] == ["answer"]


def delegated(end):
    """A flow with a plan and a subtask, and then an end."""

    def make(router, request, decided):
        def flow():
            yield Step((Call("plan", "large", "plan", request.body), Call("sub", "small", "subtask", request.body)))
            yield Step()
            yield Step((Call("final", "large", "final", request.body, hold=1),))
            return end

        return flow()

    return make


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "end, call", [(Commit("final"), "final"), (Commit("final", splice={"t1": "42"}), ""), (Say("it is 42", "large"), "")]
)
def test_of_a_delegation_the_clients_answer_alone_is_kept(tmp_path, stream, end, call):
    answer = Said("it is {{t1}}" if isinstance(end, Commit) and end.splice else "it is 42")
    said = {"large": lambda body: answer if place.tiers["large"].bodies[1:] else Said("a plan of it"), "small": Said("42")}
    place = Place(tmp_path, delegated(end), said, fill_share=1.0)
    with place.client() as client:
        trace = ask(client, stream=stream).headers["x-stepdown-trace-id"]
    (row,) = place.rows()
    assert (row["role"], row["tier"], message(row)["content"]) == ("answer", "large", "it is 42") and row["finish"] == "stop"
    assert row["call_id"] == (f"{trace}/{call}" if call else "")
    assert place.rows(schema.fills) == []


def test_an_audit_is_kept_as_its_request_was(tmp_path):
    place = Place(tmp_path, "buffer", {"small": Said("42"), "large": Said("it is 42")}, audits=1.0)
    with place.client() as client:
        trace = ask(client).headers["x-stepdown-trace-id"]
        ask(client, store=False)
        assert until(lambda: len([c for c in place.rows(schema.calls) if c["role"] == "audit"]) == 2)
    found = {row["role"]: row for row in place.rows()}
    assert found.keys() == {"answer", "audit"} and found["audit"]["id"] == f"{trace}/audit"
    assert (found["audit"]["tier"], message(found["audit"])["content"]) == ("large", "it is 42")
    assert found["audit"]["key_id"] == "nobody" and found["audit"]["messages"] is None


def test_a_conversation_has_one_name(tmp_path):
    place = Place(tmp_path)
    with place.client() as client:
        for session in ("a", "a", "b"):
            ask(client, headers={"x-session-id": session})
    names = [row["conversation"] for row in place.rows()]
    assert len(set(names)) == 2


# -- what is drawn to be filled in -------------------------------------------------------------------------------------------


def test_requests_are_drawn_with_the_chance_that_is_written_down(tmp_path):
    place = Place(tmp_path, fill_share=0.25)
    place.collector.draw = iter([i / 8 for i in range(8)]).__next__
    with place.client() as client:
        drawn = [ask(client).headers["x-stepdown-trace-id"] for _ in range(8)][:2]
    fills = place.rows(schema.fills)
    assert sorted(row["trace_id"] for row in fills) == sorted(drawn)
    assert {(row["chance"], row["why"]) for row in fills} == {(0.25, "")}


def test_only_what_auto_answered_undisturbed_is_drawn(tmp_path):
    place = Place(tmp_path, fill_share=1.0)
    with place.client() as client:
        ask(client, model="small")
        ask(client, store=False)
        trace = ask(client).headers["x-stepdown-trace-id"]
    assert [row["trace_id"] for row in place.rows(schema.fills)] == [trace]


# -- redaction ---------------------------------------------------------------------------------------------------------------

ANNA = {"messages": [{"role": "user", "content": "I am Anna, who are you"}]}


@pytest.mark.parametrize("flow", ["", "buffer"])
def test_redaction_sees_the_whole_conversation(tmp_path, flow):
    said = {"small": Said("maybe Anna", logprob=-3.0), "large": Said("hello Anna")}
    place = Place(tmp_path, flow, said, redact="redactions:names", **({} if flow else {"fill_share": 0.0}))
    with place.client() as client:
        assert "Anna" in ask(client, **ANNA, seed=1, documents=["Anna"], prediction={"content": "Anna"}).text
    rows = place.rows()
    assert "Anna" not in json.dumps(rows) and len(rows) == (2 if flow else 1)
    assert {row["redaction"] for row in rows} == {"redactions:names@3"}
    answer = next(row for row in rows if row["role"] == "answer")
    assert json.loads(answer["messages"])[0]["content"] == "I am PERSON, who are you"
    assert json.loads(answer["sampling"]) == {"seed": 1}


def test_a_hook_that_raises_keeps_nothing_of_that_conversation(tmp_path, caplog):
    place = Place(tmp_path, "buffer", redact="redactions:picky", fill_share=1.0)
    with place.client() as client:
        ask(client, **ANNA)
        ask(client, **ANNA)
        trace = ask(client).headers["x-stepdown-trace-id"]
    assert [row["trace_id"] for row in place.rows()] == [trace] and place.dropped == {"redaction": 2}
    assert len(place.rows(schema.fills)) == 1
    told = [record.getMessage() for record in caplog.records if "learning.redact" in record.getMessage()]
    assert len(told) == 1 and "Anna" not in told[0]


def test_after_failures_in_a_row_nothing_is_kept_until_the_hook_works_again(tmp_path):
    place = Place(tmp_path, redact="redactions:picky")
    with place.client() as client:
        for _ in range(3):
            assert ask(client, **ANNA).headers["x-stepdown-stored"] == "yes"
        assert until(lambda: place.collector.redaction.broken)
        assert ask(client).headers["x-stepdown-stored"] == "no; redaction"
        assert until(lambda: not place.collector.redaction.broken)
        trace = ask(client).headers["x-stepdown-trace-id"]
    assert [row["trace_id"] for row in place.rows()] == [trace] and place.dropped == {"redaction": 4}


@pytest.mark.parametrize("hook", ["broken", "shorter", "no_messages", "nothing"])
def test_a_hook_that_gives_no_conversation_keeps_nothing(tmp_path, hook):
    place = Place(tmp_path, redact=f"redactions:{hook}")
    with place.client() as client:
        ask(client)
    assert place.rows() == [] == place.rows(schema.completion_metadata)
    assert place.dropped == {"withheld" if hook == "nothing" else "redaction": 1}


def test_a_hook_may_change_what_it_is_given(tmp_path):
    place = Place(tmp_path, "buffer", {"small": UNSURE}, redact="redactions:changing")
    with place.client() as client:
        assert ask(client).json()["choices"][0]["message"]["content"] == "42"
    assert {message(row)["content"] for row in place.rows()} == {"gone"}


def test_a_hook_that_is_not_there_stops_the_start(tmp_path):
    with pytest.raises(BadConfig, match=r"learning\.redact"):
        Place(tmp_path, redact="redactions:missing")


# -- troubles ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["database is locked", "database or disk is full"])
def test_a_database_that_takes_nothing_costs_rows_alone(tmp_path, monkeypatch, why, caplog):
    place = Place(tmp_path)

    def refused(*_):
        raise OperationalError("insert", {}, sqlite3.OperationalError(why))

    with place.client() as client:
        monkeypatch.setattr(completion_store, "write", refused)
        for _ in range(3):
            assert ask(client).headers["x-stepdown-stored"] == "yes"
        assert until(lambda: place.dropped == {"database": 3})
        monkeypatch.undo()
        trace = ask(client).headers["x-stepdown-trace-id"]
    assert [row["trace_id"] for row in place.rows()] == [trace]
    assert sum(why in record.getMessage() for record in caplog.records) == 1


def test_a_database_that_was_never_there_drops_everything(tmp_path, monkeypatch):
    place = Place(tmp_path, url="postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=1")
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path))
    place.collector.thread.start()
    from deployments.learning.kept.collected import Collecting, Item, Kept
    from router.request.wire import parse
    from router.types import Usage

    asked = parse("chat/completions", json.dumps(CHAT).encode())
    said = Gathered([{"message": {"content": "42"}}])
    answer = Kept("answer", "final", "small", said, Usage(), 0.0)
    place.collector.put(Item(Collecting("t", "k", asked, "all", ""), (answer,), 1.0))
    assert until(lambda: place.dropped == {"database": 1})


def test_a_row_that_no_database_takes_is_dropped_alone(tmp_path):
    place = Place(tmp_path)
    with place.client() as client:
        first = ask(client).headers["x-stepdown-trace-id"]
        assert until(lambda: place.collector.counts.kept == 1)
        monkey = place.collector.keeper.expires_s
        place.collector.keeper.expires_s = lambda at_s: object()
        ask(client)
        assert until(lambda: sum(place.dropped.values()) == 1)
        place.collector.keeper.expires_s = monkey
        last = ask(client).headers["x-stepdown-trace-id"]
    assert {row["trace_id"] for row in place.rows()} == {first, last}


def test_a_full_queue_drops_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "MOST_WAITING", 2)
    place = Place(tmp_path)
    turn, write = threading.Lock(), place.collector.keeper.write

    def writing(parts):
        with turn:
            return write(parts)

    place.collector.keeper.write = writing
    with place.client() as client, turn:
        for _ in range(30):
            ask(client)
    assert place.dropped["full"] >= 1 and place.collector.counts.kept + place.dropped["full"] == 30
    assert len(place.rows()) == place.collector.counts.kept and place.collector.bytes == 0


def test_a_hundred_megabytes_of_texts_go_through_a_bounded_queue(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "MOST_BYTES", 8_000_000)
    place = Place(tmp_path, keep_bytes=20_000_000)
    most = 0
    with place.client() as client:
        for _ in range(50):
            ask(client, messages=[{"role": "user", "content": "x" * 2_000_000}])
            most = max(most, place.collector.bytes)
        assert until(lambda: place.collector.counts.kept + place.dropped.get("full", 0) == 50)
        tidied(place)
        assert sum(len(row["messages"]) for row in place.rows()) <= 22_000_000
        with place.ledger.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA freelist_count").scalar_one() < 3 * FREE_PAGES
    assert 0 < most <= 8_000_000 and place.collector.bytes == 0


def test_an_answer_that_is_too_large_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("deployments.learning.kept.collected.LARGEST", 300)
    place = Place(tmp_path, said={"large": Said("word " * 100)})
    with place.client() as client:
        ask(client)
        ask(client, stream=True)
    assert place.rows() == [] and place.dropped == {"large": 2}


def test_what_a_tier_says_may_be_odd(tmp_path):
    place = Place(tmp_path, said={"large": Said("\0 nul \ud800 half")})
    with place.client() as client:
        ask(client, metadata={"a": "\u2028 b"})
        ask(client, stream=True)
    assert len(place.rows()) == 2 and place.dropped == {}


def test_a_client_that_leaves_has_got_no_answer_to_keep(tmp_path):
    place = Place(tmp_path, said={"large": Said("word " * 50, token_s=0.01)})
    with place.client() as client, client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        next(answer.iter_lines())
    assert [row["status"] for row in place.rows(schema.traces)] in ([499], [200])
    assert len(place.rows()) == len([row for row in place.rows(schema.traces) if row["status"] == 200])


def test_events_that_cannot_be_read_raise():
    said = Gathered()
    said.event(b"data: {not json}\n\n")
    with pytest.raises(ValueError):
        made(said)


def test_everything_else_of_a_body_counts_as_sampling():
    assert {"messages", "model", "tools", "stream"} <= NOT_SAMPLING and "temperature" not in NOT_SAMPLING


# -- how long it is kept -----------------------------------------------------------------------------------------------------


def tidied(place):
    while place.collector.keeper.tidy():
        pass


def with_beside(place, trace):
    """Rows that belong to a request in the tables beside."""
    with place.ledger.engine.begin() as connection:
        at = {"trace_id": trace, "at_s": 1.0}
        connection.execute(insert(schema.grades).values(**at, tier="small", score=1.0, source="top", detail=""))
        connection.execute(insert(schema.feedback).values(**at, id=trace, key_id="k", score=1.0))


def test_what_is_old_goes_with_all_that_belongs_to_it(tmp_path):
    place = Place(tmp_path, "buffer", {"small": UNSURE}, keep_days=1.0, fill_share=1.0)
    now = [time.time() - 90_000.0]
    place.collector.clock = place.collector.keeper.clock = lambda: now[0]
    with place.client() as client:
        old = ask(client, metadata={"a": "b"}).headers["x-stepdown-trace-id"]
        assert until(lambda: place.collector.counts.kept == 1)
        now[0] = time.time()
        new = ask(client, metadata={"a": "b"}).headers["x-stepdown-trace-id"]
        assert until(lambda: place.collector.counts.kept == 2)
        for trace in (old, new):
            with_beside(place, trace)
        tidied(place)
    for table in (schema.completions, schema.fills, schema.grades, schema.feedback):
        assert {row["trace_id"] for row in place.rows(table)} == {new}, table.name
    assert [row["completion_id"] for row in place.rows(schema.completion_metadata)] == [f"chatcmpl-{new}"]


def test_fewer_days_hold_for_what_was_kept_before(tmp_path):
    place = Place(tmp_path, keep_days=None)
    with place.client() as client:
        ask(client)
    assert place.rows()[0]["expires_s"] is None
    place = Place(tmp_path, keep_days=1.0, collect="off")
    place.collector.keeper.clock = lambda: time.time() + 90_000.0
    tidied(place)
    assert place.rows() == []


def test_of_too_much_the_oldest_goes(tmp_path):
    place = Place(tmp_path, keep_bytes=200_000)
    place.collector.keeper.settings = place.config.learning.model_copy(update={"keep_bytes": None})
    with place.client() as client:
        traces = [
            ask(client, messages=[{"role": "user", "content": "x" * 10_000}]).headers["x-stepdown-trace-id"] for _ in range(40)
        ]
        assert until(lambda: place.collector.counts.kept == 40)
        place.collector.keeper.settings = place.config.learning
        tidied(place)
    left = {row["trace_id"] for row in place.rows()}
    assert 15 <= len(left) <= 20 and left == set(traces[-len(left) :])


def test_an_audit_of_what_was_forgotten_is_not_kept(tmp_path):
    place = Place(tmp_path, "buffer", audits=1.0)
    with place.client() as client:
        place.ingress.auditor.top.running += 1
        trace = ask(client).headers["x-stepdown-trace-id"]
        assert until(lambda: place.collector.counts.kept == 1)
        place.collector.keeper.transact(lambda connection: completion_store.forget(connection, [trace]))
        place.ingress.auditor.top.running -= 1
        assert until(lambda: place.collector.counts.kept == 2)
    assert place.rows() == []
