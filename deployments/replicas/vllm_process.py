"""Runs the model of a tier on one processor thread in its engine's own process, instead of a worker process beside it.

Ray gives every engine without an accelerator vLLM's multiprocess executor, as the worker's threads must be bound to cores before
it starts. A tier with `OMP_NUM_THREADS: "1"` has no threads to bind, so its worker only costs: a process of 1.8 GB that
imports PyTorch again while the tier starts, and keeps a core busy for a second after each step, waiting for the next.
"""

import os
from collections.abc import Mapping
from typing import Any


def needs_no_worker(parallel: Any, environment: Mapping[str, str]) -> bool:
    """parallel: vLLM's ParallelConfig. environment: the replica's."""
    multiprocess = parallel.distributed_executor_backend == "mp"  # an engine on accelerators has Ray's executor
    return multiprocess and parallel.world_size_across_dp == 1 and environment.get("OMP_NUM_THREADS") == "1"


def in_one_process(engine: type) -> type:
    """Ray's engine class, changed for engines on a processor thread only."""

    class OneProcess(engine):  # type: ignore[misc]  # the base is known at run time only
        def _prepare_engine_config(self, context: Any) -> Any:
            arguments, frontend, config = super()._prepare_engine_config(context)
            # After vLLM has checked its configuration: for a processor it would turn "uni" back into "mp".
            if needs_no_worker(config.parallel_config, os.environ):
                config.parallel_config.distributed_executor_backend = "uni"
            return arguments, frontend, config

    return OneProcess
