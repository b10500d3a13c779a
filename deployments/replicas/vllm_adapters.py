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
        self.ids: dict[str, int] = {}

    async def load(self, name: str, folder: str) -> str:
        said = await self.models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=name, lora_path=folder))
        if not isinstance(said, str):
            return str(said.error.message)
        self.ids[name] = self.models.lora_requests[name].lora_int_id
        return ""

    async def forget(self, name: str) -> None:
        if name in self.models.lora_requests:
            await self.models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))

    async def free(self, name: str) -> None:
        """vLLM's registry leaves it in the engine."""
        if name in self.ids:
            await self.models.engine_client.remove_lora(self.ids.pop(name))
