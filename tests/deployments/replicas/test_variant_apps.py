"""The applications of learned weights: their names say what they are, and Serve's details how they are."""

import asyncio

import pytest

from deployments.replicas import variant_apps
from deployments.replicas.replica_count import ReplicaCounts
from deployments.replicas.variant_apps import AppState, app_of, apps, deployment_of, replicas_beside, tier_of_app
from router.flywheel.variants import Version

DIGEST = "3f2a9c41e0d2" + "7" * 52


def details(status="RUNNING", replicas=("RUNNING",), message=""):
    deployments = {"variant-3f2a9c41e0d2-small": {"replicas": [{"state": state} for state in replicas], "message": message}}
    found = {"status": status, "message": "", "deployments": deployments}
    own = {"status": "RUNNING", "deployments": {"tier-small": {"replicas": [{"state": "RUNNING"}]}}}
    return {"applications": {"stepdown": own, "stepdown-small-3f2a9c41e0d2": found, "somebodys": own}}


@pytest.mark.parametrize("tier", ["small", "small-2", "a.b_c", "configured", "x-3f2a9c41e0d2"])
def test_a_name_says_whose_application_it_is(tier):
    for version in (Version(tier, DIGEST), Version(tier)):
        assert tier_of_app(app_of(version)) == tier
    assert app_of(Version("small", DIGEST)) == "stepdown-small-3f2a9c41e0d2"
    assert deployment_of(Version("a.b", DIGEST)) == "variant-3f2a9c41e0d2-a_b"  # as Ray makes it of the prefix and the tier


@pytest.mark.parametrize(
    "app", ["stepdown", "stepdown-small", "stepdown-small-3f2a", "somebodys", "stepdown-small-configured-2", ""]
)
def test_other_applications_are_nobodys(app):
    assert tier_of_app(app) is None


def test_serves_details_are_read_for_these_applications_alone():
    assert apps(details) == {"stepdown-small-3f2a9c41e0d2": AppState("RUNNING", 1)}
    starting = apps(lambda: details("DEPLOYING", ("STARTING", "STOPPING")))
    assert starting["stepdown-small-3f2a9c41e0d2"] == AppState("DEPLOYING", 0)
    failed = apps(lambda: details("DEPLOY_FAILED", (), "no room"))
    assert failed["stepdown-small-3f2a9c41e0d2"] == AppState("DEPLOY_FAILED", 0, "no room")


def test_without_ray_there_are_none_and_none_is_started():
    assert not variant_apps.ray.is_initialized() and apps() == {} and not variant_apps.ray.is_initialized()


def test_replicas_beside_the_main_application_are_counted_for_their_tier():
    counts = ReplicaCounts(lambda: details(replicas=("RUNNING", "RUNNING", "STARTING")))
    assert asyncio.run(replicas_beside("small", counts)) == 2 and asyncio.run(replicas_beside("large", counts)) == 0
