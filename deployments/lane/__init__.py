"""A lane: a Unix socket from the ingress straight to the one replica of a tier on the same machine, past Ray Serve's handle.

A handle chooses among replicas, queues, and crosses processes by gRPC: a quarter of the processor time of a short request. The
replica's `LaneServer` (server.py) listens; the ingress's `Lane` (client.py) asks the replica through the handle for the socket
and opens connections, each for one call at a time in the frames of frames.py. Without a lane, calls go through the handle.
May import no other room of `deployments`. Must not know tiers, replicas, Ray or vLLM.
"""
