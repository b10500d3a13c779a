"""References are replaced once, by results only; control strings never reach a model whole."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.delegate.sanitise import CONTROL, inert, neutralise
from router.delegate.splice import LONGEST, Splicer, by_reference, clients_own, references, splice, unfinished

RESULTS = {"t1": "one", "t2": "see {{t1}}", "t3.2": "part", "t9": "{{"}


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a {{t1}} b", "a one b"),
        ("{{ t1 }}{{t3.2}}", "onepart"),
        ("{{t2}}", "see {{t1}}"),
        ("{{t9}}t1}}", "{{t1}}"),
        ("{{t7}} {{name}} {{t1", "{{t7}} {{name}} {{t1"),
        ("{{{t1}}}", "{one}"),
        ("```\n{{t1}}\n```", "```\none\n```"),
        ("{{{{t1}}}}", "{{one}}"),
        ("{{t1} }", "{{t1} }"),
        ("", ""),
    ],
)
def test_a_reference_is_replaced_once_and_only_by_a_result(text, shown):
    assert splice(text, RESULTS) == shown


PIECES = st.sampled_from(["result ", "{", "{{", "}}", "}", "t1", "{{t1}}", "t3.2", " ", "x", "{{t7}}", "{{ t1 }}", "\n"])


@given(st.lists(PIECES, max_size=20), st.lists(st.integers(1, 5), min_size=1, max_size=40))
@example(["{{t1}}"], [1])
@example(["{{ ", "t1", " }}", "{"], [1])
def test_in_any_pieces_the_same_comes_out(tokens, sizes):
    text, splicer, out, at = "".join(tokens), Splicer(RESULTS), "", 0
    for i in range(len(text) + 1):
        size = sizes[i % len(sizes)]
        out += splicer.feed(text[at : at + size])
        assert len(splicer.held) < LONGEST
        at += size
    assert out + splicer.end() == splice(text, RESULTS)


def test_no_more_is_held_back_than_may_become_a_reference():
    splicer = Splicer(RESULTS)
    assert [splicer.feed(piece) for piece in ("Hello ", "{", "{t", "1", "}}", " {x} {{", "name of it")] == [
        "Hello ",
        "",
        "",
        "",
        "one",
        " {x} ",
        "{{name of it",
    ]
    assert splicer.end() == "" and unfinished("a {{t12.3") == "{{t12.3"


def test_without_results_nothing_is_held_back():
    assert Splicer({}).feed("a {{") == "a {{"


def test_the_ids_a_text_refers_to():
    assert references("{{t2}} {{t1}} {{t2}} {{x}} {{t1.4}}") == ("t2", "t1", "t1.4")


@pytest.mark.parametrize(
    "text",
    [
        *"<|im_end|> <|im_start|>system <|endoftext|> <|eot_id|> <|start_header_id|> <|begin_of_text|> <s> </s>".split(),
        *"[INST] [/INST] <<SYS>> <</SYS>> [TOOL_CALLS] [AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [SYSTEM_PROMPT]".split(),
        *"<start_of_turn>user <end_of_turn> <bos> <eos> <pad> <unused12> <tool_call> </tool_call> <think> </think>".split(),
        *"<｜User｜> <｜end▁of▁sentence｜> <|channel|>final<|message|> <|IM_END|>".split(),
    ],
)
def test_control_strings_of_the_common_templates_fall_apart(text):
    made = neutralise(f"before {text} after")
    assert not CONTROL.search(made) and text not in made and made.replace(" ", "") == f"before{text}after".replace(" ", "")


def test_strings_of_a_tiers_own_tokenizer_fall_apart_too():
    assert neutralise("x @@END@@ y", ["@@END@@", "a"]) == "x @ @END@@ y"


@pytest.mark.parametrize("text", ["a < b and c > d", "f(x)[i] | {y}", "<div>", "[INSTALL]", "use <strong>", "1 <| 2"])
def test_ordinary_text_stays_as_it_is(text):
    assert neutralise(text) == text


@given(st.text(alphabet="<|>im_ends/[]INST{}t1 ", max_size=60))
def test_what_is_harmless_stays_harmless(text):
    once = inert(text)
    assert not CONTROL.search(once) and not references(once) and inert(once) == once


@pytest.mark.parametrize(
    "messages, own",
    [
        ([{"role": "user", "content": "fill {{t1}} and {{ t2.3 }}, not {{name}}"}], {"t1", "t2.3"}),
        ([{"role": "system", "content": [{"type": "text", "text": "use {{t4}}"}]}], {"t4"}),
        ([{"role": "assistant", "content": "as {{result t5}}"}], {"result t5"}),
        ([{"role": "tool", "tool_call_id": "a", "content": "{{t6}}"}], {"t6"}),
        ([{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"x": "{{t7}}"}'}}]}], {"t7"}),
        ([{"role": "assistant", "content": None, "tool_calls": 5}], set()),
        ([{"role": "user", "content": "{t1} {{t}} {{t100}}"}], set()),
    ],
)
def test_what_looks_like_a_reference_in_the_clients_messages(messages, own):
    assert clients_own(messages) == own


def test_hidden_turns_of_ours_are_not_the_clients():
    call = {"id": "a", "type": "function", "function": {"name": "stepdown_delegate", "arguments": '{"answer": "{{t1}}"}'}}
    hidden = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "write {{t1}} for t1"},
    ]
    assert clients_own([{"role": "user", "content": "hello"}, *hidden]) == frozenset()


@pytest.mark.parametrize(
    "text, shown",
    [
        ("{{t1}} {{t2}}", "{{t1}} see {{t1}}"),
        ("{{result t1}} {{ result t2 }}", "one see {{t1}}"),
        ("{{result t9}}t1}}", "{{t1}}"),
        ("{{result t7}}", "{{result t7}}"),
    ],
)
def test_what_the_client_wrote_itself_stands_for_no_result(text, shown):
    results = by_reference(RESULTS, frozenset({"t1", "t7"}))
    assert splice(text, results) == shown
    splicer = Splicer(results)
    assert "".join(map(splicer.feed, text)) + splicer.end() == shown


def test_both_forms_may_be_the_clients_own():
    assert by_reference({"t1": "one", "t2": "two"}, frozenset({"t1", "result t1"})) == {"t2": "two", "result t2": "two"}
    assert references("{{t1}} {{result t1}} {{t2}}", frozenset({"t1"})) == ("t1", "t2")
    assert references("{{t1}}", frozenset({"t1"})) == ()


@pytest.mark.parametrize("odd", [[], {}, None, 5])
def test_an_odd_id_beside_a_hidden_call_is_some_other_call(odd):
    call = {"id": "call_sd_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    hidden = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert clients_own([hidden, {"role": "tool", "tool_call_id": odd, "content": "{{t1}}"}]) == {"t1"}
