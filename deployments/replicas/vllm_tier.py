"""Replicas of a tier on vLLM through ray.serve.llm. Only this file and vllm_service.py import either, and only where a tier or a
service needs it.
"""

import json
import logging
from asyncio import timeout
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from functools import cached_property, partial
from pathlib import Path as FilePath
from typing import Any

from ray import serve
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from vllm.exceptions import VLLMError
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager

from deployments.ids import CURRENT
from deployments.lane.frames import Item
from deployments.lane.server import LaneServer
from deployments.replicas import thought_checks
from deployments.replicas.abilities import TRY_S, one_token, tried
from deployments.replicas.adapter_files import Adapter, engine_options, places
from deployments.replicas.adapters import Adapters
from deployments.replicas.card.dozer import Dozer
from deployments.replicas.card.starting import awake, in_turn, started_dozer, woken
from deployments.replicas.event_batches import batched
from deployments.replicas.lanes.both_ends import lane_server
from deployments.replicas.lanes.serve_replicas import LANE
from deployments.replicas.meter import MeteredCall, ReplicaMeter
from deployments.replicas.placement import DRAIN_LOOK_S, LOGS, PREFIX, bundles, choice_of, memory_share, replicas_of
from deployments.replicas.reasoning_parsers import check_known
from deployments.replicas.replica_health import FailureStreak
from deployments.replicas.replica_log import write_to_file
from deployments.replicas.request_faults import ODD, Refusal, refused, told_apart, with_refusals
from deployments.replicas.resuming.going_on import SEAM, Asked
from deployments.replicas.resuming.vllm_going_on import GoingOnEngine
from deployments.replicas.vllm_adapters import VllmRegistry
from deployments.replicas.vllm_process import in_one_process
from router import config
from router.decide.abilities import broken_promises
from router.doze_settings import SLEEP_MODE
from router.engine_settings import VllmReplicas
from router.errors import BadConfig
from router.request.own_body import with_own
from router.service_settings import VllmService
from router.types import Path

log = logging.getLogger("stepdown")
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
    those that are loaded while it runs; empty: none can be. rungs: those without an adapter. Raises BadConfig.
    """

    rungs: Sequence[config.SharedTier] = ()
    configured: Sequence[Adapter] = ()
    """the adapters that it has from its start"""
    adapters: Adapters | None = None
    """all that are loaded; None: it was started without room for any"""
    dozer: Dozer | None = None
    """None: it never dozes"""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        llm_config: LLMConfig,
        tier: config.VllmTier | None = None,
        adapters: Sequence[Adapter] = (),
        board: str = "",
        rungs: Sequence[config.SharedTier] = (),
    ) -> None:
        write_to_file()
        if tier:
            check_parser(tier.name, tier.engine_kwargs)
            check_reasoning_parser(tier)
        self.tier, self.configured, self.board, self.rungs = tier, adapters, board, rungs
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
        return lane_server(self.openai, self.meter.replica, self.settings)

    @property
    def settings(self) -> VllmReplicas | None:
        """Of what it serves; None: they are not known."""
        return self.tier

    async def record_replica_metadata(self) -> dict[str, Any]:
        """Serve asks once, when the replica is ready, and tells every handle."""
        return {LANE: self.lane_server.address.told()}

    async def __del__(self) -> None:
        """Serve awaits it when the calls that came through handles have ended."""
        await self.lane_server.close()
        if self.dozer:
            await self.dozer.close()
        await super().__del__()

    async def start(self) -> None:
        """Start the engine, load adapters, then try what it can do: Serve calls the replica ready after this.

        Raises BadConfig where it cannot do what the settings promise, or an adapter is not there.
        """
        card = self.tier.card if self.tier else None
        async with in_turn(self._llm_config.model_id, self.shares_card, card, lambda: self.meter.replica) as place:
            await self.start_engine()
            token = partial(one_token, self._llm_config.model_id, self.try_as_asked, self.found)
            engine: Any = self.engine  # Ray's annotation allows for none
            self.dozer = started_dozer(self.tier, place, engine, token)
        await self.lane_server.start()

    @property
    def shares_card(self) -> bool:
        """Whether other engines may take memory of its GPU, or give it back."""
        return self.tier is not None and self.tier.shares_a_card

    async def start_engine(self) -> None:
        """Start the engine, load adapters, and try what it can do. Raises BadConfig."""
        await super().start()  # type: ignore[no-untyped-call]  # Ray's method has no annotations
        for serving in (getattr(self.engine, name, None) for name in SERVINGS):
            if serving is not None:
                serving.create_error_response = told_apart(serving.create_error_response)
                serving.engine_client = GoingOnEngine(serving.engine_client)
        write_to_file(again=True)
        if self.configured:
            board = FilePath(self.board) if self.board else None
            most = places(self._llm_config.engine_kwargs, on_cpu=not self._llm_config.accelerator_type)
            self.adapters = Adapters(self._llm_config.model_id, VllmRegistry(self.engine), self.try_once, board, most)
            await self.adapters.start(self.configured)
        await self.look()

    async def look(self) -> None:
        """Find out what the engine can do. Raises BadConfig where that is not what the settings promise."""
        if self.tier:
            check_window(self.tier, self.engine)
        self.found = await tried(self._llm_config.model_id, self.try_as_asked)
        if self.tier and (broken := broken_promises(self.tier, self.found)):
            raise BadConfig(broken)
        if self.tier and not self.found.get("chat"):
            await thought_checks.look([self.tier, *self.rungs], self.answer_once)

    def try_as_asked(self, path: Path, body: dict[str, Any]) -> AsyncGenerator[Any]:
        """The same for a request with the tier's own fields, as clients' requests get them."""
        return self.try_once(path, with_own(body, self.tier.body) if self.tier and self.tier.body else body)

    def try_once(self, path: Path, body: dict[str, Any]) -> AsyncGenerator[Any]:
        """The engine's answers to a request of our own, or its refusal."""
        kind, method = REQUESTS[path]
        request = kind.model_validate(body)
        return with_refusals(self.ask(method, request), request)

    async def dozing(self) -> tuple[str, str]:
        """This replica, and whether it is awake, dozing or waking."""
        return self.meter.replica, self.dozer.state if self.dozer else "awake"

    async def answer_once(self, body: dict[str, Any]) -> thought_checks.Heard | None:
        """What the engine answers to a chat of our own; None: nothing."""
        last = None
        try:
            async with timeout(TRY_S), aclosing(self.try_once("chat/completions", body)) as answers:
                async for answer in answers:
                    last = answer
        except Exception as error:  # noqa: BLE001 - it may still serve others; what it can do was tried before
            log.warning("whether tier %s thinks as configured is not known: %r", self._llm_config.model_id, error)
            return None
        return None if last is None or isinstance(last, Refusal) else thought_checks.heard(last.model_dump())

    async def load_adapter(self, name: str, folder: str) -> None:
        """Load one more beside the others, to be asked under this name. Raises BadConfig; then it is not loaded."""
        if self.adapters is None:
            raise BadConfig(f"{self._llm_config.model_id} was started without room for adapters; put a tier with `lora` on it")
        async with awake(self.dozer):
            await self.adapters.load(name, folder)

    async def unload_adapter(self, name: str) -> None:
        """Refuse further requests under this name. Returns when those under way are answered."""
        if self.adapters:
            async with awake(self.dozer):
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
        hint: see `router.traffic.affinity.hint_of`; only the choice of the replica reads it. path, raw: also of a call that
        tells its tokens, or goes on from those of another replica (`router.request.resuming`).
        """
        CURRENT.set(call_id.partition("/")[0])
        try:
            asked = Asked.read(path, json.loads(raw))
            kind, method = REQUESTS[asked.path]
            request = kind.model_validate(asked.body)
        except (VLLMError, *ODD) as error:
            refusal = refused(error)
            yield refusal.status, refusal.text, ""
            return
        async with AsyncExitStack() as held:
            if dozing := await woken(self.dozer, held, self.streak):
                yield dozing
                return
            SEAM.set(asked.seam)
            call = self.meter.start(call_id, raw, missed, asked.said)
            measured = self.measured(asked.told(with_refusals(self.ask(method, request), request)), call)
            held.enter_context(self.adapters.asked(request.model) if self.adapters else nullcontext())
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


def check_window(tier: config.VllmTier, engine: Any) -> None:
    """Compare the window that the engine has with the promised one. Raises BadConfig."""
    models = getattr(engine, "_oai_models", None)
    window = getattr(getattr(models, "model_config", None), "max_model_len", None)
    if isinstance(window, int) and window < tier.context:
        raise BadConfig(f"tiers.{tier.name}.context: {tier.context}, and the engine has {window}; set context to at most that")


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
    if isinstance(tier, config.VllmTier) and tier.doze:
        options = {SLEEP_MODE: True, **options}
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
    if tier.gpu:
        settings["engine_kwargs"].setdefault("gpu_memory_utilization", memory_share(tier.gpu))
    return settings


def bind(
    tier: config.VllmTier,
    drain_s: float = 30.0,
    adapters: Sequence[Adapter] = (),
    board: str = "",
    rungs: Sequence[config.SharedTier] = (),
    prefix: str = PREFIX,
) -> Any:
    """The Serve application of one tier's replicas; its handle answers `openai`.

    adapters, board, rungs: see `PlainServer`. prefix: of its deployment's name.
    """
    settings = LLMConfig(**settings_of(tier, drain_s, **engine_options(adapters, on_cpu=tier.on_cpu)))
    given = {"tier": tier, "adapters": list(adapters), "board": board, "rungs": list(rungs)}
    return build_llm_deployment(settings, deployment_cls=PlainServer, name_prefix=prefix, bind_kwargs=given)
