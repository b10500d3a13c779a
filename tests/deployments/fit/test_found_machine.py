"""This machine, from what nvidia-smi and the kernel say."""

import pytest

from deployments.fit.found_machine import found_machine, memory, of_cards, ray_name
from router.errors import BadInput

GIB = 2**30
TWO = ["NVIDIA H100 80GB HBM3, 81559, 81004", "NVIDIA H100 80GB HBM3, 81559, 40000"]


def test_of_several_cards_the_fullest_counts():
    machine = of_cards(TWO, None, None)
    assert (machine.cards, machine.name) == (2, "H100")
    assert machine.memory == 81559 * 2**20 and machine.usable == 40000 * 2**20


def test_an_empty_card_is_used_up_to_vllms_share():
    assert of_cards(TWO[:1], None, None).usable == pytest.approx(0.92 * 81559 * 2**20)


def test_cards_of_two_kinds_are_refused():
    with pytest.raises(BadInput, match="several kinds: NVIDIA H100 80GB HBM3, NVIDIA L4"):
        of_cards([TWO[0], "NVIDIA L4, 23034, 22000"], None, None)


def test_an_answer_that_is_no_number_is_refused():
    with pytest.raises(BadInput, match="expected a name and two numbers"):
        of_cards(["NVIDIA GB10, [N/A], [N/A]"], None, None)


@pytest.mark.parametrize(
    "driver, gib, name",
    [
        ("NVIDIA A100-SXM4-80GB", 80, "A100-80G"),
        ("NVIDIA A100-PCIE-40GB", 40, "A100-40G"),
        ("NVIDIA L4", 22, "L4"),
        ("NVIDIA L40S", 45, "L40S"),
        ("NVIDIA GeForce RTX 4090", 24, None),
    ],
)
def test_rays_name_is_found_in_the_drivers(driver, gib, name):
    assert ray_name(driver, gib * GIB) == name


def test_memory_is_what_is_free_now():
    assert memory("MemTotal:  32 kB\nMemFree: 1 kB\nMemAvailable:  20 kB\n") == (32 * 1024, 20 * 1024)


def test_a_kernel_that_does_not_tell_is_refused():
    with pytest.raises(BadInput, match="--gpus cpu:32GB"):
        memory("")


def test_without_cards_it_is_a_computer(monkeypatch):
    monkeypatch.setattr("deployments.fit.found_machine.cards_listed", list)
    assert found_machine(usd_hour=1.0).kind == "cpu" and found_machine(usd_hour=1.0).usd_hour == 1.0
