"""A replica's adapters: loaded, tried, forgotten, and found again by replicas that start later. The engine is made up."""

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from adapters_made import written

from deployments.replicas.adapter_files import read
from deployments.replicas.adapters import PROMPTS, Adapters, board_of, on_board, write_board
from deployments.replicas.request_faults import Refusal
from deployments.tiers.adapter_swap import load_on_all, unload_from_all
from router.errors import BadConfig, BadInput


class Engine:
    """Serves the base for adapters in `absent`, as vLLM does for one whose modules it does not know.

    noise: by which log-probabilities differ from call to call.
    """

    def __init__(self, absent=(), noise=0.0, logprobs=True, told=()) -> None:
        self.loaded, self.absent, self.noise, self.logprobs, self.told = {}, set(absent), noise, logprobs, told
        self.asked, self.places = [], set()

    async def load(self, name, folder):
        self.loaded[name] = folder
        self.places.add(name)
        return "rank 8 is greater than max_lora_rank" if name in self.told else ""

    async def forget(self, name):
        self.loaded.pop(name, None)

    async def free(self, name):
        self.places.discard(name)

    async def ask(self, path, body):
        self.asked.append(body)
        if body["model"] not in {"small", *self.loaded}:
            yield Refusal(404, '{"error": {"message": "no such model"}}')
        elif body.get("logprobs") and not self.logprobs:
            yield Refusal(400, '{"error": {"message": "max allowed"}}')
        else:
            there = body["model"] != "small" and body["model"] not in self.absent
            value = -1.0 - self.noise * len(self.asked) - (0.5 if there else 0.0)
            known = SimpleNamespace(token_logprobs=[value, -9.0 * len(self.asked)]) if body.get("logprobs") else None
            text = "its" if there and not self.logprobs else "same"
            yield SimpleNamespace(choices=[SimpleNamespace(index=n, text=text, logprobs=known) for n in range(len(PROMPTS))])


@pytest.fixture
def mail(tmp_path):
    return read("mail", written(tmp_path / "mail"))


def made(engine, board=None) -> Adapters:
    return Adapters("small", engine, engine.ask, board)


@pytest.mark.parametrize("engine", [Engine(), Engine(noise=1e-3), Engine(logprobs=False)], ids=["exact", "noisy", "texts only"])
def test_an_adapter_that_changes_anything_is_there(mail, engine):
    adapters = made(engine)
    asyncio.run(adapters.start([mail]))
    assert adapters.folders == {mail.name: mail.folder} == engine.loaded
    assert {body["model"] for body in engine.asked} == {"small", mail.name}
    assert all(len(body["prompt"]) == 16 and body["temperature"] == 0 for body in engine.asked)


@pytest.mark.parametrize("how", [{}, {"noise": 1e-3}, {"logprobs": False}], ids=["exact", "noisy", "texts only"])
def test_one_whose_answers_are_the_bases_stops_the_start_and_is_forgotten(mail, how):
    engine = Engine(absent=[mail.name], **how)
    with pytest.raises(BadConfig) as raised:
        asyncio.run(made(engine).start([mail]))
    assert str(raised.value).startswith("tiers.mail.lora: 16 prompts get the same answers") and mail.folder in str(raised.value)
    assert "names of the modules" in str(raised.value) or "modules named in" in str(raised.value)
    assert not engine.loaded and not engine.places


def test_what_vllm_refuses_is_told(mail):
    with pytest.raises(BadConfig, match="tiers.mail.lora: vLLM cannot load .*: rank 8 is greater"):
        asyncio.run(made(Engine(told=[mail.name])).start([mail]))


def test_files_that_were_changed_do_not_get_the_old_name(mail):
    written(Path(mail.folder), seed=5)
    with pytest.raises(BadConfig, match="no longer holds the files"):
        asyncio.run(made(Engine()).start([mail]))


def test_it_is_loaded_once_however_often_it_is_asked_for(mail):
    engine = Engine()

    async def often():
        adapters = made(engine)
        await asyncio.gather(*(adapters.load(mail.name, mail.folder) for _ in range(5)))
        before = len(engine.asked)
        await adapters.unload(mail.name)
        await adapters.unload(mail.name)
        return before

    assert asyncio.run(often()) == 3 and not engine.loaded


def test_a_place_is_given_up_only_when_the_last_request_is_answered(mail):
    engine = Engine()

    async def go():
        adapters = Adapters("small", engine, engine.ask, places=1)
        await adapters.load(mail.name, mail.folder)
        with adapters.asked(mail.name):
            leaving = asyncio.create_task(adapters.unload(mail.name))
            await asyncio.sleep(0.12)
            assert not engine.loaded and engine.places == {mail.name} and not leaving.done()
            with pytest.raises(BadConfig, match="has places for 1 adapters, and all are taken"):
                await adapters.load(mail.name, mail.folder)
        await leaving
        assert not engine.places
        await adapters.load(mail.name, mail.folder)

    asyncio.run(go())


# -- while it runs -------------------------------------------------------------------------------------------------------------


class Handle:
    """Serve's, over replicas of which some are not there when they are called."""

    def __init__(self, replicas, missed=0) -> None:
        self.replicas, self.missed, self.calls = replicas, missed, []

    def broadcast(self, method, *arguments):
        self.calls.append(method)
        called = self.replicas[self.missed :]
        self.missed = max(0, self.missed - 1)
        doing = {"load_adapter": Adapters.load, "unload_adapter": Adapters.unload}[method]
        return SimpleNamespace(results_async=lambda: asyncio.gather(*(doing(replica, *arguments) for replica in called)))

    async def running(self):
        return len(self.replicas)


@pytest.fixture
def board(tmp_path):
    return board_of(tmp_path / "weights", "small")


def test_all_replicas_get_a_further_one_and_later_ones_find_it(mail, board, monkeypatch):
    monkeypatch.setattr("deployments.tiers.adapter_swap.LOOK_S", 0.0)
    old, new = [made(Engine(), board) for _ in range(3)], made(Engine(), board)
    handle = Handle(old, missed=1)

    async def go():
        await load_on_all(handle, handle.running, board, mail)
        assert all(mail.name in replica.folders for replica in old)
        await new.start([])
        assert new.folders == {mail.name: mail.folder}
        await unload_from_all(handle, handle.running, board, mail.name)

    asyncio.run(go())
    assert handle.calls == ["load_adapter", "load_adapter", "unload_adapter"]
    assert not any(replica.folders for replica in old) and on_board(board) == {}


def test_a_replica_that_cannot_load_it_takes_it_back_from_all(mail, board):
    replicas = [made(Engine(), board), made(Engine(absent=[mail.name]), board)]
    handle = Handle(replicas)
    with pytest.raises(BadConfig, match="does not apply it"):
        asyncio.run(load_on_all(handle, handle.running, board, mail))
    assert on_board(board) == {} and not any(replica.registry.loaded for replica in replicas)


def test_it_is_given_up_when_a_replica_stays_away(mail, board, monkeypatch):
    monkeypatch.setattr("deployments.tiers.adapter_swap.LOOK_S", 0.01)
    replicas = [made(Engine(), board), made(Engine(), board)]
    handle = Handle(replicas, missed=10**6)
    with pytest.raises(BadInput, match="could load it within 0.05 s"):
        asyncio.run(load_on_all(handle, handle.running, board, mail, 0.05))
    assert on_board(board) == {}


def test_a_host_that_sleeps_is_not_woken_for_it(mail, board):
    handle = Handle([])
    asyncio.run(load_on_all(handle, handle.running, board, mail))
    assert handle.calls == [] and on_board(board) == {mail.name: mail.folder}


def test_a_replica_that_missed_the_call_catches_up_beside_its_requests(mail, board, caplog):
    replica = made(Engine(), board)

    async def go():
        await replica.start([])
        replica.look()
        assert replica.catching_up is None
        write_board(board, {mail.name: mail.folder})
        replica.look()
        await replica.catching_up
        assert mail.name in replica.folders
        write_board(board, {"mail@0123456789ab": mail.folder})
        os.utime(board, ns=(1, 1))
        replica.look()
        await replica.catching_up  # what cannot be loaded does not end the replica

    asyncio.run(go())
    assert "no longer holds the files" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"a": 5})])
def test_a_spoiled_board_stops_a_start_and_says_how_to_mend_it(board, text):
    write_board(board, {})
    board.write_text(text)
    with pytest.raises(BadConfig, match="delete it"):
        asyncio.run(made(Engine(), board).start([]))
