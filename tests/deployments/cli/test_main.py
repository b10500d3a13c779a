import subprocess
import sys

import pytest
from click.testing import CliRunner

from deployments.cli.main import COMMANDS, claimed_elsewhere, main
from router.config import SHIPPED


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output


def test_check_says_what_is_wrong_without_a_trace(tmp_path):
    assert CliRunner().invoke(main, ["check", "pocket"]).exit_code == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text("tiers: 7\n")
    result = CliRunner().invoke(main, ["check", str(bad)])
    assert result.exit_code == 2 and "bad.yaml: tiers" in result.output


def test_an_artefact_for_another_ladder_stops_the_start(tmp_path):
    text = (SHIPPED / "pocket.yaml").read_text().replace("../pocket", str(SHIPPED.parent / "pocket"))
    file = tmp_path / "x.yaml"
    file.write_text(text.replace("name: small", "name: tiny"))
    result = CliRunner().invoke(main, ["check", str(file)])
    assert result.exit_code == 2 and "trained for tiers" in result.output and "tiny" in result.output


@pytest.mark.slow
def test_the_bench_of_a_decision_prints_one_json_line():
    assert '"p50_ms"' in CliRunner().invoke(main, ["bench", "decide", "--n", "5"]).output


@pytest.mark.parametrize("file", ["router/__init__.py", "router.py"])
def test_another_package_with_a_module_of_that_name_is_named(tmp_path, monkeypatch, file):
    assert claimed_elsewhere() is None
    record = tmp_path / "roundabout-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: roundabout\nVersion: 1.0\n")
    (record / "RECORD").write_text(f"roundabout/router.py,,\n{file},,\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = CliRunner().invoke(main, ["classifiers"])
    assert result.exit_code == 1 and "'roundabout' also has a module named router" in result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (["--help"], ["ray", "sklearn", "torch", "vllm"]),
        (["keys", "list"], ["ray", "sklearn", "torch", "vllm"]),
        (["check", "pocket"], ["ray", "torch", "vllm"]),  # its router is an artefact of scikit-learn's
    ],
)
def test_a_command_loads_nothing_that_takes_seconds_and_that_it_does_not_need(words, unneeded):
    code = f"""if True:
        import sys
        from click.testing import CliRunner
        from deployments.cli.main import main
        assert CliRunner().invoke(main, {words}).exit_code == 0
        print(*set({unneeded}) & set(sys.modules))"""
    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
