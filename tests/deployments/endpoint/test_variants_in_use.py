"""Several weights of one tier beside each other, and requests that are answered by those of the router that decided on them."""

import threading
import time
from functools import partial

import pytest
import waiting
from scripted_tier import Said
from sqlalchemy import insert
from variants_made import Place, PlayedApps

from deployments.keys.admission import Keys
from deployments.keys.key_store import hashed
from deployments.learning.live import active_router, bundles, variant_keeper, variant_tiers
from deployments.learning.live.bundles import Bundle
from deployments.learning.live.weights_used import on
from deployments.ledger.schema import keys as key_table
from deployments.replicas.variant_apps import AppState, app_of
from deployments.tiers.fingerprints import model
from router.errors import NoReplica
from router.flywheel.variants import Version, variant

pytestmark = pytest.mark.slow
until = partial(waiting.until, patience_s=30, every_s=0.02)


@pytest.fixture(autouse=True)
def often(monkeypatch, tmp_path):
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / "state"))
    for module in (active_router, variant_tiers, variant_keeper):
        monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(variant_keeper, "GRACE_S", 0.1)
    monkeypatch.setattr(variant_keeper, "REST_S", 0.0)


@pytest.fixture
def place(tmp_path):
    with Place(tmp_path).served() as made:
        yield made


def promoted(place, text="new"):
    """Weights of `small` and a bundle on them, in use."""
    digest = place.learned(text)
    made = place.stored(f"bundle-{text}", 0, {"small": digest})
    place.wrote(bundles.promote, made, "run-1", "", "test", time.time())
    until(lambda: place.told()["active"] == made)
    return digest, made


def test_a_promotion_brings_router_and_weights_together_and_a_rollback_takes_both_back(place):
    assert place.said() == "own large"
    digest, made = promoted(place)
    name, app = variant("small", digest), app_of(Version("small", digest))
    assert place.said() == name and place.apps.deployed == [app]
    settings = on(place.config.tiers[0], place.store / digest)
    assert place.models_of_calls()[-1] == ("small", model(settings))
    assert place.told()["variants"] == {name: {"app": app, "state": "up", "replicas": 1, "weights": digest}}
    deployed = len(place.apps.deployed)
    place.wrote(bundles.rollback, "somebody", time.time())
    until(lambda: place.said() == "own large")
    assert place.models_of_calls()[-1] == ("large", place.ingress.accounts.models["large"])
    until(lambda: place.apps.deleted == [app])  # nothing needs it any more
    assert len(place.apps.deployed) == deployed


def test_what_decided_goes_on_until_the_weights_answer(place):
    place.apps.held = True
    digest = place.learned("new")
    made = place.stored("bundle", 0, {"small": digest})
    place.wrote(bundles.promote, made, "run-1", "", "test", time.time())
    until(lambda: "starting" in place.told().get("not_loaded", {}).get("promoted", ""))
    assert place.said() == "own large" and place.client.get("/readyz").status_code == 200
    place.apps.held = False
    until(lambda: place.said() == variant("small", digest))
    assert "not_loaded" not in place.told()


def test_weights_that_do_not_answer_are_not_used(place):
    digest = place.learned("new")
    place.scripts[variant("small", digest)] = lambda body: Said(error=NoReplica("small", "nobody"))
    made = place.stored("bundle", 0, {"small": digest})
    place.wrote(bundles.promote, made, "run-1", "", "test", time.time())
    until(lambda: "does not answer" in place.told().get("not_loaded", {}).get("promoted", ""))
    assert place.said() == "own large"


@pytest.mark.parametrize("spoil, told", [("gone", "not in"), ("changed", "was changed"), ("unknown", "is no tier")])
def test_missing_or_changed_weights_are_said_and_what_decided_goes_on(place, spoil, told):
    digest = place.learned("new") if spoil != "gone" else "e" * 64
    if spoil == "changed":
        (place.store / digest / "model.safetensors").write_bytes(b"other")
    made = place.stored("bundle", 0, {"huge" if spoil == "unknown" else "small": digest})
    place.wrote(bundles.promote, made, "run-1", "", "test", time.time())
    until(lambda: told in place.told().get("not_loaded", {}).get("promoted", ""))
    assert place.said() == "own large" and not place.apps.deployed


def test_a_canary_gets_its_weights_and_the_others_keep_theirs(place):
    first, made = promoted(place, "first")
    second = place.learned("second")
    canary = place.stored("canary", 0, {"small": second})
    place.wrote(bundles.put, Bundle("canary", canary, "run-2", 0.5))
    until(lambda: place.told().get("canary") == canary)
    said = {f"s{n}": place.said(session=f"s{n}") for n in range(40)}
    assert set(said.values()) == {variant("small", first), variant("small", second)}
    assert said == {name: place.said(session=name) for name in said}  # each conversation stays with its weights


def test_a_failing_canary_closes_the_tier_for_its_own_conversations_alone(place):
    first, _ = promoted(place, "first")
    second = place.learned("second")
    canary = place.stored("canary", 0, {"small": second})
    place.wrote(bundles.put, Bundle("canary", canary, "run-2", 0.5))
    until(lambda: place.told().get("canary") == canary)
    said = {name: place.said(session=name) for name in (f"s{n}" for n in range(30))}
    tried = [name for name, text in said.items() if text == variant("small", second)]
    place.scripts[variant("small", second)] = lambda body: Said(error=NoReplica("small", "nobody"))
    for name in tried:
        assert place.said(session=name) == "own medium"  # another tier answers in its place
    variants, own = place.variants, place.ingress.tiers["small"]
    assert variants.find(Version("small", second)).handle.resting() is not None
    assert variants.find(Version("small", first)).handle.resting() is None and own.resting() is None
    assert all(place.said(session=name) == text for name, text in said.items() if name not in tried)
    assert place.client.get("/readyz").status_code == 200 and "small" not in place.client.get("/readyz").text


def test_a_request_under_way_keeps_its_weights_through_a_rollback(place):
    digest, _ = promoted(place)
    name = variant("small", digest)
    going, got = threading.Event(), []

    def slowly(body):
        going.set()
        return Said(name, wait_s=0.5)

    place.scripts[name] = slowly
    thread = threading.Thread(target=lambda: got.append(place.said()))
    thread.start()
    assert going.wait(10)
    place.wrote(bundles.rollback, "somebody", time.time())
    until(lambda: place.told()["active"] == "")
    thread.join(10)
    assert got == [name] and place.said() == "own large"


def test_a_conversation_of_several_calls_keeps_the_tiers_that_it_began_with(place):
    """Taken at its decision: what a later call of its flow asks is not looked up again."""
    digest, _ = promoted(place)
    answering = place.ingress.answering
    lineup = answering.lineups.of(answering.routers.active)
    place.wrote(bundles.rollback, "somebody", time.time())
    until(lambda: place.told()["active"] == "")
    assert answering.lineups.of(answering.routers.active) is not lineup
    assert lineup.tiers["small"] is place.variants.known[Version("small", digest)].handle
    assert lineup.tiers["large"] is place.ingress.tiers["large"]


def test_after_a_restart_the_main_application_has_the_promoted_weights_and_no_second_engine_runs(tmp_path):
    with Place(tmp_path).served() as place:
        digest, made = promoted(place)
        place.wrote(bundles.clear, "previous")  # its time is over
    with Place(tmp_path, own={"small": digest}).served() as later:
        assert later.told()["active"] == made and later.said() == "own small"
        assert later.models_of_calls()[-1][1] == model(on(later.config.tiers[0], later.store / digest))
        assert not later.apps.deployed and "variants" not in later.told()


def test_after_a_restart_the_configured_weights_stand_beside_while_they_may_come_back(tmp_path):
    with Place(tmp_path).served() as place:
        digest, made = promoted(place)
    with Place(tmp_path, own={"small": digest}).served() as later:
        until(lambda: later.apps.deployed == [app_of(Version("small"))])  # for a rollback
        assert later.said() == "own small"
        until(lambda: later.told()["variants"]["small"]["state"] == "up")
        later.wrote(bundles.rollback, "somebody", time.time())
        until(lambda: later.told()["active"] == "")
        assert later.said("small") == "small" and later.models_of_calls()[-1] == ("small", model(later.config.tiers[0]))


def test_what_is_in_use_is_found_again_after_an_ingress_has_died(tmp_path):
    apps = PlayedApps()
    with Place(tmp_path, apps=apps).served() as place:
        digest, made = promoted(place)
    with Place(tmp_path, apps=apps).served() as later:
        assert later.told()["active"] == made and later.said() == variant("small", digest)  # the first request
    assert len(apps.deployed) == 1 and not apps.deleted


def test_what_nobody_needs_is_found_and_stopped(tmp_path):
    apps = PlayedApps(known={"stepdown-small-0123456789ab": AppState("RUNNING", 1), "another": AppState("RUNNING", 1)})
    apps.known.pop("another")
    with Place(tmp_path, apps=apps).served():
        until(lambda: apps.deleted == ["stepdown-small-0123456789ab"])


def test_nothing_is_stopped_while_it_is_not_known_what_is_needed(place, monkeypatch):
    digest, _ = promoted(place)
    with monkeypatch.context() as patched:
        patched.setattr(place.variants, "read", lambda: setattr(place.variants, "trouble", "the database is away"))
        place.variants.wanted = variant_tiers.Wanted()
        time.sleep(0.5)
        assert not place.apps.deleted
    until(lambda: place.said() == variant("small", digest))


def test_weights_are_asked_for_by_name_with_the_right_admin_alone(tmp_path):
    with Place(tmp_path, keys=lambda ledger: Keys(ledger.engine, hashed("operator"))).served() as place:
        place.wrote(lambda c: c.execute(insert(key_table), plain_key()))
        digest = place.learned("new")
        place.wrote(bundles.put, Bundle("canary", place.stored("canary", 0, {"small": digest}), "run-1", 0.000001))
        name = variant("small", digest)
        until(lambda: place.variants.named(name) is not None)
        assert place.said(name, key="operator") == name
        assert place.models_of_calls()[-1] == ("small", model(on(place.config.tiers[0], place.store / digest)))
        refused = [
            place.chat(name, key="plain"),
            place.chat("small@0123456789ab", key="operator"),
            place.chat("huge@12", key="operator"),
        ]
        assert [(r.status_code, r.json()["error"]["code"]) for r in refused] == [(404, "model_not_found")] * 3
        assert name not in place.client.get("/v1/models", headers={"authorization": "Bearer operator"}).text


def plain_key():
    return {"id": "key-2", "name": "plain", "hash": hashed("plain"), "created_s": 0.0, "rights": "[]"}


def test_what_is_kept_says_which_weights_answered(tmp_path):
    who = {"keys": lambda ledger: Keys(None, insecure=True, learning="all"), "learning": {"collect": "consented"}}
    with Place(tmp_path, **who).served() as place:
        digest, _ = promoted(place)
        place.said()
        until(lambda: place.kept())
        assert place.kept()[0] == ("answer", "small", model(on(place.config.tiers[0], place.store / digest)))
