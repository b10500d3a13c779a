"""A tier on vLLM through ray.serve.llm: the only file that imports either, and only when a tier needs it."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any

from ray import get_runtime_context, serve
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest

from deployments.lane.frames import Shown
from deployments.lane.server import Lanes
from deployments.replicas.event_batches import gathered
from deployments.replicas.meter import Gauge, Metered
from deployments.replicas.placement import DRAIN_LOOK_S, LOGS, bundles, choice_of, replicas_of
from deployments.replicas.replica_health import Streak
from deployments.replicas.vllm_process import in_one_process
from deployments.replicas.warm_up import warm_up
from router import config
from router.types import Path

KINDS = {"chat/completions": (ChatCompletionRequest, "chat"), "completions": (CompletionRequest, "completions")}


class PlainServer(LLMServer):
    """Ray's vLLM replica, asked in plain JSON: what crosses processes needs neither vLLM nor its types to be read."""

    @cached_property
    def gauge(self) -> Gauge:
        return Gauge(serve.get_replica_context().replica_id.unique_id)

    def _get_default_engine_class(self) -> type:
        return in_one_process(super()._get_default_engine_class())

    @cached_property
    def streak(self) -> Streak:
        return Streak()

    @cached_property
    def lanes(self) -> Lanes:
        return Lanes(self.openai, self.gauge.replica)

    async def lane(self) -> tuple[str, str]:
        """This machine, and where on it calls that need no choice of a replica may come straight; empty: nowhere."""
        return get_runtime_context().get_node_id(), self.lanes.path

    async def __del__(self) -> None:
        """Serve awaits it when the calls that came by handles have ended."""
        await self.lanes.close()
        await super().__del__()

    async def start(self) -> None:
        """The engine, and then what it does slowly the first time: after this Serve says that the replica is ready."""
        await super().start()
        await warm_up(self._llm_config.model_id, lambda body: self.engine.chat(ChatCompletionRequest.model_validate(body), None))
        await self.lanes.start()

    async def check_health(self) -> None:
        """Serve asks. Raises where the engine says that it is dead, and where it has failed several times in a row."""
        self.streak.check()
        await super().check_health()

    async def awake(self) -> bool:
        """For who waits until a replica is there."""
        return True

    async def openai(
        self, path: Path, raw: str, call_id: str = "", missed: Sequence[str] = (), hint: str = ""
    ) -> AsyncGenerator[Shown]:
        """Yield (status, text, reading): one JSON document, or the events of a stream.

        reading: JSON of `gauge.Metered.last` with the last item, empty before. call_id: under which the measurement of a
        call that is cut off is told with a later one; empty: it is not told. missed: see `gauge.Gauge.start`.
        hint: see `router.affinity.hint_of`; for the choice of the replica alone.
        """
        kind, method = KINDS[path]
        try:
            request = kind.model_validate(json.loads(raw))
        except ValueError as error:  # pydantic's ValidationError is one
            yield 400, json.dumps({"error": fault(error)}), ""
            return
        metered = self.gauge.start(call_id, raw, missed)
        shown = self.shown(getattr(self.engine, method)(request, None), metered)
        async with aclosing(gathered(shown) if request.stream else shown) as items:
            async for item in items:
                yield item

    async def shown(self, items: AsyncGenerator[Any], metered: Metered) -> AsyncGenerator[Shown]:
        """Of one call, measured."""
        whole = False
        try:
            async with aclosing(items):
                async for item in items:
                    shown = told(metered, item)
                    self.streak.note(shown[0])
                    yield shown
            whole = metered.busy_s is not None
        except Exception:
            self.streak.note(500)
            raise
        finally:
            if not whole:
                metered.cut_off()


def told(metered: Metered, item: Any) -> Shown:
    """What the engine yields, as `openai` does."""
    if isinstance(item, str):
        metered.item(item)
        return 200, item, metered.last() if item.startswith("data: [DONE]") else ""
    if hasattr(item, "error"):
        return int(item.error.code or 500), json.dumps({"error": item.error.model_dump()}), metered.last()
    return 200, item.model_dump_json(), metered.last(item.usage.model_dump() if item.usage else {})


def fault(error: ValueError) -> dict[str, Any]:
    """OpenAI's error object for a field that vLLM refuses: which one and why, without the value."""
    details = getattr(error, "errors", lambda: [])()
    first = details[0] if details else {"loc": (), "msg": str(error)}
    where = ".".join(str(part) for part in first["loc"]) or None
    message = f"{where}: {first['msg']}" if where else str(first["msg"])
    return {"message": message[:500], "type": "invalid_request_error", "param": where, "code": "invalid_request"}


def settings_of(tier: config.VllmTier, drain_s: float = 30.0) -> dict[str, Any]:
    """What Ray's `LLMConfig` is made of."""
    settings: dict[str, Any] = {
        "model_loading_config": {"model_id": tier.name, "model_source": tier.source},
        "deployment_config": {
            **replicas_of(tier),
            **choice_of(tier),
            "max_ongoing_requests": tier.max_ongoing,
            "graceful_shutdown_timeout_s": drain_s,
            "graceful_shutdown_wait_loop_s": DRAIN_LOOK_S,
            "logging_config": LOGS,
            "ray_actor_options": {"num_cpus": 0},
        },
        "engine_kwargs": {"max_model_len": tier.context, "enable_prompt_tokens_details": True, **tier.engine_kwargs},
        "placement_group_config": {"bundles": bundles(tier)},
        "runtime_env": {"env_vars": tier.env},
    }
    if tier.accelerator:
        settings["accelerator_type"] = tier.accelerator
        settings["engine_kwargs"].setdefault("tensor_parallel_size", tier.tensor_parallel)
    return settings


def bind(tier: config.VllmTier, drain_s: float = 30.0) -> Any:
    """The Serve application of one tier; its handle answers `openai`."""
    return build_llm_deployment(LLMConfig(**settings_of(tier, drain_s)), deployment_cls=PlainServer, name_prefix="tier-")
