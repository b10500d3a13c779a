"""Settings of tiers that doze: read from the file, refused where they contradict others, with what to change."""

import pytest
from pydantic import ValidationError

from router.config import VllmTier
from router.doze_settings import Card, Doze

TIER = {"name": "large", "engine": "vllm", "source": "x", "context": 9, "price": {"usd_per_accelerator_hour": 1}}
GPU = TIER | {"accelerator": "H100"}
CARD = {"group": "a", "gib": 40, "of_gib": 80}


def test_a_tier_on_a_gpu_dozes_where_its_settings_say_so():
    assert VllmTier(**GPU).doze is None and VllmTier(**GPU).card is None
    assert VllmTier(**GPU, doze={}).doze == Doze(after_s=300)
    assert VllmTier(**TIER, gpu=0.4, doze={"after_s": 60}, card=CARD).card == Card(group="a", gib=40, of_gib=80, kept_gib=1.5)
    slept = VllmTier(**GPU, replicas=0, max_replicas=1, scaling={"idle_s": 900}, doze={"after_s": 300})
    assert slept.doze and slept.sleeps


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (TIER | {"doze": {}}, "doze: found a tier on CPUs, where vLLM has no sleep mode; remove doze, or set accelerator or gpu"),
        (GPU | {"doze": {"after_s": 0.5}}, "greater than or equal to 1"),
        (GPU | {"doze": {"level": 2}}, "Extra inputs are not permitted"),
        (GPU | {"card": CARD}, "card: tiers take turns by dozing; add doze: {after_s: 300}"),
        (
            GPU | {"doze": {}, "engine_kwargs": {"enable_sleep_mode": False}},
            "enable_sleep_mode is False, expected true; remove it",
        ),
        (
            GPU | {"doze": {}, "replicas": 0, "max_replicas": 1, "scaling": {"idle_s": 300}},
            "doze.after_s: 300 s comes after scaling.idle_s: 300 s, when the replica is stopped; make it shorter",
        ),
        (GPU | {"doze": {}, "card": CARD | {"gib": 90}}, "found gib 90 of 80"),
        (GPU | {"doze": {}, "card": CARD | {"gib": 1}}, "found gib 1 of 80, kept_gib 1.5"),
        (GPU | {"doze": {}, "card": CARD | {"group": "A b"}}, "String should match pattern"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_change(settings, says):
    with pytest.raises(ValidationError) as error:
        VllmTier(**settings)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("settings", "shares"),
    [(TIER, False), (GPU, False), (TIER | {"gpu": 0.4}, True), (TIER | {"gpu": 1.0}, True), (GPU | {"doze": {}}, True)],
)
def test_who_may_have_neighbours_on_its_card_waits_its_turn(settings, shares):
    assert VllmTier(**settings).shares_a_card == shares
