"""The top floor: it does what the floors below decide and guess. Rooms, from the bottom: `lane`, `pocket` and the ground files;
`ledger` and `replicas`; `costs`, `monitoring`, `keys` and `tiers`; `traffic`; `endpoint`; `app`; `serve`; `cli`. A room may
import those below it. No room of `router` or `classifiers` may know this package. The contracts are in pyproject.toml.
"""

APP = "stepdown"
"""the application's name in Ray Serve"""
