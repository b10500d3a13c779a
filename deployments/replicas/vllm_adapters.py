"""vLLM's own registry of LoRA adapters, through Ray's engine object.

`VLLM_ALLOW_RUNTIME_LORA_UPDATING` stays off: that setting opens paths of vLLM's own server, which nobody here calls.
"""

from typing import Any

from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest

from deployments.replicas.adapters import Registry


class VllmRegistry(Registry):
    """engine: Ray's `VLLMEngine`, started."""

    def __init__(self, engine: Any) -> None:
        self.models = engine._oai_models

    async def load(self, name: str, folder: str) -> str:
        said = await self.models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=name, lora_path=folder))
        return "" if isinstance(said, str) else str(said.error.message)

    async def unload(self, name: str) -> None:
        if name in self.models.lora_requests:
            await self.models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))
