"""A certificate's fingerprints: the same for the same ladder, another for any change that changes answers."""

import shutil
from pathlib import Path

import pytest

from deployments.pocket import tasks
from deployments.tiers.fingerprints import ladder_fingerprints
from router.config import Config, load_config
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


def test_a_model_that_is_not_here_is_known_by_its_name():
    assert of("org/model") != of("org/other")


def test_the_shipped_ladder_is_the_one_its_certificates_were_made_for():
    config = load_config("pocket")
    promises = Promises(load_artefact(config), config.escalation, ladder_fingerprints(config))
    assert promises.states == dict.fromkeys(("cheap", "balanced", "quality"), "valid")
