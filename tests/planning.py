"""Settings of delegation under which the short texts of the tests are planned; several folders share them."""

PLANNING = {
    "mode": "plan",
    "min_input_tokens": 20,
    "min_saving": 0.0,
    "offload_min_tokens": 20,
    "preview_chars": 40,
    "plan_prompt": "plan {preview}",
    "max_cost_ratio": 20.0,
}
