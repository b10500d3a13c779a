"""Replicas of a tier on vLLM through ray.serve.llm. Only this file and vllm_service.py import either, and only where a tier or a
service needs it.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, nullcontext
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from ray import get_runtime_context, serve
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from vllm.exceptions import VLLMError
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager

from deployments.ids import CURRENT
from deployments.lane.frames import Item
from deployments.lane.server import LaneServer
from deployments.replicas.abilities import tried
from deployments.replicas.adapter_files import Adapter, engine_options, places
from deployments.replicas.adapters import Adapters
from deployments.replicas.event_batches import batched
from deployments.replicas.meter import MeteredCall, ReplicaMeter
from deployments.replicas.placement import DRAIN_LOOK_S, LOGS, PREFIX, bundles, choice_of, replicas_of
from deployments.replicas.reasoning_parsers import check_known
from deployments.replicas.replica_health import FailureStreak
from deployments.replicas.replica_log import write_to_file
from deployments.replicas.request_faults import ODD, Refusal, refused, told_apart, with_refusals
from deployments.replicas.vllm_adapters import VllmRegistry
from deployments.replicas.vllm_process import in_one_process
from router import config
from router.decide.abilities import broken_promises
from router.errors import BadConfig
from router.service_settings import VllmService
from router.types import Path

REQUESTS: dict[str, tuple[Any, str]] = {
    "chat/completions": (ChatCompletionRequest, "chat"),
    "completions": (CompletionRequest, "completions"),
}
"""path -> vLLM's type of the request, and the engine's method for it"""

SERVINGS = ("_oai_serving_chat", "_oai_serving_completion")
"""what Ray's engine calls vLLM's answering code, one for each path"""


class PlainServer(LLMServer):
    """Ray's vLLM replica, called in plain JSON, so that the ingress needs neither vLLM nor its types.

    tier: its settings, whose promises a start checks; None: nothing is checked. adapters: of the rungs on it. board: the file of
    those that are loaded while it runs; empty: none can be. Raises BadConfig.
    """

    configured: Sequence[Adapter] = ()
    """the adapters that it has from its start"""
    adapters: Adapters | None = None
    """all that are loaded; None: it was started without room for any"""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, llm_config: LLMConfig, tier: config.VllmTier | None = None, adapters: Sequence[Adapter] = (), board: str = ""
    ) -> None:
        write_to_file()
        if tier:
            check_parser(tier.name, tier.engine_kwargs)
            check_reasoning_parser(tier)
        self.tier, self.configured, self.board = tier, adapters, board
        self.found: dict[str, str] = {}
        await super().__init__(llm_config)

    @cached_property
    def meter(self) -> ReplicaMeter:
        return ReplicaMeter(serve.get_replica_context().replica_id.unique_id)

    def _get_default_engine_class(self) -> type:
        return in_one_process(super()._get_default_engine_class())

    @cached_property
    def streak(self) -> FailureStreak:
        return FailureStreak()

    @cached_property
    def lane_server(self) -> LaneServer:
        return LaneServer(self.openai, self.meter.replica)

    async def lane(self) -> tuple[str, str]:
        """This machine, and the path of the socket on it for calls that need no choice of a replica; empty: there is none."""
        return get_runtime_context().get_node_id(), self.lane_server.path

    async def __del__(self) -> None:
        """Serve awaits it when the calls that came through handles have ended."""
        await self.lane_server.close()
        await super().__del__()

    async def start(self) -> None:
        """Start the engine, load adapters, then try what it can do: Serve calls the replica ready after this.

        Raises BadConfig where it cannot do what the settings promise, or an adapter is not there.
        """
        await super().start()  # type: ignore[no-untyped-call]  # Ray's method has no annotations
        for serving in (getattr(self.engine, name, None) for name in SERVINGS):
            if serving is not None:
                serving.create_error_response = told_apart(serving.create_error_response)
        write_to_file(again=True)
        if self.configured:
            board = FilePath(self.board) if self.board else None
            most = places(self._llm_config.engine_kwargs, on_cpu=not self._llm_config.accelerator_type)
            self.adapters = Adapters(self._llm_config.model_id, VllmRegistry(self.engine), self.try_once, board, most)
            await self.adapters.start(self.configured)
        await self.look()
        await self.lane_server.start()

    async def look(self) -> None:
        """Find out what the engine can do. Raises BadConfig where that is not what the settings promise."""
        self.found = await tried(self._llm_config.model_id, self.try_once)
        if self.tier and (broken := broken_promises(self.tier, self.found)):
            raise BadConfig(broken)

    def try_once(self, path: Path, body: dict[str, Any]) -> AsyncGenerator[Any]:
        """The engine's answers to a request of our own, or its refusal."""
        kind, method = REQUESTS[path]
        request = kind.model_validate(body)
        return with_refusals(self.ask(method, request), request)

    async def load_adapter(self, name: str, folder: str) -> None:
        """Load one more beside the others, to be asked under this name. Raises BadConfig; then it is not loaded."""
        if self.adapters is None:
            raise BadConfig(f"{self._llm_config.model_id} was started without room for adapters; put a tier with `lora` on it")
        await self.adapters.load(name, folder)

    async def unload_adapter(self, name: str) -> None:
        """Refuse further requests under this name. Returns when those under way are answered."""
        if self.adapters:
            await self.adapters.unload(name)

    async def loaded_adapters(self) -> list[str]:
        """Their names."""
        return list(self.adapters.folders) if self.adapters else []

    async def abilities(self) -> dict[str, str]:
        """See `deployments.replicas.abilities.tried`."""
        return self.found

    def ask(self, method: str, request: Any) -> AsyncGenerator[Any]:
        """Ray's engine type declares coroutines; its methods are asynchronous generators."""
        items: AsyncGenerator[Any] = getattr(self.engine, method)(request, None)
        return items

    async def check_health(self) -> None:
        """Serve's health check. Raises if the engine says that it is dead, or has failed several times in a row."""
        self.streak.check()
        if self.adapters:
            self.adapters.look()
        await super().check_health()

    async def awake(self) -> bool:
        """Returns as soon as a replica is there."""
        return True

    async def openai(
        self, path: str, raw: str, call_id: str = "", missed: Sequence[str] = (), hint: str = ""
    ) -> AsyncGenerator[Item]:
        """Yield (status, text, measurement): one JSON document, or the events of a stream.

        measurement: JSON of `MeteredCall.last` with the last item, empty before. call_id: the name under which a later call
        reports the measurement of this one if it is cut off; empty: it is not reported. missed: see `ReplicaMeter.start`.
        hint: see `router.traffic.affinity.hint_of`; only the choice of the replica reads it.
        """
        CURRENT.set(call_id.partition("/")[0])
        kind, method = REQUESTS[path]
        try:
            request = kind.model_validate(json.loads(raw))
        except (VLLMError, *ODD) as error:
            refusal = refused(error)
            yield refusal.status, refusal.text, ""
            return
        call = self.meter.start(call_id, raw, missed)
        measured = self.measured(with_refusals(self.ask(method, request), request), call)
        asked = self.adapters.asked(request.model) if self.adapters else nullcontext()
        with asked:
            async with aclosing(batched(measured) if request.stream else measured) as items:
                async for item in items:
                    yield item

    async def measured(self, answers: AsyncGenerator[Any], call: MeteredCall) -> AsyncGenerator[Item]:
        """The engine's answers as items, while the call is measured and failures are counted."""
        whole = False
        try:
            async with aclosing(answers):
                async for answer in answers:
                    item = item_of(call, answer)
                    self.streak.note(item[0])
                    yield item
            whole = call.busy_s is not None
        except Exception:
            self.streak.note(500)
            raise
        finally:
            if not whole:
                call.cut_off()


def check_parser(tier: str, options: Mapping[str, Any]) -> None:
    """Find an unknown tool parser before the model is loaded; vLLM finds it afterwards. Raises BadConfig."""
    given = options.get("tool_call_parser")
    known = ToolParserManager.list_registered()
    if given and options.get("enable_auto_tool_choice") and given not in known:
        raise BadConfig(
            f"tiers.{tier}.engine_kwargs.tool_call_parser: found {given!r}, which vLLM does not know; "
            f"expected one of {', '.join(known)}"
        )


def check_reasoning_parser(tier: config.VllmTier) -> None:
    """The same for the parser of thoughts. A plugin brings names of its own. Raises BadConfig."""
    if tier.thinking and not tier.engine_kwargs.get("reasoning_parser_plugin"):
        check_known(tier.name, tier.thinking.parser, ReasoningParserManager.list_registered())


def item_of(call: MeteredCall, answer: Any) -> Item:
    """One answer of the engine (text of a stream, an error, or a whole document) as `openai` yields it."""
    if isinstance(answer, str):
        call.item(answer)
        return 200, answer, call.last() if answer.startswith("data: [DONE]") else ""
    if isinstance(answer, Refusal):
        return answer.status, answer.text, call.last()
    return 200, answer.model_dump_json(), call.last(answer.usage.model_dump() if answer.usage else {})


def settings_of(tier: config.VllmTier | VllmService, drain_s: float = 30.0, **options: Any) -> dict[str, Any]:
    """The arguments of Ray's `LLMConfig`. options: further ones of the engine, which the settings may replace."""
    if isinstance(tier, config.VllmTier) and tier.thinking and tier.thinking.parser:
        options = {"reasoning_parser": tier.thinking.parser, **options}
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
        "engine_kwargs": {"max_model_len": tier.context, "enable_prompt_tokens_details": True, **options, **tier.engine_kwargs},
        "placement_group_config": {"bundles": bundles(tier)},
        "runtime_env": {"env_vars": tier.env},
    }
    if tier.accelerator:
        settings["accelerator_type"] = tier.accelerator
        settings["engine_kwargs"].setdefault("tensor_parallel_size", tier.tensor_parallel)
    return settings


def bind(
    tier: config.VllmTier, drain_s: float = 30.0, adapters: Sequence[Adapter] = (), board: str = "", prefix: str = PREFIX
) -> Any:
    """The Serve application of one tier's replicas; its handle answers `openai`.

    adapters, board: see `PlainServer`. prefix: of its deployment's name.
    """
    settings = LLMConfig(**settings_of(tier, drain_s, **engine_options(adapters, on_cpu=not tier.accelerator)))
    given = {"tier": tier, "adapters": list(adapters), "board": board}
    return build_llm_deployment(settings, deployment_cls=PlainServer, name_prefix=prefix, bind_kwargs=given)
