"""A real model that thinks, on a CPU: the pocket ladder's `small` with the marks of a thought, and a template that opens it.

Two characters that it never writes become the marks. It was not taught to think; `min_tokens` keeps it from ending at once,
and a budget closes the thought, so both lengths are known.
"""

import json
import shutil
from pathlib import Path

from adapters_made import SMALL

MARKS = {"~": "<think>", "`": "</think>"}
OPENED = (
    "{% if enable_thinking is not defined or enable_thinking %}{{ '<think>\n' }}"
    "{% else %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)


def think(folder: Path) -> Path:
    """Write it; an adapter of SMALL fits it too."""
    shutil.copytree(SMALL, folder)
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text("utf-8"))
    vocabulary = {MARKS.get(token, token): number for token, number in settings["model"]["vocab"].items()}
    settings["model"]["vocab"] = vocabulary
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    settings["added_tokens"] += [{"id": vocabulary[mark], "content": mark, **plain} for mark in sorted(MARKS.values())]
    file.write_text(json.dumps(settings), "utf-8")
    template = folder / "chat_template.jinja"
    ending = "{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    before, found, after = template.read_text("utf-8").partition(ending)
    assert found
    template.write_text(before + ending + OPENED + after, "utf-8")
    return folder
