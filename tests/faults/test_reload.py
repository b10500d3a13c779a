"""The configuration and its artefact change while requests go on."""

import asyncio
import json
import os
import threading
from contextlib import contextmanager
from functools import partial

import httpx
import pytest
import waiting
import yaml
from live import serving
from scripted_tier import Said, ScriptedTier

from deployments.endpoint import reload
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.reload import Reloader
from deployments.keys.admission import Keys
from router.config import SHIPPED, as_given, load_config
from router.engine import Router, load_artefact
from router.errors import BadConfig

NAMES = ("small", "medium", "large")
ARTEFACT = SHIPPED.parent / "pocket" / "router"
EASY = {"model": "auto", "messages": [{"role": "user", "content": "What is 2 plus 3?"}]}


def tiers() -> list[dict]:
    price = {n: {"usd_per_1m_input": i + 1.0, "usd_per_1m_output": i + 1.0} for i, n in enumerate(NAMES)}
    return [{"name": n, "engine": "echo", "context": 1000, "price": price[n]} for n in NAMES]


def write(file, target=0.0, artefact=ARTEFACT, **more) -> None:
    data = {"tiers": tiers(), "routing": {"artefact": str(artefact), "target": target}, **more}
    file.write_text(yaml.safe_dump(data))


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "ladder.yaml")
    return tmp_path / "ladder.yaml"


def words(body) -> Said:
    return Said("one two three", token_s=0.05 if body.get("stream") else 0.0)


class Served:
    """An endpoint whose configuration lies in a file."""

    def __init__(self, file) -> None:
        config = load_config(file)
        count = dict.fromkeys(NAMES, lambda text: len(text.split()))

        def make(settings):
            return Router(settings, load_artefact(settings), count)

        made = {name: ScriptedTier(name, words) for name in NAMES}
        self.router = make(config)
        self.ingress = Ingress(self.router, made, None, 1_000_000)
        self.ingress.reloader = self.reloader = Reloader(str(file), self.router, make, self.ingress.use)
        self.accounts = Accounts(Keys(None, insecure=True))


@contextmanager
def looking_often(file, monkeypatch):
    """Served over HTTP, and looking at its files all the time."""
    made = Served(file)
    monkeypatch.setattr("live.Ingress", lambda *_: made.ingress)
    monkeypatch.setattr(reload, "LOOK_EVERY_S", 0.05)
    with serving(made.router, {}, made.accounts) as url, httpx.Client(base_url=url, timeout=30) as client:
        made.client = client
        yield made


@pytest.fixture
def served(file, monkeypatch):
    with looking_often(file, monkeypatch) as made:
        yield made


def tier(served) -> str:
    return served.client.post("/chat/completions", json=EASY).json()["model"]


until = partial(waiting.until, patience_s=20, every_s=0.02)


@pytest.mark.slow
def test_another_target_is_used_once_the_file_says_so(served, file):
    assert tier(served) == "small"
    write(file, target=1.0)
    until(lambda: tier(served) == "large")
    told = served.client.get("/status").json()["reload"]
    assert (told["error"], told["times"], told["needs_restart"]) == (None, 1, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil, told",
    [
        (lambda file: file.write_text("tiers: ["), "not YAML"),
        (lambda file: file.unlink(), "No such file"),
        (lambda file: write(file, target=1.0, escalation={"mode": "no such"}), "escalation.mode"),
        (lambda file: write(file, target=1.0, artefact=file.parent / "none"), "routing.artefact"),
        (lambda file: file.write_text(file.read_text().replace("medium", "middle")), "tiers are changed by a restart"),
    ],
)
def test_a_bad_one_is_refused_with_its_reason_and_the_old_one_stays(served, file, caplog, spoil, told):
    good = file.read_text()
    spoil(file)
    until(lambda: told in str(served.client.get("/status").json().get("reload")))
    assert tier(served) == "small" and "the old settings stay" in caplog.text
    answer = served.client.post("/admin/reload")
    assert answer.status_code == 400 and told in answer.json()["error"]["message"]
    file.write_text(good.replace("0.0", "1.0"))
    until(lambda: tier(served) == "large")


def copied(folder):
    folder.mkdir()
    for part in ARTEFACT.iterdir():
        (folder / part.name).write_bytes(part.read_bytes())
    return folder


@pytest.mark.slow
def test_an_artefact_that_becomes_corrupt_in_its_place_is_refused(served, file, tmp_path):
    artefact = copied(tmp_path / "router")
    write(file, artefact=artefact)
    until(lambda: served.reloader.times == 1)
    model = max(artefact.iterdir(), key=lambda p: p.stat().st_size)
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    until(lambda: "routing.artefact" in str(served.reloader.last["error"]))
    assert tier(served) == "small"
    model.write_bytes(whole)
    until(lambda: served.reloader.times == 2)


def test_a_request_under_way_ends_as_it_began(served, file):
    got = {}

    def stream() -> None:
        got["text"] = served.client.post("/chat/completions", json={**EASY, "stream": True}).text

    thread = threading.Thread(target=stream)
    thread.start()
    until(lambda: served.ingress.tiers["small"].running)
    write(file, target=1.0)
    assert served.client.post("/admin/reload").status_code == 200
    assert tier(served) == "large"
    thread.join()
    events = [json.loads(e.removeprefix("data: ")) for e in got["text"].split("\n\n") if e and "[DONE]" not in e]
    assert {e["model"] for e in events} == {"small"} and got["text"].endswith("data: [DONE]\n\n")


@pytest.mark.slow
def test_requests_at_full_speed_see_the_old_or_the_new_and_nothing_else(served, file):
    stop, seen = threading.Event(), []

    def ask() -> None:
        with httpx.Client(base_url=served.client.base_url, timeout=30) as client:
            while not stop.is_set():
                answer = client.post("/chat/completions", json=EASY)
                seen.append((answer.status_code, answer.json()["model"], answer.headers["x-stepdown-tier"]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(6):
        write(file, target=float(n % 2))
        served.client.post("/admin/reload").raise_for_status()
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) <= {(200, "small", "small"), (200, "large", "large")}


def test_a_key_needs_the_right_to_reload(served, monkeypatch):
    from router.limits.key_limits import Key

    async def somebody(self, header):
        return Key("1", "somebody", rights=frozenset({"costs"}))

    monkeypatch.setattr(Keys, "look_up", somebody)
    assert served.client.post("/admin/reload").status_code == 403


def test_what_a_restart_is_needed_for_is_said(served, file):
    write(file, target=1.0, ledger={"store": "all"})
    assert served.client.post("/admin/reload").json()["needs_restart"] == ["ledger"]


def test_sections_that_serve_sends_are_used_and_others_refused(file):
    made = Served(file)
    asyncio.run(made.reloader.from_sections({"routing": {"artefact": str(ARTEFACT), "target": 1.0}}))
    assert made.ingress.router.config.routing.target == 1.0
    for bad, told in (({"server": {}}, "server"), ({"routing": {"target": "no"}}, "user_config: routing.target")):
        with pytest.raises(BadConfig, match=told):
            asyncio.run(made.reloader.from_sections(bad))
    assert made.ingress.router.config.routing.target == 1.0


def test_a_retired_certificate_is_not_brought_back_by_reading_it_again(file):
    made = Served(file)
    old = made.router.flows.promises
    target = next(iter(old.known), "balanced")
    old.states[target] = "retired"
    os.utime(file)
    asyncio.run(made.reloader.from_file())
    assert made.ingress.router is not made.router
    assert made.ingress.router.flows.promises.states[target] == "retired"


def test_a_replica_that_serve_sends_bad_settings_keeps_the_old_ones_and_is_not_taken_for_ill(tmp_path, monkeypatch):
    """`user_config`, as Serve sends it; first at the start, then at every change."""
    from deployments.app import ServedIngress

    file = tmp_path / "ladder.yaml"
    write(file, ledger={"url": f"sqlite:///{tmp_path / 'ledger.db'}"})
    made = ServedIngress(load_config(file).model_dump(mode="json"), "", True, {}, str(file))
    for target, used in ((1.0, 1.0), ("no such", 1.0), (0.5, 0.5)):
        asyncio.run(made.reconfigure({"routing": {"artefact": str(ARTEFACT), "target": target}}))
        assert made.router.config.routing.target == used
    assert made.reloader.last["error"] is None and made.reloader.times == 2


# -- links, as Kubernetes makes them for a ConfigMap ------------------------------------------------------------------------


def config_map(folder, name: str, target: float) -> None:
    """The files of a ConfigMap's next version, and the link to it, swapped at once as the kubelet does.

    All versions have the same sizes and times: only where the link leads tells them apart.
    """
    version = folder / f"..{name}"
    version.mkdir()
    write(version / "ladder.yaml", target=target, artefact="router")
    copied(version / "router")
    for file in (version / "ladder.yaml", *(version / "router").iterdir()):
        os.utime(file, (1e9, 1e9))
    (folder / "..next").symlink_to(version.name)
    (folder / "..next").rename(folder / "..data")


@pytest.fixture
def mounted(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    config_map(folder, "1", 0.0)
    for name in ("ladder.yaml", "router"):
        (folder / name).symlink_to(f"..data/{name}")
    return folder / "ladder.yaml"


def test_paths_are_kept_as_they_were_given(mounted):
    from deployments.app import placed_file

    assert placed_file(str(mounted)) == str(mounted)
    assert load_config(mounted).routing.artefact == str(mounted.parent / "router")


def test_dots_are_taken_out_only_where_the_path_leads_to_the_same(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    assert as_given(tmp_path / "real" / ".." / "other") == str(tmp_path / "other")
    assert as_given(tmp_path / "link" / ".." / "other") == str(tmp_path / "link" / ".." / "other")


@pytest.fixture
def file_of_map(mounted):
    return Served(mounted)


def stamps_differ(reloader: Reloader, change) -> bool:
    before = reloader.stamp()
    change()
    return reloader.stamp() != before


def test_a_swapped_link_is_a_change_although_sizes_and_times_are_the_same(mounted, file_of_map):
    assert stamps_differ(file_of_map.reloader, lambda: config_map(mounted.parent, "2", 1.0))
    assert not stamps_differ(file_of_map.reloader, lambda: None)


def test_a_file_renamed_over_another_of_the_same_size_and_time_is_a_change(file):
    made = Served(file)

    def replaced() -> None:
        found = file.stat()
        write(file.with_suffix(".new"), target=1.0)
        os.utime(file.with_suffix(".new"), ns=(found.st_atime_ns, found.st_mtime_ns))
        file.with_suffix(".new").rename(file)

    assert stamps_differ(made.reloader, replaced)


def test_the_artefacts_own_link_may_be_swapped(file, tmp_path):
    copied(tmp_path / "v1"), copied(tmp_path / "v2")
    (tmp_path / "current").symlink_to("v1")
    write(file, artefact=tmp_path / "current")
    made = Served(file)

    def swapped() -> None:
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").rename(tmp_path / "current")

    assert stamps_differ(made.reloader, swapped)


@pytest.mark.slow
def test_a_swapped_config_map_is_reloaded(mounted, monkeypatch):
    with looking_often(mounted, monkeypatch) as made:
        assert tier(made) == "small"
        config_map(mounted.parent, "2", 1.0)
        until(lambda: tier(made) == "large")
        assert made.reloader.last["needs_restart"] == []
        (mounted.parent / "..data").unlink()  # gone for a moment: the old settings stay, and it is said
        until(lambda: made.reloader.last["error"])
        assert tier(made) == "large"
        config_map(mounted.parent, "3", 0.0)
        until(lambda: tier(made) == "small" and not made.reloader.last["error"])
