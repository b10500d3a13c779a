"""The child that answers offline, with a stub of a model whose weights say how good it is: base, good, forgets, long."""

import json
import re
import sys
from pathlib import Path

from deployments.distil import offline_answers


class StubModel:
    """Of one question in four, base does not know the answer; forgets knows these, and a third of the others no more."""

    at_once = 64

    def __init__(self, spec):
        self.kind = (Path(spec["model"]) / "model.safetensors").read_bytes().decode()
        self.asked = {}

    def add(self, row):
        self.asked[row["id"]] = row

    def step(self):
        for id in list(self.asked):
            row = self.asked.pop(id)
            n = int(re.search(r"\d+", row["body"]["messages"][-1]["content"])[0])
            knows = {"base": n % 4 != 0, "forgets": n % 4 == 0 or n % 3 != 0}.get(self.kind, True)
            text = f"It is {n + 1}." if knows else "It is none."
            tokens = 9 if self.kind == "long" else 4
            common = {"finish": "stop", "input_tokens": 3, "output_tokens": tokens, "signals": {}}
            yield {"id": id, "asked": row["asked"], "message": {"role": "assistant", "content": text}, **common}


if __name__ == "__main__":
    offline_answers.Engine = StubModel
    print(json.dumps({"kind": "stub"}), flush=True)
    offline_answers.main(Path(sys.argv[1]))
