"""The child process that answers chats without a server: `python -m deployments.distil.offline_answers FOLDER`.

`FOLDER/spec.json` says which model (`answering.Spec`), `FOLDER/rows.jsonl` what is asked; each answer is appended to
`FOLDER/answers.jsonl`. Prompts, sampling and parsers are made by vLLM's own serving code, so an answer is what a replica would
give. Standard output has one JSON line for each progress; the process ends when its standard input does, whatever the parent
dies of.
"""

import asyncio
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from router.learn.chats import whole
from router.learn.labels.labelling import logprob_stats
from router.request.thoughts import apart, named

AT_ONCE = 256  # sequences that the engine works on together, unless the settings say otherwise
SPARE = 64  # prompts more than that are ready, so that no sequence waits for one
EVERY_S = 1.0  # between two writes
LOGPROBS = {"logprobs": True, "top_logprobs": 2}
LEAST = -9999.0  # what vLLM's server writes for a token that a grammar forbids
ENGINE_ONLY = {"distributed_executor_backend": "ray"}
"""options that only make sense on a cluster"""
Row = dict[str, Any]


class Refused(Exception):
    """The engine does not take a request; the message says why."""


class Engine:
    """vLLM's engine in this process, with the code by which it is served. spec: what `answering.Spec.as_json` gives."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.renderers.online_renderer import OnlineRenderer
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        options, serving = apart_from_serving(spec, {field.name for field in fields(EngineArgs)})
        config = EngineArgs(**options).create_engine_config(UsageContext.LLM_CLASS)
        if config.parallel_config.world_size_across_dp == 1 and os.environ.get("OMP_NUM_THREADS") == "1":
            config.parallel_config.distributed_executor_backend = "uni"  # as deployments/replicas/vllm_process.py does
        self.engine = LLMEngine.from_vllm_config(config, UsageContext.LLM_CLASS, disable_log_stats=True)
        self.model = config.model_config
        self.defaults = self.model.get_diff_sampling_param()
        self.at_once: int = config.scheduler_config.max_num_seqs
        self.greedy = bool(spec["greedy"])
        self.auto_tools = bool(serving.get("enable_auto_tool_choice"))
        self.renderer = OnlineRenderer(
            self.model,
            self.engine.renderer,
            request_logger=None,
            chat_template=template_of(serving.get("chat_template")),
            chat_template_content_format=serving.get("chat_template_content_format", "auto"),
            enable_auto_tools=self.auto_tools,
            tool_parser=serving.get("tool_call_parser"),
            reasoning_parser=options.get("reasoning_parser") or serving.get("reasoning_parser"),
            default_chat_template_kwargs=serving.get("default_chat_template_kwargs"),
        )
        self.adapter = LoRARequest("adapter", 1, spec["adapter"]) if spec["adapter"] else None
        self.loop = asyncio.new_event_loop()
        self.asked: dict[str, tuple[Row, Any]] = {}
        """id within the engine -> row and request"""
        self.count = 0

    def add(self, row: Row) -> None:
        """Raises Refused."""
        try:
            request, prompt, params = self.read(row["body"])
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
        self.count += 1
        try:
            self.engine.add_request(str(self.count), prompt, params, lora_request=self.adapter)
        except (ValueError, TypeError, NotImplementedError) as error:  # of a parameter; a broken engine raises others
            raise Refused(" ".join(str(error).split())[:300]) from error
        self.asked[str(self.count)] = (row, request)

    def read(self, given: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """The request, its prompt and its sampling parameters, as in vLLM's server. Raises Refused, and what vLLM raises."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.entrypoints.serve.utils.api_utils import get_max_tokens

        body = {**given, **LOGPROBS, "stream": False, "n": 1, **({"temperature": 0} if self.greedy else {})}
        limit = body.pop("max_completion_tokens", None) or body.pop("max_tokens", None)
        body.pop("max_tokens", None)  # a limit is cut to the room that the window has, where vLLM would refuse it
        request = ChatCompletionRequest.model_validate(body)
        made = self.loop.run_until_complete(self.renderer.render_chat(request))
        if not isinstance(made, tuple):
            raise Refused(made.error.message)
        prompt: Any = made[1][0]
        most = get_max_tokens(self.model.max_model_len, limit, len(prompt["prompt_token_ids"]), self.defaults)
        if most < 1:
            raise Refused("the window has no room for an answer")
        return request, prompt, request.to_sampling_params(most, self.defaults)

    def step(self) -> Iterator[Row]:
        """Answers that are whole now."""
        for output in self.engine.step():
            if output.finished:
                row, request = self.asked.pop(output.request_id.partition("-")[0])
                yield {"id": row["id"], "asked": row["asked"], **self.answer(row, request, output)}

    def answer(self, row: Row, request: Any, output: Any) -> Row:
        """The kept fields of one answer."""
        said = output.outputs[0]
        message, called = self.message(request, said)
        message = named(apart(message, bool(row.get("opened"))), ("reasoning",))
        logged = content_of(said, self.engine.renderer.get_tokenizer())
        signals = logprob_stats({"message": message, "logprobs": {"content": logged}})
        return {
            "message": {name: whole(value) if isinstance(value, str) else value for name, value in message.items()},
            "finish": "tool_calls" if called else str(said.finish_reason or "stop"),
            "input_tokens": len(output.prompt_token_ids or ()),
            "output_tokens": len(said.token_ids),
            "signals": signals,
        }

    def message(self, request: Any, said: Any) -> tuple[Row, bool]:
        """OpenAI's message, and whether it ends with calls of tools; as `OpenAIServingChat.chat_completion_full_generator`."""
        parser = self.renderer.parser
        if parser is None:
            return {"role": "assistant", "content": said.text}, False
        reader = parser(
            self.engine.renderer.get_tokenizer(),
            request.tools,
            chat_template_kwargs=request.chat_template_kwargs or {},
            model_config=self.model,
        )
        thought, text, calls = reader.parse(
            said.text, request, enable_auto_tools=self.auto_tools, model_output_token_ids=said.token_ids
        )
        message: Row = {"role": "assistant", "content": text}
        if thought:
            message["reasoning"] = thought
        demanded = request.tool_choice not in (None, "none", "auto")
        if not calls or not (demanded or (request.tools and request.tool_choice != "none")):
            return message, False
        made = [
            {"id": call.id or f"call_{i}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for i, call in enumerate(calls)
        ]
        return {**message, "tool_calls": made}, request.tool_choice in (None, "auto", "required")


def apart_from_serving(spec: Mapping[str, Any], known: set[str]) -> tuple[Row, Row]:
    """The options of the engine itself, and those of the server before it."""
    given: Row = {**spec["engine_kwargs"], "model": spec["model"], "max_model_len": spec["context"]}
    given = {name: value for name, value in given.items() if ENGINE_ONLY.get(name) != value}
    given.setdefault("max_num_seqs", AT_ONCE)
    if spec["adapter"]:
        rank = json.loads((Path(spec["adapter"]) / "adapter_config.json").read_text("utf-8")).get("r", 16)
        given |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": max(int(rank), int(given.get("max_lora_rank") or 0))}
    options = {name: value for name, value in given.items() if name in known}
    return options, {name: value for name, value in given.items() if name not in known}


def template_of(given: Any) -> str | None:
    """A chat template's text; the settings may name its file."""
    from vllm.entrypoints.chat_utils import load_chat_template

    return load_chat_template(given) if given else None


def content_of(said: Any, tokenizer: Any) -> list[Row]:
    """`logprobs.content` of a choice, as a server gives it for `top_logprobs: 2`."""
    found = []
    for token, logged in zip(said.token_ids, said.logprobs or (), strict=False):
        if logged is None or token not in logged:
            continue
        own = logged[token]
        others = [
            {"token": text_of(id, one, tokenizer), "logprob": max(one.logprob, LEAST)}
            for id, one in logged.items()
            if one.rank <= 2
        ]
        text = text_of(token, own, tokenizer)
        found.append({"token": text, "logprob": max(own.logprob, LEAST), "bytes": list(text.encode()), "top_logprobs": others})
    return found


def text_of(id: int, logged: Any, tokenizer: Any) -> str:
    return logged.decoded_token if logged.decoded_token is not None else str(tokenizer.decode(id))


# -- the folder ----------------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[Row]:
    with path.open("r", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def answered(path: Path) -> set[str]:
    """What has an answer already, by `asked`. A line that a killed process left unfinished is cut off."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        content = content[: content.rfind(b"\n") + 1]
        os.truncate(path, len(content))
    return {json.loads(line)["asked"] for line in content.splitlines()}


def work(engine: Engine, todo: Sequence[Row], out: TextIO, done: int) -> None:
    """Answer all, and write what is whole every second."""
    rest, fresh, written_s, total = iter(todo), list[Row](), time.monotonic(), done + len(todo)
    more = True
    while more or engine.asked or fresh:
        while more and len(engine.asked) < engine.at_once + SPARE:
            row = next(rest, None)
            if row is None:
                more = False
                break
            try:
                engine.add(row)
            except Refused as refused:
                fresh.append({"id": row["id"], "asked": row["asked"], "error": str(refused)})
        if engine.asked:
            fresh += engine.step()
        if time.monotonic() - written_s >= EVERY_S or not (more or engine.asked):
            out.write("".join(json.dumps(line) + "\n" for line in fresh))
            out.flush()
            done, fresh, written_s = done + len(fresh), [], time.monotonic()
            print(json.dumps({"done": done, "of": total}), flush=True)


def end_with_parent() -> None:
    """End at once when standard input ends."""

    def watch() -> None:
        while os.read(0, 4_096):  # by its number: a reader of Python's would hold a lock that its end waits for
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(folder: Path) -> None:
    end_with_parent()
    spec = json.loads((folder / "spec.json").read_text("utf-8"))
    with (folder / "answers.jsonl").open("a", encoding="utf-8") as out:
        fcntl.flock(out, fcntl.LOCK_EX)  # a process whose parent was killed may still write its last lines
        known = answered(folder / "answers.jsonl")
        rows = rows_of(folder / "rows.jsonl")
        todo = [row for row in rows if row["asked"] not in known]
        if todo:
            work(Engine(spec), todo, out, len(rows) - len(todo))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
