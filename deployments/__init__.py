"""The top floor: it does what the floors below decide and guess. A room may import the rooms below it, in the order that the
contracts in pyproject.toml give. No file of `router` or `classifiers` may know this package.
"""

APP = "stepdown"
"""the application's name in Ray Serve"""
OWN_PROBE = "stepdown-serve"
"""the User-Agent by which `stepdown serve` asks for the health of what it started: nobody else has to be told when that stops"""
