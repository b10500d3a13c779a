"""The two ends of lanes where Ray Serve runs: a replica's server, and an ingress's lanes to all replicas of a tier."""

import logging
import ssl
from typing import Any

import ray
from ray import get_runtime_context

from deployments.lane.lanes import Lanes
from deployments.lane.server import Answer, LaneServer, Network
from deployments.lane.sockets import asking
from deployments.replicas.lanes.serve_places import places
from deployments.replicas.lanes.serve_replicas import ServeReplicas
from deployments.replicas.placement import slack_of
from deployments.replicas.replica_rank import rank_of
from router.engine_settings import Lanes as Settings
from router.engine_settings import VllmReplicas

log = logging.getLogger("stepdown")


def lane_server(answer: Answer, name: str, settings: VllmReplicas | None) -> LaneServer:
    """The end of the lanes to this replica, which does not listen yet. settings: of what it serves."""
    most = settings.max_ongoing if settings else float("inf")
    lanes = settings.lanes if settings else Settings()
    network = network_of(lanes) if lanes.to == "cluster" else Network()
    return LaneServer(answer, name, get_runtime_context().get_node_id(), places(most), network)


def network_of(lanes: Settings) -> Network:
    """TCP where the cluster has other machines, or had some when the replica started."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's function has no annotations
    if sum(bool(node.get("Alive")) for node in nodes) < 2:
        return Network()
    host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # the same
    return Network(host, lanes.certificate or "", lanes.key or "")


def lanes_to(settings: VllmReplicas, handle: Any) -> Lanes | None:
    """The lanes of this process to the replicas behind the handle; None: all calls go by the handle."""
    if settings.lanes.to == "none":
        return None
    rank = rank_of(handle.deployment_name)
    rank.affinity.slack = slack_of(settings)
    lanes = Lanes(get_runtime_context().get_node_id(), ServeReplicas(handle).running, rank, context_of(settings.lanes))
    rank.lanes = lanes.queue
    return lanes


def context_of(lanes: Settings) -> ssl.SSLContext | None:
    """For lanes to other machines, if they are encrypted."""
    if not lanes.certificate or lanes.to != "cluster":
        return None
    try:
        return asking(lanes.certificate)
    except OSError as error:
        log.warning("no lanes to other machines: %s cannot be read as a certificate: %s", lanes.certificate, error)
        return None
