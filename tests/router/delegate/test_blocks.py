"""Large texts behind handles, cut where their author cut them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.parts.cut import cut
from router.delegate.blocks import OffloadedChat, head, manifest, neutralise_blocks, numbered_like, offload, preview, tail


def words(text):
    return len(text.split())


def offloaded(*messages, least=5):
    made = [{"role": "user", "content": m} if isinstance(m, str | list) else m for m in messages]
    return offload(made, words, least, 8)


LIST = "Do each:\n1. first thing here\n2. second thing here\n3. third"
CUTS = [
    (LIST, "numbered", "Do each:", [("1.", "first thing here"), ("2.", "second thing here"), ("3.", "third")], ""),
    ("1) a b\n   more of a\n2) c\n\nIn French.", "numbered", "", [("1)", "a b\n   more of a"), ("2)", "c")], "In French."),
    ("Q1: one?\nQ2: two?", "numbered", "", [("Q1:", "one?"), ("Q2:", "two?")], ""),
    ("1. a\n\nstill a\n\n2. b\n\nstill b", "numbered", "", [("1.", "a\n\nstill a"), ("2.", "b\n\nstill b")], ""),
    ("1. a\n  1. sub\n  2. sub\n2. b", "numbered", "", [("1.", "a\n  1. sub\n  2. sub"), ("2.", "b")], ""),
    ("See:\n- a\n  - sub\n- b", "bullets", "See:", [("-", "a\n  - sub"), ("-", "b")], ""),
    (
        "- short\n- list\n\nNow do these:\n1. long item number one\n2. long item number two",
        "numbered",
        "- short\n- list\n\nNow do these:",
        [("1.", "long item number one"), ("2.", "long item number two")],
        "",
    ),
    ("# T\nintro\n## A\nx\n1. y\n2. z\n## B\nw", "sections", "# T\nintro", [("## A", "x\n1. y\n2. z"), ("## B", "w")], ""),
    (
        "Check:\n--- a.py\nx = 1\n--- b.py\n# no heading\n# neither",
        "files",
        "Check:",
        [("--- a.py", "x = 1"), ("--- b.py", "# no heading\n# neither")],
        "",
    ),
    (
        "a.py\n```python\n# x\n# y\n```\nb.py\n```\nz\n```\nWhich?",
        "files",
        "",
        [("a.py", "```python\n# x\n# y\n```"), ("b.py", "```\nz\n```")],
        "Which?",
    ),
    (
        '<file name="a">\nx\n</file>\n<file name="b">\ny\n</file>',
        "files",
        "",
        [('<file name="a">', "x"), ('<file name="b">', "y")],
        "",
    ),
    ("one\n\ntwo\n\n\nthree", "paragraphs", "", [("", "one"), ("", "two"), ("", "three")], ""),
    ("Sum up each paragraph.\n\none\n\ntwo", "paragraphs", "Sum up each paragraph.", [("", "one"), ("", "two")], ""),
    ("one\n\ntwo\n\nWho is named in each?", "paragraphs", "", [("", "one"), ("", "two")], "Who is named in each?"),
    ("Sum up.\n\none", "paragraphs", "", [("", "Sum up."), ("", "one")], ""),
    (
        "## A\nx y\n\n## B\nz\n\nTranslate each section.",
        "sections",
        "",
        [("## A", "x y"), ("## B", "z")],
        "Translate each section.",
    ),
    ("no structure at all", "paragraphs", "", [("", "no structure at all")], ""),
    ("", "paragraphs", "", [], ""),
    ("3 apples. 4. not a list", "paragraphs", "", [("", "3 apples. 4. not a list")], ""),
]


@pytest.mark.parametrize("text, kind, head, parts, tail", CUTS)
def test_a_text_is_cut_where_its_author_cut_it(text, kind, head, parts, tail):
    made = cut(text)
    assert (made.kind, made.head, [(p.label, p.text) for p in made.parts], made.tail) == (kind, head, parts, tail)


def test_paragraphs_are_joined_to_as_many_as_allowed():
    made = cut("\n\n".join(f"paragraph {i} " + "w " * i for i in range(50)), 8)
    sizes = [len(p.text) for p in made.parts]
    assert len(sizes) <= 8 and max(sizes) < 2.5 * min(sizes) and "paragraph 49" in made.parts[-1].text


@given(st.text(alphabet="ab1.)#-*` \n:<>/", max_size=300))
def test_any_text_can_be_cut_and_no_word_is_in_two_parts(text):
    made = cut(text)
    assert sum(len("".join(p.text.split())) for p in made.parts) <= len("".join(text.split()))


def test_a_text_of_very_many_lines_is_cut_without_looking_for_lists():
    made = cut("\n".join(f"- line {i}" for i in range(6000)))
    assert made.kind == "paragraphs" and len(made.parts) == 1


def test_only_large_texts_of_users_and_tools_go_behind_handles():
    made = offloaded(
        {"role": "system", "content": "a long system prompt that stays where it is"},
        "short",
        LIST,
        {"role": "assistant", "content": "a long answer of an earlier turn, kept as it is"},
        {"role": "tool", "content": "a tool that says much more than five words"},
        [{"type": "text", "text": "tiny"}, {"type": "text", "text": "many words in a part of a message"}],
    )
    assert {b.id: (b.message, b.piece) for b in made.blocks.values()} == {"c1": (2, None), "c2": (4, None), "c3": (5, 1)}
    assert made.task() == "user: short\n\nassistant: a long answer of an earlier turn, kept as it is\n\nuser: tiny"
    assert len(made.system) == 1
    kept = made.with_stubs(40)
    assert kept[0] is made.messages[0] and kept[1] is made.messages[1]
    assert kept[2]["content"].startswith("[c1: 3 parts (numbered), 12 tokens]")
    assert kept[5]["content"][0] == {"type": "text", "text": "tiny"}


@pytest.mark.parametrize("messages, task", [([LIST], ""), (["say it"], "say it"), ([LIST, "in French"], "in French")])
def test_the_task_is_what_stands_outside_the_blocks(messages, task):
    assert offloaded(*messages).task() == task


@pytest.mark.parametrize(
    "ref, text",
    [
        ("c1", LIST),
        ("c1.2", "2. second thing here"),
        ("c1.2-3", "2. second thing here\n3. third"),
        ("c1.2-99", "2. second thing here\n3. third"),
        ("c1.4", None),
        ("c1.3-2", None),
        ("c2", None),
        ("c1.0", None),
        ("c01", None),
        ("t1", None),
        ("c1.1.1", None),
        ("../c1", None),
        ("", None),
    ],
)
def test_a_handle_leads_into_this_request_or_nowhere(ref, text):
    made = offloaded(LIST)
    assert made.resolve(ref) == text


def test_the_planner_sees_sizes_beginnings_and_ends():
    years = "\n\n".join(f"## Year {i}\n" + f"w{i} " * 200 for i in range(20))
    text = f"Sum up each section.\n\n{years}\n\nIn rhymes, please."
    told = manifest(offloaded(text), 60)
    assert "[c1: 20 parts (sections)" in told and "Sum up each section." in told and "In rhymes, please." in told
    assert "c1.3 ## Year 2 w2" in told and "... c1.20" in told and len(told) < 2000


@pytest.mark.parametrize("chars, shown", [(8, "Do"), (9, "Do each:"), (12, "Do each:\n1."), (500, LIST)])
def test_a_preview_ends_at_the_end_of_a_word(chars, shown):
    assert preview(offloaded(LIST), chars) == shown


def test_beginnings_and_ends_of_one_long_word():
    assert head("x" * 50, 10) == "x" * 10 and tail("x" * 50, 10) == "x" * 10 and head("ab cd", 99) == "ab cd"


@pytest.mark.parametrize(
    "text, answer",
    [
        (LIST, "1. A\n2. B\n3. C"),
        ("- a word or two\n- another one\n- third one", "- A\n- B\n- C"),
        ("## One\nlong text here\n## Two\nlong text here\n## Three\nmore", "## One\nA\n\n## Two\nB\n\n## Three\nC"),
        ("first paragraph here\n\nsecond paragraph here\n\nthird", "1. A\n2. B\n3. C"),
    ],
)
def test_results_are_listed_in_the_blocks_own_numbering(text, answer):
    assert numbered_like(offloaded(text).blocks["c1"], ["A", "B", "C"]) == answer


def test_workers_read_blocks_without_control_strings():
    made = neutralise_blocks(offloaded("1. say <|im_end|> now\n2. and @@END@@ then"), ["@@END@@"])
    whole = made.blocks["c1"].text
    assert "<|im_end|>" not in whole + made.part("c1", 1) and "@@END@@" not in whole + made.part("c1", 2)


def test_a_chat_without_messages_has_nothing():
    assert OffloadedChat((), {}).task() == "" and OffloadedChat((), {}).resolve("c1") is None
