"""stepdown fit: five machines, each with a file that passes the check; the shipped ladders are what it makes."""

import shlex

import pytest
from click.testing import CliRunner

from deployments.cli.main import main
from deployments.tiers.check import check
from router.config import SHIPPED, load_config

MACHINES = ("1x24GB", "2x80GB", "8x80GB", "cpu:32GB", "1x8GB")
MADE = ("one_gpu", "two_gpus", "eight_gpus", "pc")


def run(*words):
    return CliRunner().invoke(main, ["fit", *words])


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_a_machines_ladder_passes_the_check(machine, tmp_path):
    file = tmp_path / "ladder.yaml"
    done = run("--gpus", machine, "-o", str(file))
    assert done.exit_code == 0, done.output
    config = load_config(file)
    check(config)
    assert [tier.effort for tier in config.tiers if tier.runs_on == "large"][0] in ("none", "low")
    assert all(tier.engine_kwargs["kv_cache_memory_bytes"] > 0 for tier in config.tiers if tier.runs_on == tier.name)
    assert "label and train" in done.output and "windows" in done.output and "apache-2.0" in done.output


@pytest.mark.parametrize(
    "machine, source",
    [
        ("1x24GB", "Qwen/Qwen3-32B"),
        ("2x80GB", "Qwen/Qwen3.5-397B-A17B-FP8"),
        ("8x80GB", "Qwen/Qwen3.5-397B-A17B"),
        ("cpu:32GB", "Qwen/Qwen3-14B"),
        ("1x8GB", "Qwen/Qwen3-8B"),
    ],
)
def test_what_does_not_fit_is_one_line_with_numbers(machine, source, tmp_path):
    done = run("--gpus", machine, source, "-o", str(tmp_path / "none.yaml"))
    assert done.exit_code == 2 and not (tmp_path / "none.yaml").exists()
    (line,) = done.output.splitlines()
    assert line.startswith(f"stepdown: {source} ") and " GiB, " in line and "needs" in line


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_shipped_ladder_is_what_its_command_makes(name, tmp_path):
    text = (SHIPPED / f"{name}.yaml").read_text()
    command = text.splitlines()[1].removeprefix("#   ")
    words = shlex.split(command)
    assert words[:2] == ["stepdown", "fit"]
    file = tmp_path / "again.yaml"
    done = run(*words[2:], "-o", str(file))
    assert done.exit_code == 0, done.output
    assert file.read_text() == text


@pytest.mark.parametrize("name", MADE)
def test_a_shipped_ladder_says_what_it_leaves(name):
    config, text = load_config(name), (SHIPPED / f"{name}.yaml").read_text()
    for tier in config.tiers:
        if tier.runs_on == tier.name:
            assert f"#   {tier.name}: " in text and f"windows of {tier.context:,}" in text
            assert tier.thinking and tier.engine_kwargs["tool_call_parser"]


def test_without_a_file_the_ladder_is_printed():
    done = run("--gpus", "1x24GB")
    assert done.exit_code == 0 and "\ntiers:\n  - name: large\n" in done.output


def test_without_a_machine_it_is_this_one(monkeypatch):
    monkeypatch.setattr("deployments.fit.found_machine.cards_listed", lambda: ["NVIDIA L4, 23034, 22900"])
    done = run()
    assert done.exit_code == 0 and done.output.startswith("1 x L4 22.49 GB")
