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


@pytest.mark.parametrize("text, said", [
    (ladder(SMALL, LARGE, more="colour: red\n"), ["colour", "no such setting", "'red'"]),
    (ladder(SMALL.replace("context: 100", "context: 0")), ["tiers.0.context", "0"]),
    (ladder("{name: small, engine: echo, context: 9, price: {}}"), ["tiers.0.price", "unknown price"]),
    (ladder("{name: s, engine: echo, context: 9, price: {usd_per_1m_input: 1}}"), ["tiers.0.price", "give both"]),
    (ladder(LARGE, SMALL), ["cheapest first", "large 2, small 1"]),
    (ladder(SMALL, SMALL), ["'small' is used twice"]),
    (ladder(TIER % ("auto", 1, 1)), ["tiers.0.name", "auto", "something else"]),
    (ladder(TIER % ("Big One", 1, 1)), ["tiers.0.name", "Big One"]),
    (ladder(SMALL.replace("echo", "magic")), ["tiers.0", "magic"]),
    ("tiers: []\n", ["tiers"]),
    ("tiers: [\n", ["not YAML"]),
    ("just words\n", ["expected settings", "str"]),
])  # fmt: skip
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
