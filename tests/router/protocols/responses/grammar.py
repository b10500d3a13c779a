"""The grammar of a response's stream as a small machine: it reads events and fails at the first that may not stand there."""

import json

ENDS = ("response.completed", "response.incomplete", "response.failed")
PARTS = {
    "output_text": ("response.output_text", "content_part", "content_index", "text"),
    "refusal": ("response.refusal", "content_part", "content_index", "refusal"),
    "summary_text": ("response.reasoning_summary_text", "reasoning_summary_part", "summary_index", "text"),
    "reasoning_text": ("response.reasoning_text", "content_part", "content_index", "text"),
}
CALLS = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}
BODILESS = ("shell_call", "local_shell_call", "apply_patch_call")


def events(raw):
    """(name, data) of each event."""
    for block in b"".join(raw).decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        assert name.startswith("event: ") and data.startswith("data: ")
        yield name[7:], json.loads(data[6:])


class Machine:
    def __init__(self):
        self.number = 0
        self.items, self.ids = [], set()
        self.item = None
        """the open one, as it was added"""
        self.part = None
        """its open part"""
        self.said = None
        """pieces of the open text or call; a text: it is done"""
        self.response = None
        self.over = False

    def read(self, raw):
        for name, data in events(raw):
            assert not self.over, f"{name} after the end"
            assert data.pop("type") == name and data.pop("sequence_number") == self.number
            self.event(name, data)
            self.number += 1
        return self

    def event(self, name, data):
        if self.number < 2:
            assert name == ("response.created", "response.in_progress")[self.number]
            self.lifecycle(data["response"], "in_progress")
        elif name in ENDS:
            self.end(name, data["response"])
        elif name == "keepalive":
            assert data == {}
        elif name == "response.output_item.added":
            self.added(data)
        else:
            assert self.item and data["output_index"] == len(self.items)
            self.done(data["item"]) if name == "response.output_item.done" else self.body(name.removeprefix("response."), data)

    def lifecycle(self, response, status):
        assert response["status"] == status
        echoed = {k: v for k, v in response.items() if k not in ("status", "output", "usage", "error", "incomplete_details")}
        assert self.response in (None, echoed)
        self.response = echoed

    def end(self, name, response):
        self.lifecycle(response, name.removeprefix("response."))
        assert response["output"] == self.items
        assert (response["error"] is None) == (name != ENDS[2]) and (response["incomplete_details"] is None) == (name != ENDS[1])
        assert self.item is None or name == ENDS[2]
        self.over = True

    def added(self, data):
        assert self.item is None and data["output_index"] == len(self.items)
        item = data["item"]
        assert item["id"] not in self.ids and item.get("status", "in_progress") == "in_progress"
        self.ids.add(item["id"])
        held = item.get("content") or item.get("summary") or item.get("arguments") or item.get("input")
        assert not held
        self.item, self.part, self.said = item, None, []

    def body(self, name, data):
        assert data["item_id"] == self.item["id"]
        if self.item["type"] in CALLS:
            self.grow(name, data, *CALLS[self.item["type"]])
            return
        assert self.item["type"] in ("message", "reasoning")
        if self.part is None:
            kind = data["part"]["type"]
            assert (self.item["type"] == "message") == (kind in ("output_text", "refusal"))
            _, opens, index, says = PARTS[kind]
            assert name == f"{opens}.added" and data[index] == 0 and data["part"][says] == ""
            self.part = data["part"]
            return
        texts, holds, index, says = PARTS[self.part["type"]]
        assert data[index] == 0
        if name == f"{holds}.done":
            assert data["part"][says] == self.said and data["part"]["type"] == self.part["type"]
            self.part = data["part"]
        else:
            self.grow(name, data, texts, says)

    def grow(self, name, data, texts, says):
        assert isinstance(self.said, list)
        if name == f"{texts.removeprefix('response.')}.delta":
            assert data["delta"]
            self.said.append(data["delta"])
        else:
            assert name == f"{texts.removeprefix('response.')}.done"
            assert data[says] == "".join(self.said)
            self.said = data[says]

    def done(self, item):
        kind = item["type"]
        assert (item["id"], kind, item.get("call_id")) == (self.item["id"], self.item["type"], self.item.get("call_id"))
        assert item.get("status", "completed") in ("completed", "incomplete")
        if kind in CALLS:
            assert item[CALLS[kind][1]] == self.said and item["name"] == self.item["name"]
        elif kind in BODILESS:
            assert self.said == [] and {**item, "status": "in_progress"} == self.item
        elif self.part:
            assert item["summary" if self.part["type"] == "summary_text" else "content"] == [self.part]
            assert isinstance(self.said, str)
        else:
            assert kind == "reasoning" and item["summary"] == [] and "content" not in item
        self.items.append(item)
        self.item = None
