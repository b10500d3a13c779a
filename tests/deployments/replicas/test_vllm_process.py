"""Which engines keep their model in their own process."""

from types import SimpleNamespace

import pytest

from deployments.replicas.vllm_process import in_one_process, needs_no_worker

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def parallel(executor: str = "mp", processes: int = 1) -> SimpleNamespace:
    return SimpleNamespace(distributed_executor_backend=executor, world_size_across_dp=processes)


@pytest.mark.parametrize(
    ("config", "environment", "alone"),
    [
        (parallel(), ONE_THREAD, True),
        (parallel(), {"OMP_NUM_THREADS": "8"}, False),  # vLLM binds them to cores, in a worker
        (parallel(), {}, False),
        (parallel(processes=2), ONE_THREAD, False),
        (parallel("ray"), ONE_THREAD, False),  # on accelerators Ray places the workers
    ],
)
def test_only_an_engine_on_one_thread_needs_no_worker(config, environment, alone):
    assert needs_no_worker(config, environment) is alone


@pytest.mark.parametrize(("threads", "executor"), [("1", "uni"), ("2", "mp")])
def test_the_engine_of_ray_is_told_before_it_starts(threads, executor, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)

    class Engine:
        def _prepare_engine_config(self, context):
            return "arguments", "frontend", SimpleNamespace(parallel_config=parallel())

    arguments, frontend, config = in_one_process(Engine)()._prepare_engine_config(None)
    assert (arguments, frontend) == ("arguments", "frontend")
    assert config.parallel_config.distributed_executor_backend == executor


@pytest.mark.ray  # importing it takes half a minute
def test_ray_still_has_what_is_replaced():
    """A newer Ray that prepares its engines otherwise would quietly start the worker again."""
    from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
    from ray.serve.llm.deployment import LLMServer

    assert callable(VLLMEngine._prepare_engine_config) and callable(LLMServer._get_default_engine_class)
