"""How good a router is that was learned from the log alone, by the number of graded pairs.

Run as: python -m benchmarks.flywheel_offline [--rows FILE] [--sizes 400 800 1600] [--repeats 3] [--config FILE]

The pocket tiers answer fresh prompts at temperature 0, as vLLM would but in this process (a minute; --rows keeps the answers).
Grades are what a log has without anybody's labels: the top tier's answer is right, another is right if it is the same. From so
many pairs the flywheel's own code builds the sides, trains, certifies and looks through its gates. Then the router answers 1,000
held-out prompts, graded by their references: its share of large's cost and of its exact match. The last line is JSON.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from classifiers import Artifact, load
from deployments.pocket import tasks
from deployments.pocket.data import Encoder
from router.config import Config, load_config
from router.costs.prices import per_token
from router.flywheel import gates
from router.flywheel.candidate import make_candidate
from router.flywheel.rows.dataset import Dataset, build
from router.flywheel.rows.tables import tables_of
from router.flywheel.served import Answer, Grade, Served
from router.learn.labels.labelling import logprob_stats

HERE = Path(__file__).parent.parent / "deployments"
POOL, HELD_OUT = 6_000, 1_000  # prompts to draw pairs from, and to measure on
AT_ONCE = 128
MOST = 120  # tokens of an answer
EVERY_S = 20.0  # between two requests
PRINTS = {"models": {"small": "a", "medium": "b", "large": "c"}}
Row = dict[str, Any]


def answered(tier: str, prompts: Sequence[str]) -> list[Row]:
    """Greedy answers with the statistics of their log-probabilities, in the order of the prompts."""
    # Our own weights from this repository, and never a pickle: safetensors or nothing.
    model = LlamaForCausalLM.from_pretrained(HERE / "pocket" / "models" / tier, use_safetensors=True).eval()
    encoder = Encoder()
    found: list[Row] = [{}] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), AT_ONCE):
        some = order[at : at + AT_ONCE]
        rows = [[encoder.user, *encoder.tokenizer.encode(prompts[i]).ids, encoder.end, encoder.assistant] for i in some]
        width = max(map(len, rows))
        ids = torch.tensor([[encoder.pad] * (width - len(row)) + row for row in rows])
        settings = {"max_new_tokens": MOST, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
        made = model.generate(input_ids=ids, attention_mask=(ids != encoder.pad).long(), **settings)
        said, scores = made.sequences[:, width:], torch.log_softmax(torch.stack(made.logits, 1), -1)
        top = scores.topk(2, -1).values
        for k, i in enumerate(some):
            tokens = said[k].tolist()
            n = tokens.index(encoder.end) + 1 if encoder.end in tokens else len(tokens)
            content = [{"logprob": a, "top_logprobs": [{"logprob": a}, {"logprob": b}]} for a, b in top[k, :n].tolist()]
            found[i] = {
                "text": encoder.tokenizer.decode(tokens[: n - 1] if encoder.end in tokens else tokens),
                "finish": "stop" if encoder.end in tokens else "length",
                "input_tokens": len(rows[k]),
                "output_tokens": n,
                "signals": logprob_stats({"logprobs": {"content": content}}),
            }
    return found


def pocket_rows(path: Path | None, names: Sequence[str]) -> list[Row]:
    """Prompt, reference, and every tier's answer. Kept in `path`, and read from there if it is."""
    if path and path.exists():
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    drawn = tasks.fresh("single", POOL + HELD_OUT, 18)
    with torch.inference_mode():
        by_tier = {name: answered(name, [task.prompt for task in drawn]) for name in names}
    rows = [
        {"prompt": task.prompt, "answer": task.answer, "answers": {name: by_tier[name][i] for name in names}}
        for i, task in enumerate(drawn)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    rows = [rows[i] for i in order]
    if path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return rows


def as_served(row: Row, place: int, config: Config, by_reference: bool) -> Served:
    """The row as it is kept, graded by its reference or as a log without labels is."""
    prices = {tier.name: per_token(tier) for tier in config.tiers}
    answers = {
        name: Answer(
            name,
            "answer" if name == config.names[-1] else "fill",
            {"role": "assistant", "content": given["text"]},
            given["finish"],
            given["input_tokens"],
            given["output_tokens"],
            given["input_tokens"] * prices[name][0] + given["output_tokens"] * prices[name][1],
            given["signals"],
        )
        for name, given in row["answers"].items()
    }
    truth = row["answer"] if by_reference else answers[config.names[-1]].text
    scores = {name: float(answer.text.strip() == truth.strip()) for name, answer in answers.items()}
    return Served(
        trace_id=f"t{place}",
        at_s=place * EVERY_S,
        key_id="k",
        conversation="",
        messages=({"role": "user", "content": row["prompt"]},),
        answered_by=config.names[-1],
        answers=answers,
        grades={name: Grade(score, "top" if name == config.names[-1] else "agreement") for name, score in scores.items()},
        sampling={"temperature": 0},
        drawn=True,
    )


def measured(artefact: Artifact, held: Dataset, config: Config) -> Mapping[str, float]:
    """Shares of large's cost and exact match on held-out rows, and of the prompts that a smaller tier answered worse."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "held.jsonl"
        table = tables_of(held.test, held, path)[0]
        found = gates.way(artefact, table, path, gates.target_of(config), config)
    top = table.scores[:, -1]
    return {
        "cost": float(found.cost.sum() / table.costs[:, -1].sum()),
        "quality": float(found.score.sum() / top.sum()),
        "worse": float((found.score < top).mean()),
    }


def once(rows: Sequence[Row], size: int, repeat: int, held: Dataset, config: Config) -> Row:
    """One router, from `size` pairs."""
    begin = (repeat * size) % (POOL - size + 1)
    served = [as_served(row, i, config, False) for i, row in enumerate(rows[begin : begin + size])]
    began = time.process_time()
    dataset = build(served, tuple(config.names), now_s=size * EVERY_S, seed=repeat)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "router"
        made = make_candidate(dataset, config, PRINTS, folder, repeat)
        took = time.process_time() - began
        if not made.manifest:
            return {"pairs": size, "why": made.why, **dataset.counts}
        artefact = load(folder)
        passed = {gate.name: gate.passed for gate in gates.offline_gates(dataset, artefact, None, config)}
        found = measured(artefact, held, config)
    proof = made.certificate.to_dict() if made.certificate else {}
    told = {name: proof.get(name, math.nan) for name in ("n", "k", "bound", "coverage")}
    return {"pairs": size, **dataset.counts, **told, **found, "cpu_s": took, "passed": passed, "why": made.why}


def runs(rows: Sequence[Row], args: argparse.Namespace, config: Config) -> Iterator[Row]:
    tests = tuple(as_served(row, i, config, True) for i, row in enumerate(rows[POOL:]))
    held = Dataset(tuple(config.names), test=tests)
    held = replace(held, weights={r.trace_id: 1.0 for r in tests}, groups={r.trace_id: r.trace_id for r in tests})
    for size in args.sizes:
        for repeat in range(args.repeats):
            yield once(rows, size, repeat, held, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[400, 800, 1600])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--config", type=Path, default=HERE / "configs" / "pocket.yaml")
    parser.add_argument("--target", default="balanced")
    args = parser.parse_args()
    config = load_config(args.config)
    config = config.model_copy(update={"routing": config.routing.model_copy(update={"target": args.target})})
    torch.set_num_threads(1)
    rows = pocket_rows(args.rows, config.names)
    found = []
    for run in runs(rows, args, config):
        print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in run.items()}), flush=True)
        found.append(run)
    summary = {
        size: {
            key: round(mean(run[key] for run in found if run["pairs"] == size and key in run), 4)
            for key in ("cost", "quality", "worse", "cpu_s")
            if any(run["pairs"] == size and key in run for run in found)
        }
        | {"certified": sum(run.get("coverage", math.nan) > 0 for run in found if run["pairs"] == size), "of": args.repeats}
        for size in args.sizes
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
