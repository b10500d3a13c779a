"""The files that start clusters: Ray's own schema and preparation take them, and every tier finds a node in each."""

import json
from pathlib import Path

import pytest
import yaml

from deployments.replicas.placement import bundles
from router.config import Config, load_config

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deployments" / "cluster"
LADDER = load_config(FOLDER / "ladder.yaml")


def read(path):
    return yaml.safe_load(path.read_text())


def fits(bundle, node):
    return all(node.get(name, 0) >= amount for name, amount in bundle.items())


def marked(tier):
    """What Ray makes of a tier's bundles: `accelerator` becomes a resource too (ray.serve.llm)."""
    accelerator = {f"accelerator_type:{tier.accelerator}": 0.001} if tier.accelerator else {}
    return [bundle | accelerator for bundle in bundles(tier)]


def whole(tier):
    """All bundles of one replica together."""
    parts = marked(tier)
    return {name: sum(part[name] for part in parts) for name in parts[0]}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, [{"CPU": 1.0}]),
        ({"cpus": 0.3, "resources": {"tier-small": 0.01}}, [{"CPU": 0.3, "tier-small": 0.01}]),
        ({"accelerator": "L4"}, [{"CPU": 1.0, "GPU": 1.0}]),
        ({"accelerator": "L4", "tensor_parallel": 2, "resources": {"x": 1}}, [{"CPU": 1.0, "GPU": 1.0, "x": 1.0}] * 2),
    ],
)
def test_a_replica_reserves_what_the_tier_says(changes, expected):
    tier = {"name": "a", "engine": "vllm", "source": "x", "context": 9, "price": {"usd_per_accelerator_hour": 1}, **changes}
    assert bundles(Config.model_validate({"tiers": [tier]}).tiers[0]) == expected


@pytest.mark.parametrize(
    "resources, says",
    [
        ({"GPU": 1}, "accelerator and tensor_parallel"),
        ({"CPU": 1}, "cpus"),
        ({"x": 1.5}, "neither whole"),
        ({"x": 0}, "greater"),
        ({"x y": 1}, "pattern"),
    ],
)
def test_a_wrong_resource_says_how_to_mend_it(resources, says):
    tier = {**LADDER.tiers[0].model_dump(), "resources": resources}
    with pytest.raises(ValueError, match=says):
        Config.model_validate({"tiers": [tier]})


def prepared(path, monkeypatch):
    """As `ray up` reads it, defaults filled in. Ray ends the process where it refuses."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    config = prepare_config(read(path))
    validate_config(config)
    return config


def test_the_cloud_file_is_what_ray_up_takes(monkeypatch):
    config = prepared(ROOT / "ray_cluster.yaml", monkeypatch)
    assert config["provider"]["type"] == "aws" and config["head_node_type"] == "head"


def test_the_cloud_file_with_a_setting_of_ours_is_refused(monkeypatch, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**read(ROOT / "ray_cluster.yaml"), "tiers": []}))
    with pytest.raises(Exception, match="tiers"):
        prepared(file, monkeypatch)


def test_the_local_file_is_what_ray_up_takes(monkeypatch):
    config = prepared(FOLDER / "local.yaml", monkeypatch)
    assert config["available_node_types"]["local.cluster.node"]["min_workers"] == len(config["provider"]["worker_ips"])


def test_ray_refuses_node_types_on_machines_of_ones_own(monkeypatch, tmp_path):
    """Why local.yaml marks its machines by a file. Where this fails, Ray can do better and so can we."""
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**read(FOLDER / "local.yaml"), "available_node_types": {"a": {"resources": {}}}}))
    with pytest.raises(BaseException, match="available_node_types"):
        prepared(file, monkeypatch)


@pytest.mark.parametrize("tier", LADDER.tiers, ids=lambda t: t.name)
def test_every_tier_has_its_own_kind_of_node_in_the_cloud(tier):
    nodes = {name: node["resources"] for name, node in read(ROOT / "ray_cluster.yaml")["available_node_types"].items()}
    assert [name for name, node in nodes.items() if fits(whole(tier), node)] == [f"tier-{tier.name}"]


def groups():
    found = {}
    for group in read(FOLDER / "kuberay.yaml")["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        marks = json.loads(json.loads(group["rayStartParams"]["resources"]))  # quoted for the shell that starts ray
        found[group["groupName"]] = {"CPU": int(limits["cpu"]), "GPU": int(limits["nvidia.com/gpu"]), **marks}
    return found


@pytest.mark.parametrize("tier", LADDER.tiers, ids=lambda t: t.name)
def test_every_tier_has_its_own_group_on_kubernetes(tier):
    needed = {name: amount for name, amount in whole(tier).items() if not name.startswith("accelerator_type")}
    assert [name for name, node in groups().items() if fits(needed, node)] == [tier.name]


def test_the_ray_service_has_the_form_that_kuberay_reads():
    service = read(FOLDER / "kuberay.yaml")
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert set(service["spec"]) <= {"serveConfigV2", "rayClusterConfig"}
    cluster = service["spec"]["rayClusterConfig"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        secret = {"secretKeyRef": {"name": "stepdown", "key": "api-key"}}
        assert {"name": "STEPDOWN_API_KEY", "valueFrom": secret} in container["env"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        tier = next(t for t in LADDER.tiers if t.name == group["groupName"])
        assert group["replicas"] == tier.replicas


def test_versions_are_the_ones_we_are_built_for():
    import ray

    assert read(FOLDER / "kuberay.yaml")["spec"]["rayClusterConfig"]["rayVersion"] == ray.__version__
    assert f"rayproject/ray:{ray.__version__}-" in (FOLDER / "Dockerfile").read_text()


def test_the_serve_configuration_is_one_that_serve_reads():
    from ray.serve.schema import ServeDeploySchema

    read_by_serve = ServeDeploySchema.model_validate(yaml.safe_load(read(FOLDER / "kuberay.yaml")["spec"]["serveConfigV2"]))
    (application,) = read_by_serve.applications
    assert (application.name, application.import_path) == ("stepdown", "deployments.app:build")
    file = Path(application.args["config"])
    assert ROOT / file.relative_to("/opt/stepdown") == FOLDER / "ladder.yaml"  # where the image puts the checkout
