"""HTTP, and one request from its body to its answer and its ledger row.

A stream's first byte is decided here: `plain_call` passes a plain call's events on as they come, and `held_answer` holds a
flow's stream back until `flow_driver` is told that the client gets it. May import every room of deployments but `app`, `serve`
and `cli`. Must never know how a replica is started, nor vLLM.
"""
