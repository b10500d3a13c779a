"""Rungs: tiers that share another one's replicas. What they may say, what is their host's, and what is refused."""

import pytest

from deployments.tiers.fingerprints import model
from router.config import Config, SharedTier, load_config
from router.costs.prices import gpu_usd, per_token
from router.errors import BadConfig
from router.shared_tier_settings import OWN
from router.tier_settings import sibling_without_thought

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
    assert set(config.model_dump(mode="json")["tiers"][1]) == set(OWN)
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
        ("{name: mail, on: small}", "it answers as tier small does; give it what differs: body, thought or lora"),
        ("{name: mail, on: small, effort: low}", "it answers as tier small does"),
        ("{name: mail, on: small, effort: lowish, body: {a: 1}}", "tiers.1.effort"),
        ("{name: mail, on: small, thought: 9}", "thought needs reasoning.parser of tier small"),
        ("{name: mail, on: small, thought: -1}", "tiers.1.thought"),
        ("{name: mail, on: small, body: [1]}", "tiers.1.body"),
        ("{name: mail, on: small, body: {max_tokens: 5}}", "max_tokens belongs to each request; remove it"),
        ("{name: mail, on: small, body: {model: x}}", "model belongs to each request"),
        ("{name: mail, on: small, body: {thinking_token_budget: 5}}", "has a setting of its own: thought"),
        ("{name: mail, on: small, body: {chat_template_kwargs: 5}}", "expected fields of the chat template"),
        ("{name: mail, on: small, body: {a: 2026-12-01}}", "cannot be sent as JSON"),
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


OFF = "{chat_template_kwargs: {enable_thinking: false}}"
ON = OFF.replace("false", "true")
THINKER = HOST.replace("tools: false", f"tools: false, reasoning: qwen3, effort: none, body: {OFF}")


def thinkers(folder, *rungs: str) -> Config:
    return read(folder, THINKER, *rungs)


def test_a_rung_lays_its_fields_over_its_hosts(tmp_path):
    host = THINKER.replace("{enable_thinking: false}", "{enable_thinking: false, a: 1}, top_k: 9")
    rung = rung_of(read(tmp_path, host, f"{{name: think, on: small, effort: low, thought: 20, body: {ON}}}"))
    assert rung.body == {"chat_template_kwargs": {"enable_thinking": True, "a": 1}, "top_k": 9}
    assert (rung.effort, rung.thought, rung.lora, rung.missing()) == ("low", 20, None, "")


def test_what_a_rung_does_not_say_of_its_thinking_is_its_hosts(tmp_path):
    host = THINKER.replace("effort: none", "effort: none, thought: 50")
    config = read(
        tmp_path,
        host,
        "{name: sql, on: small, lora: sql}",
        "{name: free, on: small, thought: null}",
        f"{{name: long, on: small, body: {ON}}}",
    )
    small, sql, free, long = config.tiers
    assert (sql.effort, sql.thought, sql.body) == ("none", 50, small.body)
    assert (free.effort, free.thought, free.body) == (None, None, small.body)
    assert (long.effort, long.thought) == (None, 50)
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_a_rung_knows_whether_it_thinks_and_clients_cannot_change_that(tmp_path):
    config = thinkers(tmp_path, f"{{name: think, on: small, thought: 20, body: {ON}}}", "{name: sql, on: small, lora: sql}")
    small, think, sql = config.tiers
    assert [(tier.thinks, tier.thinking.default, tier.thinking.switch) for tier in (small, think, sql)] == [
        (False, "off", "none"),
        (True, "on", "none"),
        (False, "off", "none"),
    ]
    assert (small.thinking.parser, small.thinking.budget, think.thinking.budget) == ("qwen3", None, 20)


def test_a_limit_of_thoughts_makes_a_parser_among_the_options_count(tmp_path):
    plain = HOST.replace("tools: false", "tools: false, engine_kwargs: {reasoning_parser: qwen3}")
    small, think = read(tmp_path, plain, "{name: think, on: small, thought: 20}").tiers
    assert small.thinking is None and (think.thinking.parser, think.thinking.budget, think.thinks) == ("qwen3", 20, True)


def test_two_limits_of_one_thought_are_a_mistake(tmp_path):
    host = HOST.replace("tools: false", "tools: false, reasoning: {parser: qwen3, budget: 9}")
    assert "thought and reasoning.budget are the same" in said(tmp_path, host.replace("tools: false", "tools: false, thought: 8"))
    assert "give tier small its limit by thought too" in said(tmp_path, host, "{name: think, on: small, thought: 20}")
    alone = HOST.replace("tools: false", "tools: false, thought: 8")
    assert "thought needs reasoning.parser: without one" in said(tmp_path, alone)


def test_what_a_rung_sends_is_what_its_answers_are_known_by(tmp_path):
    config = thinkers(
        tmp_path,
        f"{{name: think, on: small, body: {ON}}}",
        f"{{name: short, on: small, body: {ON}, thought: 9}}",
        "{name: sql, on: small, lora: sql}",
    )
    models = {name: model(tier) for name, tier in zip(config.names, config.tiers, strict=True) if tier.name != "sql"}
    assert len(set(models.values())) == 3
    again = thinkers(tmp_path, f"{{name: think, on: small, effort: high, body: {ON}}}")
    assert model(again.tiers[1]) == models["think"], "a label changes no answer"
    bare = read(tmp_path, HOST)
    assert model(bare.tiers[0]) == "some/model"


def test_the_sibling_that_does_not_think_is_found(tmp_path):
    config = thinkers(tmp_path, f"{{name: think, on: small, body: {ON}}}", "{name: sql, on: small, lora: sql}")
    found = [sibling_without_thought(config.tiers, name) for name in config.names]
    assert [tier.name if tier else None for tier in found] == ["sql", "small", "small"]


def test_other_engines_have_bodies_too(tmp_path):
    price = "price: {usd_per_1m_input: 1, usd_per_1m_output: 2}"
    remote = f"{{name: far, engine: remote, url: 'http://x/v1', model: m, context: 9, {price},"
    far = read(tmp_path, f"{remote} effort: high, thought: 100, body: {{reasoning_effort: high}}}}").tiers[0]
    assert (far.body, far.thinks, far.thinking) == ({"reasoning_effort": "high"}, True, None)
    assert model(far) != model(read(tmp_path, f"{remote}}}").tiers[0])


def test_a_share_of_a_card_is_a_share_of_everything(tmp_path):
    shared = HOST.replace("tools: false", "tools: false, accelerator: H100, gpu: 0.4")
    config = read(tmp_path, shared, RUNG)
    assert [(tier.accelerators, tier.accelerators_billed) for tier in config.tiers] == [(0.4, 0.4)] * 2
    assert gpu_usd(3600, config.tiers[0]) == pytest.approx(1.2)
    assert "takes whole accelerators" in said(tmp_path, shared.replace("gpu: 0.4", "gpu: 0.4, tensor_parallel: 2"))
    for wrong in ("0", "1.5", "-1"):
        assert "tiers.0.gpu" in said(tmp_path, shared.replace("0.4", wrong))
