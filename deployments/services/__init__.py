"""The services beside the ladder as the ingress sees them: a file for each engine behind the protocol of service.py, and
watched_service.py, which checks what any of them says. `deployments.app.SERVICES` joins an engine with its replicas.
May import `tiers`, whose connections and faults they share, `traffic` and the rooms below. Must not know the endpoint, keys,
costs or vLLM.
"""
