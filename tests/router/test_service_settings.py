"""The section `services` of a ladder's file."""

import pytest
import yaml

from router.config import Config, load_config
from router.errors import BadConfig
from router.service_settings import EchoService, RemoteService, VllmService

TIER = {"name": "large", "engine": "echo", "context": 100, "price": {"usd_per_1m_input": 1, "usd_per_1m_output": 1}}
ECHO = {"name": "embed", "kind": "embeddings", "engine": "echo", "context": 100, "price": {"usd_per_1m_input": 1}}
REMOTE = {**ECHO, "name": "far", "engine": "remote", "url": "https://far.example/v1", "model": "up"}
VLLM = {**ECHO, "name": "near", "engine": "vllm", "source": "org/model"}


def loaded(tmp_path, *services) -> Config:
    file = tmp_path / "ladder.yaml"
    file.write_text(yaml.safe_dump({"tiers": [TIER], "services": list(services)}))
    return load_config(file)


def test_each_engine_has_its_settings_which_survive_the_way_to_the_ingress(tmp_path):
    config = loaded(tmp_path, ECHO, REMOTE, VLLM)
    assert [type(service) for service in config.services] == [EchoService, RemoteService, VllmService]
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert config.names == ["large"] and config.served_names == ["large", "embed", "far", "near"]


def test_folders_are_found_beside_the_file(tmp_path):
    (tmp_path / "model").mkdir()
    near, far = loaded(tmp_path, {**VLLM, "source": "model"}, {**REMOTE, "tokenizer": "model"}).services
    assert near.source == str(tmp_path / "model") and near.missing() == "" and near.local and not far.local
    assert far.missing().startswith(f"tokenizer: no file {tmp_path}/model/tokenizer.json")
    assert loaded(tmp_path, {**VLLM, "source": "/no/such"}).services[0].missing().startswith("source: no folder /no/such")


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ([ECHO, ECHO], "services: the name 'embed' is used twice"),
        ([{**ECHO, "name": "large"}], "services: the name 'large' is used twice; names of tiers and services must differ"),
        ([{**ECHO, "name": "auto"}], "'auto' is how clients ask for routing"),
        ([{**ECHO, "engine": "sglang"}], "services.0: engine: found 'sglang', expected one of vllm, remote, echo"),
        ([{**ECHO, "kind": "classify"}], "services.0.kind"),
        ([{**ECHO, "price": {}}], "services.0.price.usd_per_1m_input: Field required"),
        ([{**ECHO, "price": {"usd_per_1m_input": 1, "usd_per_1m_output": 1}}], "usd_per_1m_output: no such setting"),
        ([{**REMOTE, "url": "far"}], "services.0.url"),
        ([{**VLLM, "engine_kwargs": {"runner": "generate"}}], "engine_kwargs.runner: found 'generate'"),
        ([{**VLLM, "replicas": 0}], "replicas: 0 needs max_replicas"),
        ([{**VLLM, "affinity": "none"}], "affinity: no such setting"),
    ],
)
def test_a_mistake_stops_the_start_and_says_where(tmp_path, services, words):
    with pytest.raises(BadConfig) as refused:
        loaded(tmp_path, *services)
    assert words in str(refused.value)
