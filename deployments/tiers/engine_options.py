"""Which settings of an engine change a model's answers. What is not known here counts: a promise is rather voided than faked.

Options of vLLM that only decide how fast, where and how verbosely a model runs are listed. Everything else, dtype, quantization,
parsers, LoRA, speculative decoding, sampling defaults, overrides and the options of versions to come, is part of a fingerprint.
"""

from collections.abc import Mapping
from typing import Any

NEUTRAL = frozenset(
    """
    max_num_seqs max_num_batched_tokens max_num_partial_prefills max_long_partial_prefills long_prefill_token_threshold
    gpu_memory_utilization kv_cache_memory_bytes num_gpu_blocks_override swap_space cpu_offload_gb kv_offloading_size
    kv_offloading_backend block_size enable_prefix_caching prefix_caching_hash_algo enable_chunked_prefill scheduling_policy
    async_scheduling stream_interval enforce_eager cudagraph_capture_sizes max_cudagraph_capture_size
    tensor_parallel_size pipeline_parallel_size data_parallel_size data_parallel_size_local data_parallel_rank
    data_parallel_address data_parallel_rpc_port data_parallel_backend enable_expert_parallel distributed_executor_backend
    max_parallel_loading_workers disable_custom_all_reduce ray_workers_use_nsight
    download_dir use_tqdm_on_load hf_token served_model_name enable_sleep_mode
    disable_log_stats disable_log_requests enable_log_requests max_log_len otlp_traces_endpoint
    collect_detailed_traces show_hidden_metrics_for_version kv_cache_metrics aggregate_engine_logging fail_on_environ_validation
    shutdown_timeout numa_bind numa_bind_nodes numa_bind_cpus device_ids master_addr master_port nnodes node_rank
    distributed_timeout_seconds safetensors_load_strategy safetensors_prefetch_num_threads safetensors_prefetch_block_size
    max_num_queued_reqs max_num_queued_tokens enable_mfu_metrics enable_logging_iteration_details kv_cache_metrics_sample
    cudagraph_metrics enable_layerwise_nvtx_tracing per_request_spec_decode_metrics watermark
    """.split()
)
NEUTRAL_ENV = frozenset(
    """
    VLLM_CPU_KVCACHE_SPACE VLLM_CPU_OMP_THREADS_BIND VLLM_CPU_NUM_OF_RESERVED_CPU VLLM_NO_USAGE_STATS VLLM_DO_NOT_TRACK
    VLLM_USAGE_SOURCE VLLM_CACHE_ROOT VLLM_CONFIG_ROOT VLLM_LOGGING_LEVEL VLLM_LOGGING_CONFIG_PATH VLLM_CONFIGURE_LOGGING
    VLLM_LOGGING_PREFIX VLLM_LOG_STATS_INTERVAL VLLM_TRACE_FUNCTION VLLM_HOST_IP VLLM_PORT VLLM_API_KEY VLLM_RPC_TIMEOUT
    VLLM_RPC_BASE_PATH VLLM_ENGINE_ITERATION_TIMEOUT_S VLLM_WORKER_MULTIPROC_METHOD VLLM_ENABLE_V1_MULTIPROCESSING
    """.split()
)
PREFIX = "VLLM_"  # of the environment variables by which vLLM is set


def of_answers(options: Mapping[str, Any]) -> dict[str, Any]:
    """The engine options that change answers, those set to nothing left out."""
    return {name: value for name, value in options.items() if plain(name) not in NEUTRAL and value is not None}


def of_answers_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of the replicas that change answers."""
    return {name: value for name, value in env.items() if name.startswith(PREFIX) and name not in NEUTRAL_ENV}


def plain(name: str) -> str:
    """An option's name as Python writes it."""
    return name.lstrip("-").replace("-", "_")
