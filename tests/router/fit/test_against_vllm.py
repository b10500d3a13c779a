"""The arithmetic against vLLM's own, on models of which only config.json is there: within 5 %."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from router.fit.cache import pool
from router.fit.families import FILE
from router.fit.read_config import shape_of
from router.fit.shape import Checkpoint

pytest.importorskip("vllm")
SAYS = Path(__file__).with_name("vllm_says.py")
KV = 64 * 2**30
BLOCK = 128  # of the CPU's installation, on which vLLM is asked
ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "gpt_oss": "GptOssForCausalLM", "gemma4": "Gemma4ForConditionalGeneration"}
MORE = {"gemma4": {"vision_config": {"model_type": "gemma4_vision"}}}
ASKED = {"Qwen3-8B": 32_768, "gpt-oss-20b": 32_768, "gemma-4-31B": 32_768}
"""tokens of a window. Qwen3.5 and 3.6 do not load where torchvision is left out; their blocks are in test_cache.py"""


def configs() -> dict[str, dict]:
    """What families.yaml says of each model."""
    import yaml

    families = yaml.safe_load(FILE.read_text())["families"]
    return {model["name"]: model["config"] for family in families for model in family["models"]}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """vLLM's answers by model. One process for all, because most of the time goes into importing vLLM."""
    folder = tmp_path_factory.mktemp("models")
    cases = []
    for name, tokens in ASKED.items():
        config = configs()[name]
        kind = config["model_type"]
        whole = {**config, **MORE.get(kind, {}), "architectures": [ARCHITECTURES[kind]], "torch_dtype": "bfloat16"}
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(whole))
        sees = {"language_model_only": True} if "vision_config" in config else {}
        cases.append({"folder": str(folder / name), "kv": KV, "max_model_len": tokens, "max_num_batched_tokens": 2048, **sees})
    done = subprocess.run([sys.executable, SAYS, json.dumps(cases)], capture_output=True, text=True, timeout=3000, check=False)
    found = {line["model"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert len(found) == len(ASKED), done.stderr[-3000:]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKED)
def test_weights_and_windows_are_vllms(name, said):
    theirs = said[name]
    assert "error" not in theirs, theirs
    shape = shape_of(configs()[name], name)
    ours = pool(shape, 1, BLOCK, theirs["in_flight"])
    assert Checkpoint("").bytes_of(shape) == pytest.approx(theirs["weights"], rel=0.05)
    assert ours.bytes_of(ASKED[name]) == pytest.approx(theirs["window"], rel=0.05)
    assert ours.requests(KV, ASKED[name]) == pytest.approx(theirs["windows"], rel=0.05)
