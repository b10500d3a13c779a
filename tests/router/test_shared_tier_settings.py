"""Rungs: tiers that share another one's replicas. What they may say, what is their host's, and what is refused."""

import pytest

from router.config import Config, SharedTier, load_config
from router.costs.prices import gpu_usd, per_token
from router.errors import BadConfig

PRICE = "{usd_per_1m_input: 1, usd_per_1m_output: 2, usd_per_accelerator_hour: 3}"
HOST = (
    f"{{name: small, engine: vllm, source: some/model, context: 99, max_ongoing: 7, replicas: 2, tools: false, price: {PRICE}}}"
)
RUNG = "{name: mail, on: small, lora: adapters/mail}"


def read(folder, *tiers: str) -> Config:
    file = folder / "ladder.yaml"
    file.write_text("tiers:\n" + "".join(f"  - {tier}\n" for tier in tiers))
    return load_config(file)


def said(folder, *tiers: str) -> str:
    with pytest.raises(BadConfig) as raised:
        read(folder, *tiers)
    return str(raised.value)


def rung_of(config: Config) -> SharedTier:
    (rung,) = config.rungs
    return rung


def test_a_rung_has_everything_of_its_host_but_its_name(tmp_path):
    rung, host = rung_of(config := read(tmp_path, HOST, RUNG)), config.tiers[0]
    assert (rung.name, rung.on, rung.runs_on, host.runs_on) == ("mail", "small", "small", "small")
    same = ("context", "tools", "price", "accelerators", "most_replicas", "sleeps", "thinking", "licence", "engine", "local")
    assert [getattr(rung, name) for name in same] == [getattr(host, name) for name in same]
    assert rung.capacity(2) == host.capacity(2) == 14
    assert rung.lora == str(tmp_path / "adapters/mail") and rung.model_source.adapter == tmp_path / "adapters/mail"
    assert rung.model_source._replace(adapter=None) == host.model_source
    assert config.hosts == {"mail": "small"} and config.names == ["small", "mail"]


@pytest.mark.parametrize("rung", [RUNG, "{name: mail, base: small, adapter: adapters/mail}"])
def test_both_ways_to_write_it_are_one(tmp_path, rung):
    assert read(tmp_path, HOST, rung) == read(tmp_path, HOST, RUNG)


def test_it_may_stand_before_its_host_and_several_may_share_one(tmp_path):
    config = read(tmp_path, RUNG, HOST, RUNG.replace("mail", "sql"))
    assert config.hosts == {"mail": "small", "sql": "small"}


def test_it_is_written_and_read_again_as_it_was(tmp_path):
    config = read(tmp_path, HOST, RUNG.replace("lora", "licence: {id: mit}, lora"))
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert set(config.model_dump(mode="json")["tiers"][1]) == {"name", "on", "lora", "licence", "price"}
    assert (rung_of(config).licence.id, config.tiers[0].licence.id) == ("mit", "unknown")


def test_its_tokens_may_have_a_price_of_their_own_and_the_hour_is_the_hosts(tmp_path):
    rung = rung_of(read(tmp_path, HOST, RUNG.replace("lora", "price: {usd_per_1m_input: 5, usd_per_1m_output: 6}, lora")))
    assert per_token(rung) == (5e-6, 6e-6) and gpu_usd(3600, rung) == 3
    again = "price: {usd_per_1m_input: 5, usd_per_1m_output: 6, usd_per_accelerator_hour: 4}, lora"
    assert "found 4, expected 3.0 as for its host" in said(tmp_path, HOST, RUNG.replace("lora", again))


@pytest.mark.parametrize(
    "rung, part",
    [
        (RUNG.replace("lora", "context: 9, lora"), "context is that of tier small, which it is on, and may not be repeated"),
        (RUNG.replace("lora", "tools: true, lora"), "tools is that of tier small"),
        (RUNG.replace("lora", "engine: vllm, lora"), "engine is that of tier small"),
        (RUNG.replace("lora", "replicas: 3, lora"), "replicas is that of tier small"),
        (RUNG.replace("lora", "accelerator: H100, lora"), "accelerator is that of tier small"),
        (RUNG.replace("lora", "reasoning: {parser: qwen3}, lora"), "reasoning is that of tier small"),
        (RUNG.replace("lora", "colour: red, lora"), "tiers.1.colour: no such setting"),
        (RUNG.replace("lora", "host: {}, lora"), "host: no such setting"),
        (RUNG.replace("lora", "base: small, lora"), "give each only once"),
        ("{name: mail, on: small}", "tiers.1.lora"),
        ("{name: mail, on: small, lora: ''}", "tiers.1.lora"),
        ("{name: mail, on: larg, lora: x}", "on: found 'larg', expected one of small"),
        ("{name: mail, on: mail, lora: x}", "on: found 'mail', expected one of small"),
        ("{name: mail, on: [small], lora: x}", "on: found ['small']"),
        ("{name: mail, lora: x}", "engine: found None"),
        ("{name: small, on: small, lora: x}", "on: found 'small'"),
    ],
)
def test_a_mistake_is_told_with_its_mend(tmp_path, rung, part):
    assert part in said(tmp_path, HOST, rung)


def test_only_a_tier_on_vllm_with_replicas_of_its_own_is_a_host(tmp_path):
    echo = "{name: small, engine: echo, context: 9, price: {usd_per_1m_input: 1, usd_per_1m_output: 2}}"
    assert "a tier with engine: vllm, of which there is none" in said(tmp_path, echo, RUNG)
    assert "on: found 'mail', expected one of small" in said(
        tmp_path, HOST, RUNG, RUNG.replace("small", "mail").replace("mail", "sql", 1)
    )


def test_a_host_with_a_mistake_is_told_of_once_and_its_rung_says_so(tmp_path):
    text = said(tmp_path, HOST.replace("context: 99", "context: 0"), RUNG)
    assert text.count("tiers.0.context") == 1 and "on: tier small has mistakes of its own" in text


def test_the_yaml_key_on_is_no_boolean_and_values_still_are(tmp_path):
    config = read(tmp_path, HOST.replace("tools: false", "tools: off"), RUNG)
    assert config.tiers[0].tools is False and rung_of(config).on == "small"


def test_a_missing_folder_is_named(tmp_path):
    rung = rung_of(read(tmp_path, HOST, RUNG))
    assert str(tmp_path / "adapters/mail") in rung.missing()
    (tmp_path / "adapters/mail").mkdir(parents=True)
    assert rung.missing() == ""
