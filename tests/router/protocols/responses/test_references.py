"""Items that a request names by their ids."""

import pytest
from asking import ID, sent

from router.errors import BadRequest
from router.protocols.responses import owners, with_items

CALL = {"type": "function_call", "id": f"fc_{ID}0001", "call_id": "call_1", "name": "f", "arguments": "{}"}
TEXT = {"type": "message", "id": f"msg_{ID}0002", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]}
KEPT = {f"resp_{ID}": {"id": f"resp_{ID}", "output": [CALL, TEXT]}}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "1"}


def referring(*names):
    given = [{"type": "item_reference", "id": names[0]}, *({"id": name} for name in names[1:])]
    return {"input": [{"role": "user", "content": "hi"}, *given, RESULT]}


def test_names_lead_to_their_responses_once():
    assert owners(referring(CALL["id"], TEXT["id"])) == [f"resp_{ID}"]


@pytest.mark.parametrize("odd", [None, "x", [], {}, {"input": "hi"}, {"input": None}, {"input": [None, 1, [], {}, {"id": 1}]}])
def test_what_names_nothing_leads_nowhere(odd):
    assert owners(odd) == []


@pytest.mark.parametrize("name", ["msg_1", f"fc_{ID}", f"fc_{ID}xx01", "", f"{ID}0001"])
def test_foreign_names_lead_nowhere(name):
    assert owners(referring(name)) == []


def test_items_with_contents_are_not_names():
    body = {"input": [CALL, TEXT, {"role": "user", "id": CALL["id"], "content": "hi"}]}
    assert owners(body) == [] and with_items(body, KEPT)["input"] == body["input"]


def test_items_take_the_place_of_their_names():
    body = with_items(referring(CALL["id"], TEXT["id"]), KEPT)
    assert body["input"][1:3] == [CALL, TEXT]
    assert [message["role"] for message in sent(**with_items(referring(CALL["id"]), KEPT))["messages"]] == [
        "user",
        "assistant",
        "tool",
    ]


def test_a_name_that_is_not_kept_is_refused_with_the_way_to_mend_it():
    with pytest.raises(BadRequest, match=r"responses.store.*store: false"):
        sent(**with_items(referring("msg_1"), KEPT))


def test_few_responses_are_looked_up():
    body = {"input": [{"id": f"fc_{i:032x}0001"} for i in range(1000)]}
    assert len(owners(body)) == 128
