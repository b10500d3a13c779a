"""Delegation: the largest tier splits a request, smaller tiers work on the subtasks, and one answer is made of their results.

The two flows start in `planned.delegate` (the server asks for a plan) and `tool_mode.tool_mode` (the tier calls a function).
The room may import `cascade`, `limits`, `decide`, `costs`, `request` and the files below them. It must not know HTTP, replicas,
`learn` or what chooses a flow: a flow only yields steps and is sent replies, see `types.Flow`.
"""
