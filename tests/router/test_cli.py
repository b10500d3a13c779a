import pytest
from click.testing import CliRunner

from router.cli import COMMANDS, main
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


def test_the_bench_of_a_decision_prints_one_json_line():
    assert '"p50_ms"' in CliRunner().invoke(main, ["bench", "decide", "--n", "5"]).output
