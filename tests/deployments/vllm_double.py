"""A vLLM replica without a model: vLLM's output processor, detokenizer, parsers and answering code are its own.

Only the tokens are made up: those of a script, each a byte of text or a special token.
"""

import itertools
import random
import time
from types import SimpleNamespace
from typing import Any

from deployments.replicas.meter import ReplicaMeter

SPECIAL = ["<eos>", "<think>", "</think>", "<tool_call>", "</tool_call>"]
COUNTER = itertools.count(1)


def tokenizer() -> Any:
    """Every byte is a token, so that each character beyond ASCII is cut between tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {char: place for place, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")
    found.add_special_tokens({"additional_special_tokens": SPECIAL[1:3]})
    found.add_tokens(SPECIAL[3:])
    return found


class Engine:
    """Ray's engine object, vLLM's client of its engine, and the model in one. script: the answer as ids.

    seed: of the numbers of tokens that come in one step, 1 to 3 by their place. cached: tokens of each prompt that were read
    before.
    """

    def __init__(self, read: Any, script: list[int], seed: int = 0, cached: int = 3) -> None:
        self.renderer = SimpleNamespace(tokenizer=read)
        self.script, self.seed, self.cached = script, seed, cached
        self.prompts: list[list[int]] = []
        self.params: list[Any] = []
        self.stopped = 0
        """answers that were closed before their end"""

    # -- vLLM's engine client ----------------------------------------------------------------------------------------------

    async def generate(self, prompt, sampling_params, request_id, **options):
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
        from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector

        ids, params = prompt["prompt_token_ids"], sampling_params.clone()
        self.prompts.append(ids)
        self.params.append(params)
        processor = OutputProcessor(self.renderer.tokenizer, log_stats=False)
        queue = RequestOutputCollector(RequestOutputKind.DELTA, request_id)
        given = EngineCoreRequest(request_id, ids, None, params, None, 0.0, None, None, None, external_req_id=request_id)
        processor.add_request(given, None, queue=queue)
        made, done = 0, False
        try:
            while not done:
                step = []
                at = len(ids) - self.asked + made
                for _ in range(1 + (at * 7_919 + self.seed * 104_729) // 13 % 3):
                    step.append(self.script[at + len(step)])
                    made += 1
                    if (reason := self.ends(step[-1], made, params)) is not None:
                        break
                processor.process_outputs([EngineCoreOutput(request_id, step, finish_reason=reason)])
                output = queue.get_nowait()
                if output is None:
                    continue
                output.num_cached_tokens = self.cached
                done = output.finished
                yield output
        finally:
            self.stopped += not done

    def ends(self, token, made, params):
        """As vLLM's scheduler finds it."""
        from vllm.v1.engine import FinishReason

        if token == self.renderer.tokenizer.eos_token_id and not params.ignore_eos and made >= params.min_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if made >= params.max_tokens else None

    # -- Ray's engine ------------------------------------------------------------------------------------------------------

    async def chat(self, request, _):
        from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata

        read, id = self.renderer.tokenizer, f"chatcmpl-{next(COUNTER)}-{random.random()}"
        ids = read.encode("".join(str(message["content"]) for message in request.messages) + "=")
        self.asked = len(ids)
        most = request.max_completion_tokens or request.max_tokens or 500
        outputs = self.serving.engine_client.generate(
            {"type": "token", "prompt_token_ids": ids}, request.to_sampling_params(most, {}), id, priority=0
        )
        metadata = RequestResponseMetadata(request_id=id)
        given = request, outputs, id, "it", [], read, metadata
        async for event in self.serving.chat_completion_stream_generator(*given, chat_template_kwargs={}):
            yield event

    async def completions(self, request, _):
        from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata
        from vllm.utils.async_utils import merge_async_iterators

        read, id = self.renderer.tokenizer, f"cmpl-{next(COUNTER)}-{random.random()}"
        ids = read.encode(request.prompt)
        self.asked = len(ids)
        prompt = {"type": "token", "prompt_token_ids": ids, "prompt": request.prompt}
        outputs = self.completing.engine_client.generate(prompt, request.to_sampling_params(request.max_tokens, {}), id)
        metadata = RequestResponseMetadata(request_id=id)
        given = request, [prompt], merge_async_iterators(outputs), id, int(time.time()), "it", 1, read, metadata
        async for event in self.completing.completion_stream_generator(*given):
            yield event


def answering(kind: type, engine: Engine, tools: str = "", thoughts: str = "") -> Any:
    """vLLM's answering code with what its streams need."""
    from vllm.parser import ParserManager

    from deployments.replicas.resuming.vllm_going_on import GoingOnEngine

    made = object.__new__(kind)
    given = {"tool_parser_name": tools or None, "reasoning_parser_name": thoughts or None, "enable_auto_tools": bool(tools)}
    made.parser_cls = ParserManager.get_parser(**given)
    made.engine_client, made.response_role = GoingOnEngine(engine), "assistant"
    made.model_config = SimpleNamespace(is_encoder_decoder=False)
    made._include_reasoning_tokens_details = bool(thoughts)
    made.enable_prompt_tokens_details = True
    for name in ("enable_force_include_usage", "enable_log_outputs", "enable_per_request_metrics", "request_logger"):
        setattr(made, name, None)
    made.system_fingerprint = None
    return made


def replica(name: str, read: Any, script: list[int], seed: int = 0, tools: str = "", thoughts: str = "") -> Any:
    """A `PlainServer` on such an engine."""
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

    from deployments.replicas.vllm_tier import PlainServer

    made = object.__new__(type("Replica", (PlainServer,), {"__del__": lambda self: None}))
    made.engine = Engine(read, script, seed)
    made.engine.serving = answering(OpenAIServingChat, made.engine, tools, thoughts)
    made.engine.completing = answering(OpenAIServingCompletion, made.engine)
    made.__dict__["meter"] = ReplicaMeter(name)
    return made
