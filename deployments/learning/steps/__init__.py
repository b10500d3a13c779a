"""What one step of the flywheel does: begin a run and train its candidate, play it beside the incumbent, count what a canary did,
and change what every ingress decides by.

May import the tables of runs and bundles beside it, and router/flywheel. Must never know the flywheel, which calls it.
"""
