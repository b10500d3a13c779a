"""Which weights an artefact names, the ladder on them, which are needed by the database, and on which a start begins."""

import json
import time

import pytest
from variants_made import NOTED, bundle, ladder_of, model_folder

from classifiers import load
from deployments.learning import runs
from deployments.learning.live import bundles, model_store, started_on, weights
from deployments.learning.live.bundles import Bundle
from deployments.learning.live.model_store import digest_of
from deployments.learning.live.variants_wanted import Configured, wanted
from deployments.learning.live.weights_used import MOST_NAME, prints_on, settings_on, versions_of, weights_of
from deployments.ledger.database import writing
from deployments.ledger.schema import model_rows
from deployments.tiers.fingerprints import ladder_fingerprints
from router.config import Config
from router.errors import BadConfig, BadInput
from router.flywheel.variants import Version, variant

pytestmark = pytest.mark.slow
STORED = {"kind": "router", "parent": "", "method": "light", "dataset": "", "seed": 0, "licence": "", "made_s": 1.0}


def kept(folder, config, text="new"):
    return weights.keep(model_folder(folder / f"learned-{text}", text), weights.root(config))


def stored(engine, folder, named, run_id="run-1"):
    with writing(engine) as connection:
        return model_store.save(connection, bundle(folder, 0, named), **STORED, run_id=run_id, trace_ids=[])


def test_an_artefact_with_weights_is_read_like_any_other(tmp_path):
    folder = bundle(tmp_path / "bundle", 0, {"small": "a" * 64})
    assert load(folder, ["small", "medium", "large"]).manifest["weights"] == weights_of(folder) == {"small": "a" * 64}
    assert weights_of(bundle(tmp_path / "plain", 0, {})) == {}


@pytest.mark.parametrize("named", [["a"], {"small": "a" * 63}, {"small": 7}, {"small": "../" + "a" * 61}])
def test_names_that_are_no_digests_are_refused(named):
    with pytest.raises(BadInput, match="weights of an artefact"):
        weights_of({"weights": named})


def test_a_ladder_on_weights_is_the_same_but_for_their_source(tmp_path):
    config = ladder_of(tmp_path)
    digest = kept(tmp_path, config)
    made = settings_on(config, {"small": digest}, weights.root(config))
    small = made.tiers[0].model_copy(update={"source": config.tiers[0].source})
    assert made.tiers[0].source == str(weights.root(config) / digest) and [small, *made.tiers[1:]] == config.tiers
    assert settings_on(config, {}, weights.root(config)) is config
    before, after = ladder_fingerprints(config)["models"], prints_on(config, {"small": digest}, weights.root(config))["models"]
    assert before["small"] != after["small"] and before["large"] == after["large"]


def test_what_cannot_run_on_weights_is_refused(tmp_path):
    config = ladder_of(tmp_path)
    store, digest = weights.root(config), kept(tmp_path, config)
    price = {"usd_per_1m_input": 1.0, "usd_per_1m_output": 1.0}
    echo = Config.model_validate({"tiers": [{"name": "small", "engine": "echo", "context": 9, "price": price}]})
    long = {"name": "x" * (MOST_NAME + 1), "engine": "vllm", "source": config.tiers[0].source, "context": 9, "price": price}
    named = Config.model_validate({"tiers": [long]})
    (store / digest / "model.safetensors").write_bytes(b"other")
    for settings, tier, found, told in (
        (config, "small", "b" * 64, "are not in"),
        (config, "small", digest, "was changed"),
        (config, "huge", digest, "is no tier"),
        (echo, "small", digest, "runs on echo"),
        (named, long["name"], digest, "letters"),
    ):
        if told in ("runs on echo", "letters"):
            (store / digest / "model.safetensors").write_bytes(b"new")
        with pytest.raises(BadInput, match=told):
            settings_on(settings, {tier: found}, store)


# -- what is needed --------------------------------------------------------------------------------------------------------


def looked(engine, config, configured=None):
    with engine.connect() as connection:
        return wanted(connection, config, configured or Configured(), {})


def own(config):
    return frozenset(Version(tier.name) for tier in config.tiers)


def test_without_learned_weights_nothing_runs_beside_the_ladder(engine, tmp_path):
    found, config = looked(engine, ladder_of(tmp_path)), ladder_of(tmp_path)
    assert (found.up, found.asked, found.since_s) == (own(config), ("small", "medium", "large"), None)


def test_weights_of_every_slot_are_needed_and_those_of_what_decides_are_asked(engine, tmp_path):
    config = ladder_of(tmp_path)
    old, new, tried = ({"small": letter * 64} for letter in "abc")
    names = [stored(engine, tmp_path / f"bundle-{n}", named) for n, named in enumerate((old, new, tried))]
    with writing(engine) as connection:
        bundles.promote(connection, names[0], "run-1", "", "me", 1.0)
        bundles.promote(connection, names[1], "run-2", "", "me", 2.0)
        bundles.put(connection, Bundle("canary", names[2], "run-3", 0.1))
    found = looked(engine, config)
    assert found.up - own(config) == {Version("small", letter * 64) for letter in "abc"}
    assert found.asked == (variant("small", "b" * 64), variant("small", "c" * 64), "medium", "large")
    other = looked(engine, config, Configured("e" * 64, {"small": "d" * 64}))  # the operator has the last word
    assert other.up - own(config) == {Version("small", "d" * 64)} and other.asked[0] == variant("small", "d" * 64)


def under_way(engine, stage, candidate, incumbent=""):
    with writing(engine) as connection:
        run = runs.begin(
            connection, kind="student", incumbent=incumbent, by="me", settings={}, now_s=100.0, stage="training", numbers={}
        )
        what = {"stage": stage, "what": "trained", "by": "me", "now_s": 101.0}
        runs.event(connection, run, 1, **what, candidate=candidate)


@pytest.mark.parametrize("stage", ["shadow", "waiting", "canary", "promoted"])
def test_a_runs_candidate_is_asked_beside_its_incumbent_also_for_requests_since_it_began(engine, tmp_path, stage):
    config = ladder_of(tmp_path)
    under_way(engine, stage, stored(engine, tmp_path / "bundle", {"small": "a" * 64}))
    found = looked(engine, config)
    assert found.asked == ("small", variant("small", "a" * 64), "medium", "large") and found.since_s == 100.0
    assert Version("small", "a" * 64) in found.up


def test_a_run_that_is_over_or_of_a_router_alone_asks_nobody_else(engine, tmp_path):
    config = ladder_of(tmp_path)
    under_way(engine, "refused", stored(engine, tmp_path / "bundle", {"small": "a" * 64}))
    assert looked(engine, config).asked == ("small", "medium", "large") and looked(engine, config).up == own(config)
    under_way(engine, "shadow", stored(engine, tmp_path / "router", {}))
    found = looked(engine, config)
    assert found.asked == ("small", "medium", "large") and found.since_s is None


def test_an_artefact_that_cannot_be_read_is_said(engine, tmp_path):
    with writing(engine) as connection:
        bundles.put(connection, Bundle("canary", "e" * 64, "run", 0.5))
    found = looked(engine, ladder_of(tmp_path))
    assert "not in the ledger's database" in found.unread[0] and found.asked == ("small", "medium", "large")


# -- the store's rows ------------------------------------------------------------------------------------------------------


def test_weights_are_noted_once_with_what_they_were_made_from(engine):
    with writing(engine) as connection:
        for _ in range(2):
            given = NOTED | {"parent": "b" * 64, "dataset": "d" * 64, "seed": 7, "licence": "apache-2.0"}
            model_store.save_weights(
                connection, "a" * 64, {"model.safetensors": "f"}, "small", **given, numbers={"won": 3}, trace_ids=["t-1", "t-2"]
            )
    with engine.connect() as connection:
        found = model_store.weights_row(connection, "a" * 64)
        assert [found] == model_store.weights_listed(connection) and model_store.weights_row(connection, "b" * 64) is None
        assert model_store.trained_with(connection, ["t-2"]) == {"t-2": ["a" * 64]}
        assert connection.exec_driver_sql(f"select count(*) from {model_rows.name}").scalar() == 2
    assert (found.tier, found.parent, found.seed, found.numbers, found.files) == (
        "small",
        "b" * 64,
        7,
        {"won": 3},
        {"model.safetensors": "f"},
    )


def test_learned_weights_are_told_apart_by_their_fingerprints(engine, tmp_path):
    config = ladder_of(tmp_path)
    digest, prints = kept(tmp_path, config), ladder_fingerprints(config)["models"]
    with writing(engine) as connection:
        for made in (digest, "e" * 64):  # these are not in the store
            model_store.save_weights(connection, made, {}, "small", **NOTED, numbers={}, trace_ids=[])
        found = versions_of(connection, config, prints, weights.root(config))
    learned = prints_on(config, {"small": digest}, weights.root(config))["models"]["small"]
    assert found.name("small", learned) == variant("small", digest) and found.name("small", prints["small"]) == "small"
    assert len(found.learned) == 1


# -- a start ---------------------------------------------------------------------------------------------------------------


def config_at(engine, tmp_path, **sections):
    return ladder_of(tmp_path, ledger={"url": str(engine.url)}, **sections)


def test_a_start_begins_on_the_weights_of_what_decides(engine, tmp_path):
    config = config_at(engine, tmp_path)
    assert started_on.weights(config) == {}
    digest = kept(tmp_path, config)
    made = stored(engine, tmp_path / "bundle", {"small": digest})
    with writing(engine) as connection:
        bundles.promote(connection, made, "run-1", "", "me", time.time())
    assert started_on.weights(config) == {"small": digest}
    mine = bundle(tmp_path / "mine", 0, {})
    assert started_on.weights(config_at(engine, tmp_path, routing={"artefact": str(mine)})) == {}  # the operator's last word
    placed = started_on.placed(config, {"small": digest})
    assert placed.tiers[0].source.endswith(digest) and placed.tiers[1:] == config.tiers[1:]


def test_a_configured_artefact_may_name_weights_too(engine, tmp_path):
    config = config_at(engine, tmp_path)
    digest = kept(tmp_path, config)
    mine = bundle(tmp_path / "mine", 0, {"small": digest})
    config = config_at(engine, tmp_path, routing={"artefact": str(mine)})
    assert started_on.weights(config) == {"small": digest}
    assert started_on.configured(config) == Configured(digest_of(mine), {"small": digest})


@pytest.mark.parametrize("why", ["missing", "changed", "no tables", "no database"])
def test_weights_that_are_not_there_stop_no_start(engine, tmp_path, caplog, why):
    config = config_at(engine, tmp_path)
    digest = kept(tmp_path, config) if why == "changed" else "e" * 64
    if why == "changed":
        (weights.root(config) / digest / "model.safetensors").write_bytes(b"other")
    made = stored(engine, tmp_path / "bundle", {"small": digest})
    with writing(engine) as connection:
        bundles.promote(connection, made, "run-1", "", "me", time.time())
    if why == "no tables":
        config = ladder_of(tmp_path, ledger={"url": f"sqlite:///{tmp_path / 'new.db'}"})
    if why == "no database":
        (tmp_path / "broken.db").write_text("no database, but a long enough text for SQLite to see that")
        config = ladder_of(tmp_path, ledger={"url": f"sqlite:///{tmp_path / 'broken.db'}"})
    assert started_on.weights(config) == {}
    assert ("start on their configured weights" in caplog.text) == (why != "no tables")


def test_a_configured_artefact_that_cannot_be_read_is_said(tmp_path):
    folder = bundle(tmp_path / "mine", 0, {})
    (folder / "manifest.json").write_text(json.dumps({"weights": ["small"]}))
    with pytest.raises(BadConfig, match=r"routing\.artefact"):
        started_on.configured(ladder_of(tmp_path, routing={"artefact": str(folder)}))


def test_a_host_of_adapters_keeps_its_weights(engine, tmp_path, monkeypatch):
    config = config_at(engine, tmp_path)
    digest = kept(tmp_path, config)
    with writing(engine) as connection:
        made = model_store.save(connection, bundle(tmp_path / "b", 0, {"small": digest}), **STORED, run_id="r", trace_ids=[])
        bundles.promote(connection, made, "run-1", "", "me", time.time())
    monkeypatch.setattr(started_on, "hosts", lambda config: {"small"})
    assert started_on.weights(config) == {}
