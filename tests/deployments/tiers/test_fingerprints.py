"""A certificate's fingerprints: the same for the same ladder, another for any change that changes answers."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.pocket import tasks
from deployments.tiers import file_hashes
from deployments.tiers.fingerprints import ladder_fingerprints, to_record
from router.config import Config, load_config
from router.decide.certificates import Certificate, state_of, why_stale
from router.decide.promises import Promises
from router.engine import load_artefact

SMALL = Path(tasks.__file__).parent / "models" / "small"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(SMALL, tmp_path / "small"))


def of(folder, **changes):
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    tier = {"name": "small", "engine": "vllm", "source": str(folder), "context": 512, "price": price, **changes}
    return ladder_fingerprints(Config.model_validate({"tiers": [tier]}))


def test_the_same_files_give_the_same_fingerprint(folder, tmp_path):
    again = shutil.copytree(folder, tmp_path / "elsewhere")
    assert of(folder) == of(again)


@pytest.mark.parametrize(
    "name, what", [("model.safetensors", "models"), ("config.json", "models"), ("chat_template.jinja", "templates")]
)
def test_any_changed_file_gives_another(folder, name, what):
    before = of(folder)
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    assert of(folder)[what] != before[what]


def test_settings_that_change_answers_count_and_others_do_not(folder):
    plain = of(folder)
    assert of(folder, engine_kwargs={"dtype": "float32"})["models"] != plain["models"]
    assert of(folder, engine_kwargs={"max_num_seqs": 4}) == plain


@pytest.mark.parametrize(
    "options",
    [
        {"quantization": "fp8"},
        {"kv_cache_dtype": "fp8"},
        {"max_model_len": 256},
        {"tool_call_parser": "hermes"},
        {"reasoning_parser": "qwen3"},
        {"chat_template": "{{ messages }}"},
        {"enable_lora": True, "lora_modules": [{"name": "a", "path": "org/lora"}]},
        {"speculative_config": {"model": "org/draft", "num_speculative_tokens": 3}},
        {"override_generation_config": {"temperature": 0.3}},
        {"generation_config": "vllm"},
        {"logits_processors": ["a.b:C"]},
        {"hf_overrides": {"rope_scaling": {"factor": 4}}},
        {"load_format": "dummy"},
        {"seed": 7},
        {"structured-outputs-config": {"backend": "xgrammar"}},
        {"an_option_of_tomorrow": 1},
    ],
)
def test_an_option_that_changes_answers_counts_and_so_does_one_nobody_knows(folder, options):
    assert of(folder, engine_kwargs=options)["models"] != of(folder)["models"]


@pytest.mark.parametrize(
    "changes",
    [
        {"engine_kwargs": {"gpu_memory_utilization": 0.5, "enable-prefix-caching": True, "swap_space": 8, "dtype": None}},
        {"env": {"VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "4", "HF_HUB_OFFLINE": "1"}},
        {"replicas": 3, "max_ongoing": 7, "price": {"usd_per_1m_input": 2, "usd_per_1m_output": 3}},
    ],
)
def test_what_only_makes_it_faster_or_dearer_does_not_count(folder, changes):
    assert to_record(of(folder, **changes)) == to_record(of(folder))


def test_an_environment_variable_of_the_engine_counts(folder):
    assert of(folder, env={"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"})["models"] != of(folder)["models"]


def test_an_option_that_names_files_counts_by_their_content(folder, tmp_path):
    lora = shutil.copytree(folder, tmp_path / "lora")
    again = shutil.copytree(folder, tmp_path / "moved")
    given = [of(folder, engine_kwargs={"lora_modules": [{"name": "a", "path": str(place)}]}) for place in (lora, again)]
    assert given[0] == given[1]
    (again / "config.json").write_text("{}")
    assert of(folder, engine_kwargs={"lora_modules": [{"name": "a", "path": str(again)}]})["models"] != given[0]["models"]
    template = tmp_path / "chat.jinja"
    template.write_text("a")
    before = of(folder, engine_kwargs={"chat_template": str(template)})
    template.write_text("b")
    assert of(folder, engine_kwargs={"chat_template": str(template)})["templates"] != before["templates"]


@pytest.mark.parametrize(
    "name", ["generation_config.json", "tokenizer.json", "merges.txt", "modeling.py", "tokenizer.model", "original/weights.pth"]
)
def test_every_file_that_an_engine_may_read_counts(folder, name):
    before = of(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("another")
    assert of(folder)["models"] != before["models"]


@pytest.mark.parametrize("name", ["README.md", "LICENSE", ".cache/lock", "figure.png"])
def test_a_file_for_people_does_not(folder, name):
    before = of(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("another")
    assert of(folder) == before


def test_the_middle_of_the_weights_counts(tmp_path):
    """5.5 of the 7.6 MB of `large` were replaced without another fingerprint: the two ends and the size stayed."""
    folder = Path(shutil.copytree(SMALL.parent / "large", tmp_path / "large"))
    before, weights = of(folder), folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[1 << 20 : -(1 << 20)] = bytes(len(data) - (2 << 20))
    weights.write_bytes(data)
    after = of(folder)
    assert after["models"] != before["models"]
    assert after["before"] == before["before"]  # what certificates of that time are still compared with


def test_hashes_are_remembered_and_a_damaged_cache_is_made_anew(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / "state"))
    read = []
    plain = file_hashes.sha256
    monkeypatch.setattr(file_hashes, "sha256", lambda file: read.append(file.name) or plain(file))
    first = of(folder)
    assert read.count("model.safetensors") == 1
    assert of(folder) == first and read.count("model.safetensors") == 1
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert of(folder) == first and read.count("model.safetensors") == 2
    for damaged in ("{", "[]", '{"a": 1}', '{"a": [1]}'):
        (tmp_path / "state" / file_hashes.NAME).write_text(damaged)
        assert of(folder) == first
    assert read.count("model.safetensors") == 6


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_again(folder, tmp_path):
    before, weights = of(folder), folder / "model.safetensors"
    found = weights.stat()
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    fresh = tmp_path / "fresh"
    fresh.write_bytes(data)
    os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns))
    os.replace(fresh, weights)
    assert of(folder)["models"] != before["models"]


def test_without_a_state_folder_hashes_are_computed(folder, tmp_path, monkeypatch):
    before = of(folder)
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / "file" / "state"))
    assert of(folder) == before


def test_a_certificate_of_the_form_before_is_compared_by_that_form(folder):
    here = of(folder)
    old = {"models": here["before"]["models"], "templates": here["before"]["templates"]}
    made = Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, fingerprints=old)
    assert state_of(made, here) == "valid"
    assert state_of(replace(made, fingerprints={**old, "models": {"small": "x"}}), here) == "stale"
    assert state_of(replace(made, fingerprints=to_record(here)), here) == "valid"
    assert "before" not in to_record(here)
    (folder / "config.json").write_text("{}")
    assert state_of(made, of(folder)) == "stale"


def test_another_version_of_the_engine_makes_a_certificate_stale_where_both_are_known(folder, monkeypatch):
    here = {**of(folder), "engines": {"small": "vllm 0.29.0"}}
    made = Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, fingerprints=to_record(here))
    assert state_of(made, here) == "valid"
    assert state_of(made, {**here, "engines": {"small": "vllm 0.30.0"}}) == "stale"
    assert "engine versions" in why_stale(made, {**here, "engines": {"small": "vllm 0.30.0"}})
    assert state_of(made, {k: v for k, v in here.items() if k != "engines"}) == "valid"


def test_a_certificate_that_knows_no_models_is_never_valid_on_a_ladder(folder):
    made = Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, fingerprints={"sampling": {"temperature": 0.0}})
    assert state_of(made, of(folder)) == "stale" and "--config" in why_stale(made, of(folder))


def test_echo_tiers_with_other_answers_are_other_tiers():
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    tier = {"name": "small", "engine": "echo", "context": 512, "price": price}
    plain, told = (ladder_fingerprints(Config.model_validate({"tiers": [tier | more]})) for more in ({}, {"answers": {"a": "b"}}))
    assert plain["models"] == {"small": "echo"} and told["models"] != plain["models"]


def test_a_model_that_is_not_here_is_known_by_its_name():
    assert of("org/model") != of("org/other")


def test_the_shipped_ladder_is_the_one_its_certificates_were_made_for():
    config = load_config("pocket")
    promises = Promises(load_artefact(config), config.escalation, ladder_fingerprints(config))
    assert promises.states == dict.fromkeys(("cheap", "balanced", "quality"), "valid")
