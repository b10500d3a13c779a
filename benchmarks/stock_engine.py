"""Ray's engine as Stepdown starts it, for the comparison with stock Ray Serve LLM: the same replicas under both."""

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

from deployments.replicas.vllm_process import in_one_process

Engine = in_one_process(VLLMEngine)
