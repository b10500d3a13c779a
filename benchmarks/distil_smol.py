"""Does `stepdown distil train --lora` teach SmolLM2-135M a narrow task on a processor, and in what time?

python -m benchmarks.distil_smol [--rows 400] [--held-out 60] [--threads 1] [--out FOLDER]

The task: an order in a sentence becomes one short JSON object. Answers are right when they equal the reference, letter by letter.
Held-out sentences have names that no row to learn from has. Prints one line of JSON. Needs the extras `surprisal` and `distil`.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from deployments.distil import base_models, smol
from deployments.distil.training import Job, train
from router.distil.recipe import Asked
from router.distil.rows import Row, Student

NAMES = "Anna Ben Carla David Emma Felix Greta Henry Ida Jonas Karla Leo Mara Nils Olga Paul Rosa Simon Tina Viktor".split()
UNSEEN = "Boris Clara Edgar Frida Gustav Helene Igor Julia".split()
THINGS = "apples books chairs lamps pens plates shirts spoons tables towels".split()
SAYINGS = (
    "{name} would like {count} {thing} by {day}.",
    "Please send {count} {thing} to {name} on {day}.",
    "On {day}, {name} needs {count} {thing}.",
    "{count} {thing} for {name}, to arrive {day}.",
)
DAYS = "Monday Tuesday Wednesday Thursday Friday".split()
MOST = 40  # tokens of an answer


def drawn(count: int, names: list[str], seed: int) -> list[tuple[str, str]]:
    """(sentence, right answer)."""
    rng = random.Random(seed)
    made: dict[str, str] = {}
    while len(made) < count:
        order: dict[str, Any] = {
            "name": rng.choice(names),
            "count": rng.randint(2, 99),
            "thing": rng.choice(THINGS),
            "day": rng.choice(DAYS),
        }
        answer = {"who": order["name"], "item": order["thing"][:-1], "n": order["count"], "day": order["day"][:3].lower()}
        made[rng.choice(SAYINGS).format(**order)] = json.dumps(answer)
    return list(made.items())


def messages(sentence: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Order to JSON."}, {"role": "user", "content": sentence}]


def write_rows(folder: Path, rows: list[tuple[str, str]], dev: int) -> None:
    folder.mkdir(parents=True)
    student = Student({}, "stop", 0.0)
    lines = [
        json.dumps(Row(str(i), tuple(messages(said)), {"role": "assistant", "content": answer}, "failure", student).as_json())
        + "\n"
        for i, (said, answer) in enumerate(rows)
    ]
    (folder / "train.jsonl").write_text("".join(lines[dev:]))
    (folder / "dev.jsonl").write_text("".join(lines[:dev]))
    (folder / "manifest.json").write_text(json.dumps({"form": 1, "licences": ["apache-2.0"]}))


@torch.inference_mode()
def right(folder: Path, held_out: list[tuple[str, str]]) -> float:
    """Share of greedy answers that are right."""
    model, tokenizer = base_models.load_model(folder), base_models.load_tokenizer(folder)
    found = 0
    for said, answer in held_out:
        text = tokenizer.apply_chat_template(messages(said), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=MOST, do_sample=False)
        found += tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip() == answer
    return found / len(held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    out = asked.out or Path(tempfile.mkdtemp(prefix="stepdown-smol-"))
    base, held_out = out / "base", drawn(asked.held_out, UNSEEN, 2)
    if not (base / "config.json").exists():
        smol.write(base)
    if not (out / "data").exists():
        write_rows(out / "data", drawn(asked.rows, NAMES, 1), asked.rows // 10)
    began, processor = time.monotonic(), time.process_time()
    wanted = Asked(lora=True, tokens=asked.tokens)
    manifest = train(
        Job(out / "data", base, out / "run", wanted, base_name="SmolLM2-135M-Instruct"), lambda progress, recipe: None
    )
    seconds, processor = time.monotonic() - began, time.process_time() - processor
    print(
        json.dumps(
            {
                "rows": manifest["rows"],
                "tokens": manifest["tokens"],
                "steps": manifest["steps"],
                "threads": asked.threads,
                "seconds": round(seconds),
                "processor_seconds": round(processor),
                "dev": [round(loss, 4) for _, loss in manifest["dev"]],
                "before": right(base, held_out),
                "after": right(out / "run" / "model", held_out),
                "held_out": len(held_out),
                "adapter": str(out / "run" / "adapter"),
            }
        )
    )


if __name__ == "__main__":
    main()
