"""The cost of calls, pure: token prices, a replica's busy time split among its calls, held time attributed to its users,
and the estimate of what the top tier alone would have cost.

May import the settings, the trace rows and `router.types`. Must never know how calls are decided, limited or sent, nor
where figures are stored: it gets rows and returns numbers.
"""
