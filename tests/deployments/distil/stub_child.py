"""The child that answers offline, with an engine of its own instead of vLLM's; STUB says how it misbehaves."""

import json
import os
import sys
import time
from pathlib import Path

from deployments.distil import offline_answers

SAYS = json.loads(os.environ["STUB"])


class StubEngine:
    """Answers each row by its last message. die_after: answers before it kills itself."""

    at_once = 8

    def __init__(self, spec):
        if SAYS.get("raise"):
            raise ValueError(SAYS["raise"])
        with (Path(sys.argv[1]) / "starts").open("a") as file:
            file.write("x")
        self.asked, self.given = {}, 0

    def add(self, row):
        text = row["body"]["messages"][-1]["content"]
        if text == "too long":
            raise offline_answers.Refused("the window has no room for an answer")
        self.asked[row["id"]] = row

    def step(self):
        for row in [self.asked.pop(id) for id in list(self.asked)[:4]]:
            self.given += 1
            if self.given > SAYS.get("die_after", 10_000):
                os.kill(os.getpid(), 9)
            text = row["body"]["messages"][-1]["content"]
            common = {"finish": "stop", "input_tokens": 3, "output_tokens": 1, "signals": {}}
            yield {"id": row["id"], "asked": row["asked"], "message": {"role": "assistant", "content": text.upper()}, **common}
        time.sleep(SAYS.get("slow_s", 0))


offline_answers.Engine = StubEngine
offline_answers.EVERY_S = 0.0
print("a line that is no progress", flush=True)
offline_answers.main(Path(sys.argv[1]))
