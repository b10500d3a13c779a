"""Folders of models: what is safe, what is refused, and what is found out about them."""

import json
import shutil

import pytest
import torch
from distilling import MODELS, tiny_model

from deployments.distil import base_models
from router.errors import BadInput

SMALL = MODELS / "small"


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(SMALL, tmp_path / "model")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "modeling_own.py", "weights.pkl", "MODEL.CKPT"])
def test_files_that_can_run_code_are_refused(copy, name):
    (copy / name).write_bytes(b"x")
    with pytest.raises(BadInput, match=f"{name}.*can run code"):
        base_models.load_model(copy)
    with pytest.raises(BadInput, match="can run code"):
        base_models.load_tokenizer(copy)


def test_a_model_that_brings_code_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "own.Model"}}))
    with pytest.raises(BadInput, match="never run"):
        base_models.load_model(copy)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_folder_without_weights_or_settings_is_refused(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(BadInput, match="safetensors with a config"):
        base_models.load_model(copy)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        base_models.digest_of(tmp_path / "nowhere")


def test_a_damaged_file_of_weights_is_refused(copy):
    (copy / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(Exception) as raised:
        base_models.load_model(copy)
    assert isinstance(raised.value, BadInput)


def test_a_tokenizer_of_a_larger_model_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises(BadInput, match="two models"):
        base_models.load_tokenizer(copy)


def test_a_model_without_a_template_is_refused(copy):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(BadInput, match="chat template"):
        base_models.load_tokenizer(copy)


def test_the_digest_is_that_of_the_store_of_weights():
    from deployments.learning.live import weights

    assert base_models.digest_of(SMALL) == weights.digest_of(SMALL)


def test_size_and_ends():
    size = base_models.size_of(SMALL)
    model = base_models.load_model(SMALL)
    assert size.parameters == sum(p.numel() for p in model.parameters()) and size.context == 512
    assert base_models.ends_of(SMALL, base_models.load_tokenizer(SMALL)) == (3,)
    assert base_models.stored_dtype(SMALL) == torch.float32


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_families_load_and_padded_vocabularies_are_allowed(tmp_path, family):
    folder = tiny_model(tmp_path / family, family)
    tokenizer, model = base_models.load_tokenizer(folder), base_models.load_model(folder)
    assert model.config.model_type == family and model.config.vocab_size > max(tokenizer.get_vocab().values())
