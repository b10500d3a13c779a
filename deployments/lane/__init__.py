"""A lane: a Unix socket from the ingress straight to the one replica of a tier on the same machine, past Ray Serve's handle.

A handle chooses among replicas, queues, and crosses processes by gRPC: a quarter of the processor time of a short request.
The road of a call: the replica's `LaneServer` (server.py) listens on a socket; the ingress's `Lane` (client.py) asks the replica
through the handle for the socket's path and opens connections; each carries one call at a time in the frames of frames.py. While
there is no lane, or after it broke, calls go through the handle as those of other tiers do. May import no other room of
`deployments`. Must not know tiers, replicas, Ray or vLLM.
"""
