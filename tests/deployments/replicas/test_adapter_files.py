"""An adapter's files: what is read of them, and everything that vLLM would refuse or serve wrongly is found before it starts."""

import json
import re

import numpy as np
import pytest
from adapters_made import SMALL, changed, written

from deployments.learning.live import weights
from deployments.replicas.adapter_files import SETTINGS, TENSORS, check_host, digest_of, engine_options, places, read, room_for
from deployments.tiers.check import check
from deployments.tiers.fingerprints import ladder_fingerprints
from router.config import Config
from router.errors import BadConfig

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}


def ladder(lora, **host) -> Config:
    small = {"name": "small", "engine": "vllm", "source": str(SMALL), "context": 512, "price": PRICE, **host}
    return Config.model_validate({"tiers": [small, {"name": "mail", "on": "small", "lora": str(lora)}]})


def test_it_is_named_by_rung_and_files(tmp_path):
    adapter = read("mail", written(tmp_path / "a"), SMALL)
    assert re.fullmatch(r"mail@[0-9a-f]{12}", adapter.name) and adapter.rank == 8
    assert read("mail", written(tmp_path / "b"), SMALL).name == adapter.name
    assert read("mail", written(tmp_path / "c", seed=1), SMALL).name != adapter.name


def test_its_digest_is_that_of_the_store_of_weights_and_papers_are_no_part_of_it(tmp_path):
    folder = written(tmp_path / "a")
    before = digest_of(folder)
    (folder / "README.md").write_text("trained on a Monday")
    assert digest_of(folder) == before == weights.digest_of(folder)


@pytest.mark.parametrize(
    "settings, part",
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head'], which vLLM cannot serve"),
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"peft_type": "LOHA"}, "only LORA can be served"),
        ({"r": 513}, "expected a rank from 1 to 512"),
        ({"r": 0}, "expected a rank"),
        ({"r": "8"}, "expected a rank"),
        ({"r": 16}, "has rank 8, adapter_config.json says 16"),
    ],
)
def test_settings_that_cannot_be_served_are_refused(tmp_path, settings, part):
    with pytest.raises(BadConfig) as raised:
        read("mail", written(tmp_path / "a", **settings), SMALL)
    assert part in str(raised.value)


def bin_only(folder):
    (folder / TENSORS).rename(folder / "adapter_model.bin")


def both(folder):
    (folder / "adapter_model.bin").write_bytes(b"")


def no_settings(folder):
    (folder / SETTINGS).unlink()


def no_tensors(folder):
    (folder / TENSORS).unlink()


def broken_settings(folder):
    (folder / SETTINGS).write_text("{")


def broken_tensors(folder):
    (folder / TENSORS).write_bytes(b"\xff" * 50)


@pytest.mark.parametrize(
    "spoil, part",
    [
        (bin_only, "adapter_model.bin, which can run code"),
        (both, "adapter_model.bin, which can run code"),
        (no_settings, "adapter_config.json cannot be read"),
        (no_tensors, "has no adapter_model.safetensors"),
        (broken_settings, "is not JSON"),
        (broken_tensors, "is no safetensors file"),
    ],
)
def test_files_that_are_no_adapter_are_refused(tmp_path, spoil, part):
    folder = written(tmp_path / "a")
    spoil(folder)
    with pytest.raises(BadConfig) as raised:
        read("mail", folder, SMALL)
    assert part in str(raised.value)


def test_an_adapter_of_another_model_is_refused_by_names_and_by_sizes(tmp_path):
    right = written(tmp_path / "a")
    other = changed(right, tmp_path / "b", lambda name, values: (name.replace("layers", "blocks"), values))
    with pytest.raises(BadConfig, match=r"changes model.blocks.0.*does not have"):
        read("mail", other, SMALL)
    wider = changed(
        right, tmp_path / "c", lambda name, values: (name, np.hstack([values, values]) if "lora_A" in name else values)
    )
    with pytest.raises(BadConfig, match=r"fits a size of \d+, the base model in .* has \d+; it was trained on another model"):
        read("mail", wider, SMALL)
    assert read("mail", other).rank == 8  # without the base nothing can be compared


def test_the_engine_gets_room_for_all_and_one_more(tmp_path):
    one, two = read("mail", written(tmp_path / "a", rank=8)), read("sql", written(tmp_path / "b", rank=9))
    assert engine_options([]) == {}
    assert engine_options([one]) == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 8}
    assert engine_options([one], on_cpu=True)["max_loras"] == 3  # vLLM uses what is in the last place for the base there
    assert places({"max_loras": 3}, on_cpu=True) == 2 and places({"max_loras": 2}, on_cpu=False) is None
    assert engine_options([one, two]) == {"enable_lora": True, "max_loras": 3, "max_lora_rank": 16}
    assert [room_for([rank]) for rank in (1, 2, 8, 17, 257, 512)] == [1, 8, 8, 32, 320, 512]


@pytest.mark.parametrize("options", [{"enable_lora": False}, {"max_lora_rank": 4}, {"max_loras": 0}, {"max_cpu_loras": 0}])
def test_options_of_the_host_that_contradict_are_refused(tmp_path, options):
    adapter = read("mail", written(tmp_path / "a"))
    check_host("small", {"max_lora_rank": 8, "max_loras": 1, "max_cpu_loras": 1, "enable_lora": True}, [adapter])
    with pytest.raises(BadConfig, match=r"max_loras: found 1, but its adapters need 2"):
        check_host("small", {"max_loras": 1}, [adapter], on_cpu=True)
    with pytest.raises(BadConfig, match=rf"tiers.small.engine_kwargs.{next(iter(options))}.*remove the option"):
        check_host("small", options, [adapter])


@pytest.mark.slow
def test_check_finds_it_before_the_start(tmp_path):
    check(ladder(written(tmp_path / "a")))
    with pytest.raises(BadConfig, match="tiers.mail.lora: no folder"):
        check(ladder(tmp_path / "none"))
    with pytest.raises(BadConfig, match="tiers.mail.lora: .*modules_to_save"):
        check(ladder(written(tmp_path / "b", modules_to_save=["lm_head"])))
    with pytest.raises(BadConfig, match="tiers.small.engine_kwargs.enable_lora"):
        check(ladder(tmp_path / "a", engine_kwargs={"enable_lora": False}))


def test_a_rungs_fingerprint_is_of_its_host_and_its_adapter(tmp_path):
    folder = written(tmp_path / "a")
    first = ladder_fingerprints(ladder(folder))
    small, mail = first["models"].values()
    assert small != mail and first["templates"]["small"] == first["templates"]["mail"]
    assert ladder_fingerprints(ladder(written(tmp_path / "b"))) == first
    assert ladder_fingerprints(ladder(folder, engine_kwargs={"dtype": "float32"}))["models"]["mail"] != mail
    (folder / SETTINGS).write_text(json.dumps(json.loads((folder / SETTINGS).read_text()) | {"lora_alpha": 32}))
    again = ladder_fingerprints(ladder(folder))["models"]
    assert again["small"] == small and again["mail"] != mail
