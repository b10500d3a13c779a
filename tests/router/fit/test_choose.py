"""Which ladder five machines get, and what is refused with which numbers."""

import pytest

from router.errors import BadInput, DoesNotFit
from router.fit.choose import Wish, chosen, engines, named
from router.fit.families import known
from router.fit.machine import GIB, parsed
from router.fit.written import names

MACHINES = ("1x24GB", "2x80GB", "8x80GB", "cpu:32GB", "1x8GB")


def ladder(text, *sources, windows=None, context=None):
    machine = parsed(text)
    wish = Wish(windows or (1.0 if sources else 4.0), context or machine.context)
    models = [known().named(source) for source in sources]
    return named(machine, models, wish) if models else chosen(machine, known().chosen_on(machine.kind), wish)


@pytest.mark.parametrize(
    "machine, models",
    [
        ("1x24GB", ["gpt-oss-20b"]),
        ("2x80GB", ["Qwen3.5-2B", "gpt-oss-120b"]),
        ("8x80GB", ["gpt-oss-120b", "Qwen3.5-397B-A17B"]),
        ("cpu:32GB", ["Qwen3-8B"]),
        ("1x8GB", ["Qwen3.5-2B"]),
    ],
)
def test_a_machine_gets_the_largest_that_leaves_the_windows_and_a_smaller_one(machine, models):
    assert [each.engine.model.name for each in ladder(machine)] == models


@pytest.mark.parametrize("machine", MACHINES)
def test_every_engine_fits_its_cards_and_leaves_four_windows(machine):
    found = ladder(machine)
    used = sum((each.share or 1.0) * each.engine.cards * each.replicas for each in found)
    assert used <= max(1, parsed(machine).cards)
    for each in found:
        room = parsed(machine).usable * (each.share or 1.0)
        assert each.engine.weights + each.engine.peak + each.cache <= room
        assert each.windows >= 4


@pytest.mark.parametrize("text", MACHINES)
def test_no_larger_model_would_have_fitted(text):
    machine = parsed(text)
    wish = Wish(4.0, machine.context)
    largest = max(each.engine.model.shape.total for each in ladder(text))
    larger = [model for model in known().chosen_on(machine.kind) if model.shape.total > largest]
    tried = [engine for model in larger for engine in engines(model, machine, wish, max(1, machine.cards // 2))]
    assert [engine.checkpoint.source for engine in tried if engine.need(4) <= machine.usable] == []


@pytest.mark.parametrize(
    "machine, source, said",
    [
        ("1x24GB", "Qwen/Qwen3-32B", "Qwen/Qwen3-32B bf16 needs 61.0 + 2.5 GiB, the card has 22.1; FP8 32.0, int4 18.0"),
        ("2x80GB", "Qwen/Qwen3.5-397B-A17B-FP8", "fp8 needs 185.6 + 4.8 GiB, each of 2 cards has 73.6; int4 97.4"),
        ("8x80GB", "Qwen/Qwen3.5-397B-A17B", "bf16 needs 92.3 + 4.8 GiB, each of 8 cards has 73.6; FP8 46.4, int4 24.3"),
        ("cpu:32GB", "Qwen/Qwen3-14B", "bf16 needs 27.5 + 2.0 GiB, engines may use 25.6"),
        ("1x8GB", "Qwen/Qwen3-8B", "bf16 needs 15.3 + 2.5 GiB, the card has 7.4; FP8 8.8, int4 5.7"),
    ],
)
def test_what_does_not_fit_is_refused_with_numbers(machine, source, said):
    with pytest.raises(DoesNotFit) as raised:
        ladder(machine, source)
    assert said in str(raised.value)


def test_too_few_windows_are_refused_with_how_many_there_are():
    with pytest.raises(DoesNotFit, match=r"leaves 2\.\d\d windows of 32,768 tokens .* fewer than 4; .*--windows 2"):
        ladder("1x24GB", "Qwen/Qwen3-8B-FP8", windows=4)


def test_less_than_a_window_is_refused_with_how_much_there_is():
    with pytest.raises(DoesNotFit, match=r"leaves 0\.\d\d windows of 32,768 tokens .*; ask for shorter ones with --context"):
        ladder("1x24GB", "Qwen/Qwen3-8B")


def test_weights_that_were_not_tried_on_cpus_are_refused():
    with pytest.raises(DoesNotFit, match="Qwen/Qwen3-8B-AWQ has int4 weights, which were not tried on CPUs"):
        ladder("cpu:32GB", "Qwen/Qwen3-8B-AWQ")


def test_models_that_do_not_fit_together_are_refused():
    with pytest.raises(DoesNotFit, match=r"together they need .* GiB with 1 windows .* and there are 1 x 22\.1"):
        ladder("1x24GB", "Qwen/Qwen3-4B", "Qwen/Qwen3-1.7B")


def test_two_models_on_one_card_get_shares_of_it():
    small, large = ladder("1x80GB", "Qwen/Qwen3.5-9B", "Qwen/Qwen3.6-27B-FP8")
    if small.engine.model.name != "Qwen3.5-9B":
        small, large = large, small
    assert 0 < small.share < large.share and small.share + large.share <= 1
    assert large.cache <= 0.92 * 80 * GIB * large.share - large.engine.weights - large.engine.peak


def test_cards_that_are_left_are_replicas_of_the_model_with_the_fewest_active_parameters():
    found = ladder("8x80GB", "Qwen/Qwen3.6-35B-A3B-FP8", "Qwen/Qwen3.6-27B-FP8", "Qwen/Qwen3.5-397B-A17B-GPTQ-Int4")
    assert {each.engine.model.name: (each.engine.cards, each.replicas) for each in found} == {
        "Qwen3.6-35B-A3B": (1, 3),
        "Qwen3.6-27B": (1, 1),
        "Qwen3.5-397B-A17B": (4, 1),
    }


def test_cards_without_a_name_share_no_replica():
    with pytest.raises(DoesNotFit, match="the card has 22.1"):
        ladder("4x24GB", "Qwen/Qwen3-32B")
    assert ladder("4xA10G:24GB", "Qwen/Qwen3-32B")[0].engine.cards == 4


def test_tiers_are_named_by_their_place():
    assert [names([None] * n) for n in (1, 2, 3)] == [["large"], ["small", "large"], ["small", "medium", "large"]]


@pytest.mark.parametrize("text", ["", "24GB", "0x24GB", "1x24", "two", "1x24GB,1x80GB", "cpu:", "-1x8GB"])
def test_a_machine_that_is_written_otherwise_is_refused(text):
    if text == "24GB":
        assert parsed(text).cards == 1
        return
    with pytest.raises(BadInput, match="--gpus: found .*, expected such as 1x24GB"):
        parsed(text)
