"""What stands before the endpoints: paths and upgrades, foreign pages, health, and the end of a server.

A request passes `paths`, `pages` and `guard` in this order; load balancers are answered by `health`. May import the files of
`endpoint` that do not answer requests. Must never know a protocol or read a body.
"""
