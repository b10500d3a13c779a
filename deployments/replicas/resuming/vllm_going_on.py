"""vLLM's engine with answers that go on from tokens which another replica made: see `router.request.resuming`.

vLLM's answering code asks its engine for the outputs of a prompt. Here it first gets those that came already, as its engine would
have made them, and then those of a second prompt: the first one and all the tokens behind it. vLLM's own detokenizer reads all of
them with the request's own stop strings, so it has the same state in every place as if nothing had happened.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

from vllm import SamplingParams
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from deployments.replicas.resuming.going_on import SEAM
from router.request.resuming import End, Seam

STATELESS = frozenset(
    "temperature top_p top_k min_p seed stop stop_token_ids ignore_eos max_tokens min_tokens repetition_penalty detokenize "
    "skip_special_tokens spaces_between_special_tokens include_stop_str_in_output output_kind stream_interval skip_clone "
    "output_text_buffer_length logit_bias allowed_token_ids skip_reading_prefix_cache thinking_token_budget".split()
)
"""sampling parameters that mean the same where the first tokens of an answer stand in the prompt, or are made to"""
KINDS = ("token", "multimodal")
"""inputs of the engine whose prompt is a list of ids that may be longer"""


class GoingOnEngine:
    """vLLM's engine client for its answering code, and nothing but it where a call begins."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **options: Any) -> AsyncGenerator[Any]:
        seam = SEAM.get()
        if seam is None:
            found: AsyncGenerator[Any] = self.engine.generate(prompt, sampling_params, request_id, **options)
            return found
        return GoingOn(self.engine, seam, prompt, sampling_params, request_id).outputs(options)


class GoingOn:
    """One answer that goes on."""

    def __init__(self, engine: Any, seam: Seam, prompt: Mapping[str, Any], params: Any, request_id: str) -> None:
        self.engine, self.seam, self.prompt, self.params, self.request_id = engine, seam, prompt, params, request_id
        self.said = [token for event in seam.said for token in event]

    async def outputs(self, options: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """Those that came already, then the new ones. Raises ValueError where the request cannot go on."""
        check(self.params, self.prompt)
        ids = self.prompt["prompt_token_ids"]
        asked: Any = SimpleNamespace(  # the four fields that vLLM reads
            request_id=self.request_id, prompt_token_ids=ids, prompt_embeds=None, sampling_params=self.params
        )
        self.text = IncrementalDetokenizer.from_new_request(self.engine.renderer.tokenizer, asked)
        left = self.params.max_tokens - len(self.said)
        end = self.seam.end or (End("length") if left <= 0 else None)
        if end is not None:
            for output in self.repeated(end, None):
                yield output
            return
        longer = {**self.prompt, "prompt_token_ids": [*ids, *self.said]}
        made = self.engine.generate(longer, rest_of(self.params, len(self.said)), self.request_id, **options)
        async with aclosing(made):
            begun = False
            async for new in made:
                if not begun:
                    begun = True
                    for output in self.repeated(None, new.num_cached_tokens):
                        yield output
                output = self.followed(new.outputs[0])
                yield output
                if output.finished:
                    return

    def repeated(self, end: Any, cached: int | None) -> list[Any]:
        """The outputs that the lost replica made. end: how the last of them ended the answer; None: it did not.

        cached: tokens of the longer prompt that this replica had read before.
        """
        made = []
        for place, tokens in enumerate(self.seam.said):
            last = end if self.seam.end and place == len(self.seam.said) - 1 else None
            by_token = last is not None and last.reason == "stop" and not isinstance(last.stop, str)
            self.text.update(list(tokens), by_token)
            reason, stop = (last.reason, last.stop) if last else (None, None)
            made.append(self.output(tokens, reason, stop, cached))
        if end and not self.seam.end:  # it came as far as it may, and the event that says so was lost
            made.append(self.output([], end.reason, end.stop, cached))
        return made

    def followed(self, new: Any) -> Any:
        """A new output of the engine, which made tokens only, with its text."""
        found = self.text.update(list(new.token_ids), new.finish_reason == "stop")
        reason, stop = ("stop", found) if found is not None else (new.finish_reason, new.stop_reason)
        return self.output(new.token_ids, reason, stop, None)

    def output(self, tokens: Any, reason: str | None, stop: Any, cached: int | None) -> Any:
        text = self.text.get_next_output_text(reason is not None, True)
        said = CompletionOutput(0, text, list(tokens), None, None, finish_reason=reason, stop_reason=stop)
        ids, read = self.prompt["prompt_token_ids"], None if cached is None else min(cached, len(self.prompt["prompt_token_ids"]))
        return RequestOutput(self.request_id, None, ids, None, [said], reason is not None, num_cached_tokens=read)


def check(params: Any, prompt: Mapping[str, Any]) -> None:
    """Raises ValueError where the request asks for what cannot go on, whatever its body called it."""
    usual = SamplingParams()
    odd = [
        name
        for name in SamplingParams.__struct_fields__
        if name not in STATELESS and not name.startswith("_") and getattr(params, name) != getattr(usual, name)
    ]
    if odd or prompt.get("type") not in KINDS or "encoder_prompt_token_ids" in prompt:
        raise ValueError(f"this stream cannot go on elsewhere: it depends on {', '.join(odd) or 'a prompt of other than tokens'}")


def rest_of(params: Any, said: int) -> Any:
    """The parameters of what is left: ids only, as its text depends on the tokens before. A seed begins anew, as another one."""
    rest = params.clone()
    rest.max_tokens, rest.min_tokens = params.max_tokens - said, max(0, params.min_tokens - said)
    rest.detokenize, rest.stop, rest.output_text_buffer_length = False, [], 0
    if params.seed is not None:
        rest.seed = (params.seed + said) % 2**63
    return rest
