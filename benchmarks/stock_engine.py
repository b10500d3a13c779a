"""Ray's engine as Stepdown starts it, for stock Ray Serve LLM beside it: the same replicas under both."""

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

from deployments.replicas.vllm_process import in_one_process

Engine = in_one_process(VLLMEngine)
