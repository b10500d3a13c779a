"""A process that asks vLLM's own arithmetic, without an engine: weights, bytes of a window, and how many windows fit.

Called with one JSON list of cases, {folder, kv, more options of the engine}; prints a JSON line for each. Models are made on the
meta device, so they take no memory.
"""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}


def says(case: dict[str, Any]) -> dict[str, Any]:
    import torch
    from vllm.config import get_layers_from_vllm_config, set_current_vllm_config
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.attention.backends import utils
    from vllm.v1.core import kv_cache_utils

    folder, kv = case.pop("folder"), case.pop("kv")
    given = EngineArgs(model=folder, load_format="dummy", skip_tokenizer_init=True, enforce_eager=True, **case)
    config = given.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    with set_current_vllm_config(config):
        with tempfile.TemporaryDirectory() as place:
            init_distributed_environment(1, 0, f"file://{place}/meeting", 0, "gloo")
            ensure_model_parallel_initialized(1, 1)
        torch.set_default_dtype(config.model_config.dtype)
        with torch.device("meta"):
            model = initialize_model(config)
    current_platform.update_block_size_for_backend(config)
    layers = get_layers_from_vllm_config(config, AttentionLayerBase)
    specs = {name: spec for name, layer in layers.items() if (spec := layer.get_kv_cache_spec(config)) is not None}
    backends = [layer.get_attn_backend() for layer in layers.values()]
    names = [layout.name for layout in utils.get_supported_kv_cache_layouts(backends)]
    layout = utils.resolve_kv_cache_layout(config, [names], specs.values())
    groups = kv_cache_utils.get_kv_cache_groups(config, dict(specs))
    [made] = kv_cache_utils.get_kv_cache_configs(config, [specs], [kv])
    return {
        "weights": sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        "window": kv_cache_utils._max_memory_usage_bytes_from_groups(config, groups),
        "windows": kv_cache_utils.get_max_concurrency_for_kv_cache_config(config, made),
        "block_bytes": kv_cache_utils._pool_bytes_per_block(groups),
        "block": config.cache_config.block_size,
        "batch": config.scheduler_config.max_num_batched_tokens,
        "in_flight": config.max_in_flight_tokens,
        "layout": layout.name,
    }


def main() -> None:
    for case in json.loads(sys.argv[1]):
        name = Path(case["folder"]).name
        try:
            print(json.dumps({"model": name, **says(case)}), flush=True)
        except Exception as error:  # noqa: BLE001  # the test says which model failed, and why
            traceback.print_exc()
            print(json.dumps({"model": name, "error": repr(error)[:2000]}), flush=True)


if __name__ == "__main__":
    main()
