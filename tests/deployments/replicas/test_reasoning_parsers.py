"""A parser of thoughts that vLLM does not know is found when a configuration is checked, without loading vLLM."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from deployments.replicas.reasoning_parsers import check_known, installed
from deployments.tiers.check import check
from router.config import Config
from router.errors import BadConfig

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}


def config(**more):
    return Config.model_validate(
        {"tiers": [{"name": "it", "engine": "vllm", "source": "org/model", "context": 512, "price": PRICE, **more}]}
    )


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_installed_parsers():
    assert {"qwen3", "deepseek_r1", "openai_gptoss"} <= set(installed())


@pytest.mark.slow
def test_vllm_itself_knows_the_same():
    manager = pytest.importorskip("vllm.reasoning").ReasoningParserManager
    assert installed() == manager.list_registered()


def test_a_wrong_name_is_answered_with_the_list(monkeypatch):
    monkeypatch.setattr("deployments.tiers.check.installed", lambda: ["deepseek_r1", "qwen3"])
    with pytest.raises(BadConfig, match=r"tiers\.it\.reasoning\.parser: found 'qwen33'.*expected one of deepseek_r1, qwen3"):
        check(config(reasoning={"parser": "qwen33"}))
    check(config(reasoning={"parser": "qwen3"}))
    check(config(reasoning={"switch": "chat_template"}))


def test_a_plugin_brings_names_of_its_own(monkeypatch):
    monkeypatch.setattr("deployments.tiers.check.installed", lambda: ["qwen3"])
    check(config(reasoning={"parser": "mine"}, engine_kwargs={"reasoning_parser_plugin": "/a/mine.py"}))


def test_another_servers_parser_is_its_own_business(monkeypatch):
    monkeypatch.setattr("deployments.tiers.check.installed", lambda: ["qwen3"])
    tier = {"name": "it", "engine": "remote", "url": "https://there/v1", "model": "m", "context": 512, "price": PRICE}
    check(Config.model_validate({"tiers": [{**tier, "reasoning": {"parser": "theirs"}}]}))


def test_where_vllm_is_not_installed_the_replica_checks_it(monkeypatch):
    monkeypatch.setattr("deployments.replicas.reasoning_parsers.find_spec", lambda name: None)
    assert installed() == []
    check_known("it", "anything", installed())


@pytest.mark.slow
def test_checking_loads_no_engine():
    asks = "from deployments.replicas.reasoning_parsers import installed; installed()"
    code = f"import sys; {asks}; print({{'vllm', 'torch'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# -- replicas --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_engine_gets_the_parser():
    module = pytest.importorskip("deployments.replicas.vllm_tier")

    def kwargs(**more):
        return module.settings_of(config(**more).tiers[0])["engine_kwargs"]

    assert "reasoning_parser" not in kwargs() and "reasoning_parser" not in kwargs(reasoning={})
    assert kwargs(reasoning={"parser": "qwen3"})["reasoning_parser"] == "qwen3"
    assert kwargs(reasoning={}, engine_kwargs={"reasoning_parser": "qwen3"})["reasoning_parser"] == "qwen3"


@pytest.mark.slow
def test_a_replica_looks_too():
    module = pytest.importorskip("deployments.replicas.vllm_tier")
    module.check_reasoning_parser(config(reasoning={"parser": "qwen3"}).tiers[0])
    module.check_reasoning_parser(config().tiers[0])
    with pytest.raises(BadConfig, match="reasoning.parser: found 'nonsense'.*qwen3"):
        module.check_reasoning_parser(config(reasoning={"parser": "nonsense"}).tiers[0])
