"""Lanes: straight connections from an ingress to the replicas of a tier, past Ray Serve's handle.

A handle queues, and crosses processes by gRPC: three quarters of a token's processor time in both processes. Each replica's
`LaneServer` (server.py) listens on a Unix socket, and on TCP where its cluster has several machines, and tells its `Address`. The
ingress keeps a `Lane` (client.py) to each replica that runs; `Lanes` (lanes.py) chooses among them. Connections carry one call at
a time, in the frames of frames.py. Where there is no lane, and where all replicas are full, calls go through the handle.
May import no other room of `deployments`. Must not know tiers, Ray or vLLM.
"""
