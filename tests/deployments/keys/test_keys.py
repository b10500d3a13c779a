"""Keys from the command line to the endpoint: made, seen by running servers, limited, revoked."""

import asyncio
import hashlib
import json
import os
import re
import stat
import time
from itertools import permutations

import pytest
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from deployments.app import TIERS, Args, build
from deployments.cli.main import main
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys import admission, key_store
from deployments.keys.access import (
    Access,
    decide_access,
    loopback,
    serve_run_access,
    stored_keys,
    with_absolute_ledger,
    with_first_key,
)
from deployments.keys.admission import GIVEN, NOBODY, Keys
from deployments.keys.key_store import hashed
from deployments.ledger.database import connect, migrate
from deployments.ledger.ledger import Ledger
from deployments.serve import command
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router
from router.errors import BadConfig, BadInput, BadKey, LedgerDown, RateLimited
from router.limits.key_limits import Key
from router.limits.reservation import Size

pytestmark = pytest.mark.anyio
PRICE = {"usd_per_1m_input": 1000, "usd_per_1m_output": 1000}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 3}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("STEPDOWN_API_KEY", raising=False)


@pytest.fixture
def config(tmp_path) -> Config:
    tiers = [{"name": name, "engine": "echo", "context": 400, "price": PRICE} for name in ("small", "large")]
    return Config.model_validate({"tiers": tiers, "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}})


@pytest.fixture
def file(config, tmp_path):
    path = tmp_path / "ladder.yaml"
    path.write_text(json.dumps(config.model_dump(mode="json")))
    return str(path)


@pytest.fixture
def engine(config):
    made = connect(config.ledger)
    migrate(made)
    yield made
    made.dispose()


def make(engine, name="bob", **more) -> tuple[Key, str]:
    return key_store.create(engine, Key("", name, **more), time.time())


def sent(header) -> dict[str, str]:
    return {"authorization": header}


def bearer(secret) -> dict[str, str]:
    return sent(f"Bearer {secret}")


class Ticks:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


# -- who asks --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_key_is_known_as_soon_as_it_is_made(engine):
    door = Keys(engine)
    for name in "abc":
        key, secret = make(engine, name)
        assert await door.look_up(bearer(secret)) == key
        assert door.known([hashed(secret)]) == key


async def test_a_revoked_key_is_refused_by_other_processes_within_five_seconds(engine):
    ticks = Ticks()
    doors = [Keys(engine, ticks=ticks), Keys(engine, ticks=ticks)]
    _, secret = make(engine)
    for each in doors:
        await each.look_up(bearer(secret))
    key_store.revoke(engine, "bob", time.time())
    ticks.now_s += 1.0
    await doors[0].look_up(bearer(secret))  # known for a while
    ticks.now_s += 4.0
    for each in doors:
        with pytest.raises(BadKey):
            await each.look_up(bearer(secret))


async def test_a_changed_limit_is_seen_within_five_seconds(engine):
    ticks = Ticks()
    door = Keys(engine, ticks=ticks)
    key, secret = make(engine)
    await door.look_up(bearer(secret))
    with engine.begin() as connection:
        connection.execute(text("UPDATE keys SET requests_per_minute = 7"))
    ticks.now_s += 5.0
    assert (await door.look_up(bearer(secret))).requests_per_minute == 7


async def test_keys_are_read_beside_the_requests_not_for_each(engine, monkeypatch):
    ticks, readings, read = Ticks(), [], admission.read_keys
    monkeypatch.setattr(admission, "read_keys", lambda engine: readings.append(1) or read(engine))
    door, (_, secret) = Keys(engine, ticks=ticks), make(engine)
    for _ in range(500):
        await door.look_up(bearer(secret))
    assert len(readings) == 1
    ticks.now_s += admission.FRESH_S + 0.1
    for _ in range(500):
        await door.look_up(bearer(secret))
    door.close()
    assert len(readings) == 2


async def test_junk_is_not_work_for_the_database(engine, monkeypatch):
    readings, read = [], admission.read_keys
    monkeypatch.setattr(admission, "read_keys", lambda engine: readings.append(1) or read(engine))
    door = Keys(engine)
    asked = [door.look_up(bearer(f"sk-{n}")) for n in range(200)]
    assert {type(e) for e in await asyncio.gather(*asked, return_exceptions=True)} == {BadKey}
    assert len(readings) <= 20  # not one for each, however slow the machine is


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "Basic {}",
        "{}",
        "bearer{}",
        "Bearer {}x",
        "Bearer x{}",
        "Bearer {} {}",
        "Bearer \x00",
        "Bearer " + "a" * 100_000,
        "Bearer ключ",
        "Bearer \udcff",
        "Bearer {hash}",
        "Bearer None",
        "Bearer key-1",
        "Digest {}",
    ],
)
@pytest.mark.parametrize("given_hash", ["", hashlib.sha256(b"given").hexdigest()])
async def test_junk_in_the_header_is_no_key(engine, header, given_hash):
    _, secret = make(engine)
    door = Keys(engine, given_hash)
    with pytest.raises(BadKey):
        await door.look_up(sent(header.replace("{}", secret).replace("{hash}", hashed(secret))))


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER   {}  "])
async def test_the_scheme_is_read_as_http_says(engine, header):
    key, secret = make(engine)
    assert await Keys(engine).look_up(sent(header.replace("{}", secret))) == key


NAMES = ("authorization", "x-api-key", "api-key")


def as_header(name, secret) -> dict[str, str]:
    return bearer(secret) if name == "authorization" else {name: secret}


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_is_found_in_the_header_of_each_kind_of_client(engine, name):
    key, secret = make(engine)
    assert await Keys(engine).look_up(Headers(as_header(name, f"{secret} "))) == key
    with pytest.raises(BadKey, match="Authorization: Bearer KEY, x-api-key: KEY or api-key: KEY"):
        await Keys(engine).look_up(as_header(name, "sk-junk"))


@pytest.mark.parametrize("junk", ["sk-junk", "", "  "])
@pytest.mark.parametrize("first, second", list(permutations(NAMES, 2)))
async def test_of_several_the_first_known_one_counts(engine, first, second, junk):
    (bob, his), (_, hers) = make(engine), make(engine, "eve")
    assert await Keys(engine).look_up(as_header(first, junk) | as_header(second, his)) == bob
    both = Keys(engine)
    found = await both.look_up(as_header(first, his) | as_header(second, hers))
    assert found.name == ("bob" if NAMES.index(first) < NAMES.index(second) else "eve")


async def test_one_known_key_beside_an_unknown_one_waits_for_no_reading(engine, monkeypatch):
    """Else each request of an agent that sends two would."""
    door, (bob, secret) = Keys(engine, hashed("given")), make(engine)
    assert await door.look_up(bearer(secret)) == bob

    async def waits(*_, **__):
        raise AssertionError("a reading was waited for")

    monkeypatch.setattr(door, "wait_for_reading", waits)
    for mine, found in (("given", GIVEN), (secret, bob)):
        assert await door.look_up(bearer(mine) | {"x-api-key": "junk"}) == found
        assert await door.look_up(bearer("junk") | {"x-api-key": mine}) == found


async def test_the_given_key_needs_no_database(engine):
    assert await Keys(None, hashed("given")).look_up(bearer("given")) is GIVEN
    assert await Keys(engine, hashed("given")).look_up(bearer("given")) is GIVEN
    for closed in (Keys(None), Keys(None, hashed("given"))):
        with pytest.raises(BadKey):
            await closed.look_up(sent("Bearer "))


async def test_an_open_door_lets_everyone_in_and_knows_who_has_a_key(engine):
    key, secret = make(engine)
    for header in ("", "Bearer junk", "Basic x"):
        assert await Keys(engine, insecure=True).look_up(sent(header)) is NOBODY
    assert await Keys(engine, insecure=True).look_up(bearer(secret)) == key


async def test_while_the_database_is_down_known_keys_go_on(engine, monkeypatch):
    ticks = Ticks()
    door, (key, secret) = Keys(engine, ticks=ticks), make(engine)
    assert await door.look_up(bearer(secret)) == key

    def down(_):
        raise OperationalError("select", {}, Exception("no route"))

    monkeypatch.setattr(admission, "read_keys", down)
    for _ in range(5):
        ticks.now_s += 60.0
        assert await door.look_up(bearer(secret)) == key
    with pytest.raises(LedgerDown, match="cannot be read"):
        await door.look_up(bearer("sk-new"))


@pytest.mark.slow
async def test_a_database_that_hangs_holds_a_known_key_for_a_second_at_most(engine, monkeypatch):
    door, (key, secret) = Keys(engine), make(engine)
    await door.look_up(bearer(secret))
    monkeypatch.setattr(admission, "WAIT_S", 0.1)
    monkeypatch.setattr(admission, "STALE_S", 0.0)
    waits = asyncio.Event()
    monkeypatch.setattr(admission, "read_keys", lambda _: time.sleep(1.5))
    asyncio.get_running_loop().call_later(0.8, waits.set)
    await asyncio.sleep(0.3)
    for _ in range(20):
        assert await door.look_up(bearer(secret)) == key
    assert not waits.is_set()


async def test_refused_requests_of_a_minute_leave_the_budget_alone(engine):
    door, (key, _) = Keys(engine), make(engine, requests_per_minute=2, usd_per_day=1.0)
    for n in range(2):
        await door.settle(await door.admit(key, f"t{n}", Size(1, 1), 0.1), 0.1, 2)
    for _ in range(9):
        with pytest.raises(RateLimited):
            await door.admit(key, "t", Size(1, 1), 0.1)
    assert key_store.spent(engine, time.time()).get(key.id, key_store.Spent()).held == 0.0


# -- the command -----------------------------------------------------------------------------------------------------------


def stepdown(*words) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def mistaken(*words) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 2 and "Traceback" not in result.output
    return result.output


def secret_in(output: str) -> str:
    return re.findall(r"sk-stepdown-[\w-]{43}", output)[0]


def test_a_key_is_made_shown_listed_and_revoked(file, config):
    secret = secret_in(
        stepdown(
            "keys",
            "create",
            "bob",
            "--tiers",
            "small",
            "--targets",
            "cheap,0.9",
            "--rpm",
            "60",
            "--tpm",
            "9000",
            "--usd-day",
            "1.5",
            "--usd-month",
            "20",
            "--rights",
            "costs",
            "--config",
            file,
        )
    )
    shown = stepdown("keys", "list", "--config", file)
    for part in ("bob", "small", "0.9,cheap", "60", "9000", "1.5", "20"):
        assert part in shown
    one = stepdown("keys", "show", "bob", "--config", file)
    assert "costs" in one and secret not in shown + one and hashed(secret) not in shown + one
    found = key_store.find(connect(config.ledger), "bob").key
    assert found == Key(
        found.id, "bob", frozenset({"small"}), frozenset({"cheap", "0.9"}), 60, 9000, 1.5, 20.0, frozenset({"costs"})
    )
    assert found.id in stepdown("keys", "revoke", found.id, "--config", file)
    assert "revoked already" in mistaken("keys", "revoke", "bob", "--config", file)
    secret_in(stepdown("keys", "create", "bob", "--config", file))  # the name is free again


@pytest.mark.parametrize("consent", ["never", "marked", "all"])
async def test_a_key_says_what_may_be_learned_from_it(file, engine, consent):
    given = () if consent == "never" else ("--learning", consent)
    secret = secret_in(stepdown("keys", "create", "bob", *given, "--config", file))
    assert (await Keys(engine).look_up(bearer(secret))).learning == consent
    assert consent in stepdown("keys", "list", "--config", file).split()
    assert ["learning", consent] in [line.split() for line in stepdown("keys", "show", "bob", "--config", file).splitlines()]
    assert "learning" in mistaken("keys", "create", "eve", "--learning", "some", "--config", file)


async def test_the_operators_own_consent_is_that_of_the_given_key_and_of_nobody(engine):
    door = Keys(engine, hashed("given"), insecure=True, learning="all")
    assert (await door.look_up(bearer("given"))).learning == (await door.look_up({})).learning == "all"
    assert GIVEN.learning == NOBODY.learning == "never"


def test_only_the_hash_is_kept(file, tmp_path):
    secret = secret_in(stepdown("keys", "create", "bob", "--config", file))
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert hashed(secret).encode() in stored and secret.encode() not in stored


def test_spending_is_shown(file, config, engine):
    key, _ = make(engine)
    hour = int(time.time() // 3600 * 3600)
    with engine.begin() as connection:
        for at, usd in ((hour, 0.25), (hour - 40 * 86_400, 9.0)):
            connection.execute(text(f"INSERT INTO hourly VALUES ({at}, '{key.id}', 'small', 'final', 1, 1, 1, 0, {usd}, 0, 0)"))
    assert re.search(r"spent today +0\.25\n", stepdown("keys", "show", "bob", "--config", file))
    assert "9.25" not in stepdown("keys", "list", "--config", file)


@pytest.mark.parametrize(
    "words, says",
    [
        (("create", "x", "--tiers", "small,huge"), "no tier or service 'huge'; this configuration has small, large"),
        (("create", "x", "--targets", "best"), "no target 'best'"),
        (("create", "x", "--targets", "1.5"), "no target '1.5'"),
        (("create", "x", "--tiers", ","), "the list is empty"),
        (("create", "x", "--rights", "root"), "no right 'root'; there are costs"),
        (("create", "x", "--rpm", "0"), "expected 1 to"),
        (("create", "x", "--tpm", "-5"), "expected 1 to"),
        (("create", "x", "--usd-day", "nan"), "expected 0 or more"),
        (("create", "x", "--usd-month", "-1"), "expected 0 or more"),
        (("create", "  "), "printable characters"),
        (("create", "a\nb"), "printable characters"),
        (("create", "x" * 200), "printable characters"),
        (("create", "taken"), "there is a key named 'taken'"),
        (("revoke", "nobody"), "no key has the id or name 'nobody'"),
        (("show", "nobody"), "no key has the id or name 'nobody'"),
    ],
)
def test_mistakes_are_told(file, engine, words, says):
    make(engine, "taken")
    assert says in mistaken("keys", *words, "--config", file)


def test_a_database_that_does_not_answer_is_told(file, config, tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"this is no database" * 100)
    assert "does not answer" in mistaken("keys", "list", "--config", file)


# -- the first key, and none -----------------------------------------------------------------------------------------------


def at_host(config, host) -> Config:
    return config.model_copy(update={"server": config.server.model_copy(update={"host": host})})


def test_the_first_start_makes_a_key_and_the_next_says_that_there_is_one(config):
    first = with_first_key(config, decide_access(config, None, False, False))
    assert first.made.startswith("sk-stepdown-") and first.made in first.summary() and first.made in first.curl_header()
    second = with_first_key(config, decide_access(config, None, False, False))
    assert second == Access(stored=1) and "stepdown keys create" in second.summary() and "YOUR_KEY" in second.curl_header()
    assert asyncio.run(Keys(connect(config.ledger)).look_up(bearer(first.made))).rights == {"costs", "admin", "learn"}


def test_a_given_key_makes_none(config):
    given = with_first_key(config, decide_access(config, "secret", False, False))
    assert given == Access(hashed("secret")) and stored_keys(config) == 0
    assert "secret" not in given.summary() + given.curl_header()


def test_when_all_are_revoked_a_start_makes_one(config, engine):
    make(engine)
    key_store.revoke(engine, "bob", time.time())
    assert with_first_key(config, decide_access(config, None, False, False)).made


LOCAL, ELSEWHERE = ("127.0.0.1", "localhost", "::1", "127.8.8.8"), ("0.0.0.0", "::", "192.168.1.5", "example.org", "")


@pytest.mark.parametrize("host", [*LOCAL, *ELSEWHERE])
@pytest.mark.parametrize("no_keys, insecure", [(False, False), (True, False), (False, True), (True, True)])
def test_without_keys_nobody_listens_beyond_loopback_unless_told_insecure(config, host, no_keys, insecure):
    asked = at_host(config, host)
    assert loopback(host) == (host in LOCAL)
    if no_keys and not insecure and host in ELSEWHERE:
        with pytest.raises(BadInput, match="--insecure"):
            decide_access(asked, None, no_keys, insecure)
        return
    opened = decide_access(asked, None, no_keys, insecure)
    assert opened.insecure == (no_keys or insecure) and bool(opened.curl_header()) != opened.insecure


def test_serve_refuses_before_ray_starts(file, monkeypatch):
    monkeypatch.setattr(command, "start_ray", lambda *_: pytest.fail("Ray was started"))
    monkeypatch.setattr(command, "check_port", lambda *_: None)
    assert "--insecure" in mistaken("serve", file, "--no-keys", "--host", "0.0.0.0")


def test_the_welcome_has_a_line_that_works(config):
    for opened in (Access(made="sk-stepdown-x"), Access(stored=2), Access("hash"), Access(insecure=True)):
        shown = command.welcome(config, opened, "http://127.0.0.1:8265")
        assert opened.summary() in shown and ("Authorization" in shown) != opened.insecure


def test_serve_run_wants_a_key_that_exists(config, file, engine, monkeypatch):
    with pytest.raises(BadConfig, match="set STEPDOWN_API_KEY, or make one"):
        build(Args(config=file))
    make(engine)
    assert serve_run_access(config).stored == 1
    monkeypatch.setenv("STEPDOWN_API_KEY", "given")
    assert serve_run_access(config).key_hash == hashed("given")


def test_replicas_open_the_same_file_wherever_they_run(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url, seen in (("sqlite:///x.db", f"sqlite:///{tmp_path}/x.db"), (None, f"sqlite:///{tmp_path}/state/ledger.db")):
        found = with_absolute_ledger(config.model_copy(update={"ledger": config.ledger.model_copy(update={"url": url})}))
        assert found.ledger.url == seen
    url = "postgresql+psycopg://me:secret@host/name"
    assert (
        with_absolute_ledger(config.model_copy(update={"ledger": config.ledger.model_copy(update={"url": url})})).ledger.url
        == url
    )


# -- the endpoint ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(config):
    ledger = Ledger(config.ledger)
    tiers = {t.name: TIERS[t.engine].make(t, None, 5.0, None) for t in config.tiers}
    accounts = Accounts(Keys(ledger.engine), ledger, tiers={t.name: t for t in config.tiers})
    ingress = Ingress(Router(config, None, counters(config)), tiers, accounts, 20_000)
    with TestClient(ingress.app(), raise_server_exceptions=False) as made:
        yield made


def ask(client, secret, **more):
    return client.post("/v1/chat/completions", json={**CHAT, **more}, headers=bearer(secret))


@pytest.mark.slow
def test_the_endpoint_answers_with_openais_errors(client, engine):
    _, secret = make(engine, tiers=frozenset({"small"}), requests_per_minute=2)
    for answer, status, code in (
        (ask(client, "sk-wrong"), 401, "invalid_api_key"),
        (ask(client, secret, model="large"), 403, "not_allowed"),
        (ask(client, secret), 200, None),
        (ask(client, secret, stream=True), 200, None),
        (ask(client, secret), 429, "rate_limit_exceeded"),
    ):
        assert answer.status_code == status
        if code:
            assert answer.json()["error"]["code"] == code
    assert 0 < int(answer.headers["retry-after"]) <= 61
    assert ask(client, "sk-wrong").headers["www-authenticate"] == "Bearer"


def test_auto_takes_the_largest_tier_that_the_key_may_use(client, engine):
    _, secret = make(engine, tiers=frozenset({"small"}))
    assert ask(client, secret).json()["model"] == "small"


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_is_spent_as_the_ledger_says_and_no_further(client, engine, stream):
    key, secret = make(engine, usd_per_day=1.0)
    answers = [ask(client, secret, stream=stream) for _ in range(120)]
    passed = [answer for answer in answers if answer.status_code == 200]
    assert len(passed) > 10
    assert answers[-1].status_code == 429 and answers[-1].json()["error"]["code"] == "insufficient_quota"
    assert int(answers[-1].headers["retry-after"]) > 5
    spent = key_store.spent(engine, time.time())[key.id]
    with engine.connect() as connection:
        booked, held = connection.execute(text("SELECT spent_usd, reserved_usd FROM budgets")).one()
    assert spent.day == pytest.approx(booked) and held == 0.0
    assert 0.5 < spent.day <= 1.0


def test_the_state_folder_is_its_owners_only(config):
    found = with_absolute_ledger(config.model_copy(update={"ledger": config.ledger.model_copy(update={"url": None})}))
    folder = found.ledger.url.removeprefix("sqlite:///").rsplit("/", 1)[0]
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
