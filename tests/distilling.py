"""Data folders and tiny models for tests of training: random weights, the pocket tokenizer, prompts of the task family."""

import json
import random
from pathlib import Path

from deployments.pocket import tasks
from router.distil.rows import Row, Student

MODELS = Path(tasks.__file__).parent / "models"


def a_row(number: int, prompt: str, answer: str, **more) -> Row:
    said = {"role": "assistant", "content": answer}
    student = Student({"role": "assistant", "content": "?"}, "stop", 0.0)
    return Row(
        id=f"r{number}", messages=({"role": "user", "content": prompt},), answer=said, kind="failure", student=student, **more
    )


def drawn(count: int, seed: int = 0) -> list[tasks.Task]:
    rng = random.Random(seed)
    return [tasks.single(rng) for _ in range(count)]


def write_data(folder: Path, train: list[Row], dev: list[Row] = (), **manifest) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for side, rows in (("train", train), ("dev", dev)):
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(row.as_json()) + "\n" for row in rows))
    (folder / "manifest.json").write_text(json.dumps({"form": 1, "dataset_sha256": "d" * 64, **manifest}))
    return folder


def pocket_data(folder: Path, count: int = 60, dev: int = 10, seed: int = 0, **manifest) -> Path:
    rows = [a_row(i, task.prompt, task.answer, licence="apache-2.0") for i, task in enumerate(drawn(count + dev, seed))]
    return write_data(folder, rows[:count], rows[count:], **manifest)


def tiny_model(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """A model of two layers with random weights. family: llama, qwen2 or qwen3."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from deployments.pocket import tokenizer
    from deployments.pocket.data import Encoder

    encoder = Encoder()
    heads = {"head_dim": 16} if family != "qwen2" else {}
    config = AutoConfig.for_model(
        family,
        vocab_size=encoder.tokenizer.get_vocab_size() + 5,  # padded, as vocabularies often are
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=family != "qwen2",
        bos_token_id=None,
        eos_token_id=encoder.end,
        pad_token_id=encoder.pad,
        **heads,
    )
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder
