"""The YAML file: every shipped ladder is fine, every mistake names file, key, what was found and how to mend it."""

import pytest

from router import config as settings
from router.config import SHIPPED, load_config
from router.errors import BadConfig

TIER = "{name: %s, engine: echo, context: 100, price: {usd_per_1m_input: %s, usd_per_1m_output: %s}}"


def ladder(*tiers: str, more: str = "") -> str:
    return "tiers:\n" + "".join(f"  - {tier}\n" for tier in tiers) + more


SMALL, LARGE = TIER % ("small", 1, 1), TIER % ("large", 2, 2)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_ladders_load_by_name(path):
    assert load_config(path.stem).names == load_config(path).names


@pytest.mark.parametrize(
    "text, said",
    [
        (ladder(SMALL, LARGE, more="colour: red\n"), ["colour", "no such setting", "'red'"]),
        (ladder(SMALL.replace("context: 100", "context: 0")), ["tiers.0.context", "0"]),
        (ladder("{name: small, engine: echo, context: 9, price: {}}"), ["tiers.0.price", "unknown price"]),
        (ladder("{name: s, engine: echo, context: 9, price: {usd_per_1m_input: 1}}"), ["tiers.0.price", "give both"]),
        (ladder(LARGE, SMALL), ["cheapest first", "large 2, small 1"]),
        (ladder(SMALL, SMALL), ["'small' is used twice"]),
        (ladder(TIER % ("auto", 1, 1)), ["tiers.0.name", "auto", "something else"]),
        (ladder(TIER % ("Big One", 1, 1)), ["tiers.0.name", "Big One"]),
        (ladder(SMALL.replace("echo", "magic")), ["tiers.0", "magic"]),
        (ladder(SMALL, more="routing: {target: best}\n"), ["routing.target", "best"]),
        (ladder(SMALL, more="escalation: {hedge_after_s: 2}\n"), ["escalation.hedge_after_s", "is now larger_after_s"]),
        ("tiers: []\n", ["tiers"]),
        ("tiers: [\n", ["not YAML"]),
        ("just words\n", ["expected settings", "str"]),
    ],
)
def test_a_mistake_says_how_to_mend_it(tmp_path, text, said):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(BadConfig) as raised:
        load_config(file)
    assert str(file) in str(raised.value)
    for part in said:
        assert part in str(raised.value)


def test_a_missing_file_lists_the_shipped_ladders():
    with pytest.raises(BadConfig, match="pocket"):
        load_config("nothing_here.yaml")


def test_every_setting_is_explained():
    classes = [c for c in vars(settings).values() if isinstance(c, type) and issubclass(c, settings.Settings)]
    silent = [f"{c.__name__}.{n}" for c in classes for n, f in c.model_fields.items() if not f.description]
    assert silent == []


def test_paths_are_taken_from_the_files_place():
    pocket = load_config("pocket")
    assert pocket.tiers[0].source.endswith("/deployments/pocket/models/small")
    assert pocket.routing.artefact.endswith("/deployments/pocket/router")


PRICE = "{usd_per_1m_input: 1, usd_per_1m_output: 1}"
TYPES = [c for c in vars(settings).values() if isinstance(c, type) and issubclass(c, settings.Settings)]


def vllm(name: str, source: str, price: str = PRICE, more: str = "") -> str:
    return f"{{name: {name}, engine: vllm, source: {source}, context: 9, price: {price}{more}}}"


def mistakes(folder, text: str) -> list[str]:
    """What load_config says of a file with this text, by line."""
    file = folder / "mine.yaml"
    file.write_text(text)
    with pytest.raises(BadConfig) as raised:
        load_config(file)
    lines = str(raised.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return lines


@pytest.mark.parametrize("name, gpus", [("pc", 0), ("one_gpu", 1), ("two_gpus", 2), ("eight_gpus", 8)])
def test_a_shipped_ladder_needs_no_more_gpus_than_its_name_says(name, gpus):
    assert sum(tier.accelerators * tier.replicas for tier in load_config(name).tiers) <= gpus


@pytest.mark.parametrize(
    "text, said",
    [
        (ladder(SMALL, more="server: {prot: 80}\n"), ["server.prot:", "no such setting", "found 80"]),
        (ladder(SMALL, more="server: {port: 0}\n"), ["server.port:", "greater than or equal to 1", "found 0"]),
        (ladder(SMALL.replace("context", "size: 7, context")), ["tiers.0.size:", "no such setting", "found 7"]),
        (ladder(TIER % ("small", -1, 1)), ["tiers.0.price.usd_per_1m_input:", "found -1"]),
        (ladder(SMALL, vllm("gpu", "a/b", "{usd_per_accelerator_hour: 1}")), ["cannot be compared", "give all tiers"]),
        (ladder(TIER % ("'auto:fast'", 1, 1)), ["tiers.0.name:", "'auto:fast'"]),
        ("", ["expected settings (tiers: ...)", "NoneType"]),
    ],
)
def test_a_mistake_names_file_key_and_finding(tmp_path, text, said):
    (line,) = mistakes(tmp_path, text)
    assert [part for part in said if part not in line] == []


def test_all_mistakes_are_listed_at_once(tmp_path):
    assert len(mistakes(tmp_path, ladder(SMALL.replace("100", "0"), LARGE.replace("100", "-1")))) == 2


def test_bytes_that_are_not_text_are_not_yaml(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadConfig, match="not YAML"):
        load_config(tmp_path / "mine.yaml")


def test_an_hour_of_a_replica_counts_all_its_accelerators(tmp_path):
    hour = "{usd_per_accelerator_hour: 2}"
    narrow = vllm("narrow", "a/b", hour, ", accelerator: H100")
    wide = vllm("wide", "a/b", hour, ", accelerator: H100, tensor_parallel: 4")
    (line,) = mistakes(tmp_path, ladder(wide, narrow))
    assert "wide 8, narrow 2" in line


def test_a_hub_id_is_no_path(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(ladder(vllm("hub", "Qwen/Qwen3-4B"), vllm("folder", "./mine")))
    assert [t.source for t in load_config(file).tiers] == ["Qwen/Qwen3-4B", str((tmp_path / "mine").resolve())]


@pytest.mark.parametrize("kind", TYPES, ids=lambda c: c.__name__)
def test_settings_are_frozen_and_closed(kind):
    assert kind.model_config["frozen"] and kind.model_config["extra"] == "forbid"


def test_an_infinite_price_is_no_price(tmp_path):
    mistakes(tmp_path, ladder(TIER % ("small", ".inf", ".inf")))


@pytest.mark.parametrize("target", ["1.5", "-0.1"])
def test_a_target_outside_0_to_1_is_a_mistake_of_the_file(tmp_path, target):
    mistakes(tmp_path, ladder(SMALL, more=f"routing: {{target: {target}}}\n"))
