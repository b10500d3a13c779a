"""The model of a tier on one processor thread runs in its engine's own process, not in a worker process beside it.

Ray gives every engine without an accelerator vLLM's multiprocess executor, for the worker's threads are bound to cores before
it starts. A tier that says `OMP_NUM_THREADS: "1"` has no threads to bind, and its worker is all cost: a process of 1.8 GB that
imports PyTorch again while the tier starts, and keeps a core busy for a second after each step, waiting for the next.
"""

import os
from collections.abc import Mapping
from typing import Any


def needs_no_worker(parallel: Any, environment: Mapping[str, str]) -> bool:
    """parallel: vLLM's ParallelConfig. environment: the replica's."""
    chosen = parallel.distributed_executor_backend == "mp"  # of an engine on accelerators it is Ray's
    return chosen and parallel.world_size_across_dp == 1 and environment.get("OMP_NUM_THREADS") == "1"


def in_one_process(engine: type) -> type:
    """Ray's engine class, for engines on a processor; others are as they were."""

    class OneProcess(engine):  # type: ignore[misc]
        def _prepare_engine_config(self, context: Any) -> Any:
            arguments, frontend, config = super()._prepare_engine_config(context)
            # After vLLM has checked its configuration: for a processor it would turn "uni" back into "mp".
            if needs_no_worker(config.parallel_config, os.environ):
                config.parallel_config.distributed_executor_backend = "uni"
            return arguments, frontend, config

    return OneProcess
