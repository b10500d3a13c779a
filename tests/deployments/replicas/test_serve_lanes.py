"""Ray's own objects, without a Ray: what a handle knows of replicas, what scaling counts, and a replica's places."""

import asyncio
import threading
from collections import defaultdict
from types import SimpleNamespace

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RunningReplicaInfo
from ray.serve._private.replica import Replica, ReplicaMetricsManager
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve._private.router import AsyncioRouter, RouterMetricsManager
from ray.serve._private.utils import Semaphore

from deployments.lane.address import Address
from deployments.lane.places import CountedPlaces
from deployments.replicas.lanes import both_ends, serve_places
from deployments.replicas.lanes.serve_places import ServePlaces
from deployments.replicas.lanes.serve_replicas import LANE, ServeReplicas
from deployments.replicas.replica_choice import AffineRouter
from router.config import VllmTier
from router.engine_settings import Lanes

D = DeploymentID("tier-served", "stepdown")


def told(name, most=5, **metadata):
    """As Serve's controller tells handles of a replica."""
    return RunningReplicaInfo(ReplicaID(name, D), "node", "10.0.0.1", None, f"actor-{name}", most, replica_metadata=metadata)


def handle():
    """With Ray's own router and counts, which no controller tells of anything."""
    router = AsyncioRouter.__new__(AsyncioRouter)
    chooser = AffineRouter(
        D,
        DeploymentHandleSource.REPLICA,
        use_replica_queue_len_cache=True,
        create_replica_wrapper_func=lambda info: wrapped(info),
    )
    chooser.initialize_state()
    counts = RouterMetricsManager.__new__(RouterMetricsManager)
    counts._queries_lock, counts._cached_metrics_enabled = threading.Lock(), True
    counts.num_requests_sent_to_replicas = defaultdict(int)
    router._request_router, router._metrics_manager = chooser, counts
    return SimpleNamespace(_router=SimpleNamespace(_asyncio_router=router), deployment_name="tier-served"), chooser, counts


def wrapped(info):
    """Ray's own wrapper, without the actor."""
    made = RunningReplica.__new__(RunningReplica)
    made._replica_info = info
    made._multiplexed_model_ids = set()
    made.get_queue_len = none_waits
    return made


async def none_waits(deadline_s):
    return 0


def test_what_serve_tells_of_replicas_becomes_lanes_and_changes_with_it():
    async def scenario():
        served, chooser, counts = handle()
        known = ServeReplicas(served)
        assert list(known.running()) == []
        address = Address("node", "/tmp/a", "10.0.0.1", 7, "token")
        chooser._update_running_replicas([told("a", **{LANE: address.told()}), told("b", 9)])
        a, b = first = known.running()
        assert known.running() is first  # the same object while nothing changes
        assert (a.name, a.address, a.limit) == ("a", address, 5) and (b.name, b.address, b.limit) == ("b", None, 9)
        a.tell(1)
        a.tell(1)
        a.tell(-1)
        assert dict(counts.num_requests_sent_to_replicas) == {ReplicaID("a", D): 1}
        chooser._update_running_replicas([told("b", 4)])
        (b,) = known.running()
        assert b.limit == 4
        a.tell(-1)  # its last call ends after it left the list
        assert counts.num_requests_sent_to_replicas[ReplicaID("a", D)] == 0
        chooser.on_replica_actor_died(ReplicaID("b", D))
        assert list(known.running()) == []

    asyncio.run(scenario())


def test_scaling_gets_the_calls_on_lanes_in_the_report_of_the_handle():
    served, _, counts = handle()
    counts.metrics_store = SimpleNamespace(data={}, prune_keys_and_compact_data=lambda since: None)
    counts._deployment_config = SimpleNamespace(autoscaling_config=SimpleNamespace(look_back_period_s=10))
    counts._deployment_id, counts._handle_id, counts._self_actor_id = D, "h", "actor"
    counts._handle_source, counts.num_queued_requests = DeploymentHandleSource.REPLICA, 0
    known = ServeReplicas(served)
    for _ in range(3):
        known.count(ReplicaID("a", D), 1)
    running = counts._get_metrics_report().metrics["running_requests"]
    assert [series[-1].value for series in running.values()] == [3]


@pytest.mark.parametrize(
    "broken", ["_router", "_request_router", "_replicas", "_metrics_manager", "dec_num_running_requests_for_replica"]
)
def test_where_ray_is_not_as_expected_nothing_is_known_and_it_is_told_once(broken):
    parts = {"inc_num_running_requests_for_replica": 1, "dec_num_running_requests_for_replica": 1}
    parts.pop(broken, None)
    router = {"_request_router": SimpleNamespace(_replicas={}), "_metrics_manager": SimpleNamespace(**parts)}
    if broken == "_replicas":
        router["_request_router"] = SimpleNamespace()
    router.pop(broken, None)
    served = SimpleNamespace(_router=SimpleNamespace(_asyncio_router=SimpleNamespace(**router)))
    if broken == "_router":
        served = SimpleNamespace()
    said = []
    known = ServeReplicas(served, said.append)
    assert known.running() is None and known.running() is None and len(said) == 1


def test_a_handle_that_was_told_nothing_yet_knows_nothing_and_is_asked_again():
    served, chooser, _ = handle()
    served._router._asyncio_router._request_router = None
    said = []
    known = ServeReplicas(served, said.append)
    assert known.running() is None and not said
    served._router._asyncio_router._request_router = chooser
    assert list(known.running()) == []


def replica(most):
    """Ray's own replica, as far as it counts."""
    made = Replica.__new__(Replica)
    made._event_loop = asyncio.get_running_loop()
    made._deployment_config = SimpleNamespace(max_ongoing_requests=most)
    made._semaphore = Semaphore(lambda: most)
    made._reserved_slots, made._quiescing, made._num_queued_requests = set(), False, 0
    counts = ReplicaMetricsManager.__new__(ReplicaMetricsManager)
    counts._num_ongoing_requests, counts._ingress, counts._ingress_metrics = 0, False, {}
    counts._cached_metrics_enabled = True
    made._metrics_manager = counts
    return made


def test_calls_on_lanes_take_the_places_of_those_by_handle():
    async def scenario():
        made = replica(2)
        places = ServePlaces(made)
        async with places.one():
            assert places.free() and places.taken() == 1 == made.get_num_ongoing_requests()
            async with made._start_request(places.call):  # as one that came by a handle
                assert not places.free() and places.taken() == 2
            assert places.free()
        assert places.taken() == 0 and made._semaphore._value == 0
        made._quiescing = True  # it has drained and stops
        assert not places.free()

    asyncio.run(scenario())


def test_a_replica_that_is_not_as_expected_counts_calls_on_lanes_alone(monkeypatch):
    async def scenario():
        made = replica(2)
        monkeypatch.setattr(serve_places, "own_replica", lambda: made)
        assert isinstance(serve_places.places(7), ServePlaces)
        made._event_loop = None  # the model runs in another thread than Serve's loop
        found = serve_places.places(7)
        assert isinstance(found, CountedPlaces) and found.most == 7
        monkeypatch.setattr(serve_places, "own_replica", lambda: SimpleNamespace(_event_loop=asyncio.get_running_loop()))
        assert isinstance(serve_places.places(7), CountedPlaces)
        monkeypatch.setattr(serve_places, "own_replica", lambda: None)
        assert isinstance(serve_places.places(7), CountedPlaces)
        found = CountedPlaces(1)
        async with found.one():
            assert not found.free() and found.taken() == 1
        assert found.free()

    asyncio.run(scenario())


def tier(**lanes):
    price = {"usd_per_accelerator_hour": 1}
    return VllmTier.model_validate(
        {"name": "it", "engine": "vllm", "source": "nowhere", "context": 100, "price": price, "max_ongoing": 80, "lanes": lanes}
    )


def test_lanes_are_as_the_settings_say(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(both_ends, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    nodes = [{"Alive": True}]
    monkeypatch.setattr(both_ends.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(both_ends.ray.util, "get_node_ip_address", lambda: "10.0.0.1")

    async def scenario():
        served, chooser, _ = handle()
        assert both_ends.lanes_to(tier(to="none"), served) is None
        lanes = both_ends.lanes_to(tier(), served)
        assert lanes.here == "here" and lanes.context is None and chooser.rank.affinity.slack == 10
        assert chooser.rank.lanes("nobody") == 0.0
        missing = both_ends.lanes_to(tier(certificate=str(tmp_path / "no"), key="k"), served)
        assert missing.context is None and "cannot be read as a certificate" in caplog.text
        assert both_ends.lane_server(None, "r", tier()).network.host == ""  # one machine: nobody would come by TCP
        nodes.append({"Alive": True})
        assert both_ends.lane_server(None, "r", tier()).network.host == "10.0.0.1"
        assert both_ends.lane_server(None, "r", None).network.host == "10.0.0.1"
        end = both_ends.lane_server(None, "r", tier(certificate="c", key="k"))
        assert (end.network.certificate, end.network.key, end.places.most, end.machine) == ("c", "k", 80, "here")
        assert both_ends.lane_server(None, "r", tier(to="machine")).network.host == ""
        nodes[1] = {"Alive": False}
        assert both_ends.lane_server(None, "r", tier()).network.host == ""

    asyncio.run(scenario())


def test_a_certificate_needs_its_key():
    with pytest.raises(ValueError, match="named together"):
        Lanes(certificate="c")
