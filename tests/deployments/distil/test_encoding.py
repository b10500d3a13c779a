"""Rows as token ids through a model's own template: what is counted, and what is left out and why."""

import pytest
from distilling import MODELS, a_row, write_data

from deployments.distil import base_models, encoding
from deployments.distil.batching import EncodedRow, Position, RowSource, in_order, padded
from router.errors import BadInput

CHATML = (
    "{% if tools %}<|tools|>{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}{{ '<|user|>' if m.role != 'assistant' else '<|assistant|>' }}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function.name }}({{ call.function.arguments | tojson }})</call>"
    "{% endfor %}{{ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@pytest.fixture
def tokenizer():
    return base_models.load_tokenizer(MODELS / "small")


def chatml(tokenizer):
    tokenizer.chat_template = CHATML
    return tokenizer


END = 3


def parts(tokenizer, row):
    return tokenizer.decode(row.ids[: row.prompt]), tokenizer.decode(row.answer)


def test_a_template_that_writes_no_answers_leaves_them_as_they_are(tokenizer):
    found = encoding.encoded(a_row(1, "What is 2 plus 3?", "5"), tokenizer, [END])
    assert parts(tokenizer, found) == ("<|user|>What is 2 plus 3?<|end|><|assistant|>", "5<|end|>")


def test_it_is_what_the_pocket_recipe_was_trained_on(tokenizer):
    from deployments.pocket import tasks
    from deployments.pocket.data import Encoder

    task = tasks.Task("What is 2 plus 3?", "5", "add", 1)
    own = Encoder().rows([task])[0]
    found = encoding.encoded(a_row(1, task.prompt, task.answer), tokenizer, [END])
    assert found.ids.tolist() == own.ids.tolist() and found.prompt == own.prompt


def test_a_template_that_writes_answers_is_followed_and_what_it_adds_after_the_end_is_not_learned(tokenizer):
    found = encoding.encoded(a_row(1, "Add 1 and 2.", "3"), chatml(tokenizer), [END])
    assert parts(tokenizer, found) == ("<|user|>Add 1 and 2.<|end|>\n<|assistant|>", "3<|end|>")


def test_tools_are_in_the_prompt_and_calls_in_the_answer(tokenizer):
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    row = a_row(1, "Add 1.", "", tools=(tool,))
    row = type(row)(
        **{name: getattr(row, name) for name in row.__slots__} | {"answer": {"role": "assistant", "tool_calls": [call]}}
    )
    prompt, answer = parts(tokenizer, encoding.encoded(row, chatml(tokenizer), [END]))
    assert '"name": "add"' in prompt and answer == '<call>add({"a": 1})</call><|end|>'


@pytest.mark.parametrize(
    "prompt, answer, reason",
    [("Add.", "", encoding.NOT_SHOWN), ("Add.", "5<|end|>6", encoding.ENDS_INSIDE), ("Add " + "x" * 300, "5", encoding.TOO_LONG)],
)
def test_what_cannot_be_learned_is_left_out_and_counted(tokenizer, prompt, answer, reason):
    rows = [a_row(1, prompt, answer), a_row(2, "What is 2 plus 3?", "5")]
    found = encoding.encode(rows, tokenizer, [END], longest=100)
    assert [row.id for row in found.rows] == ["r2"] and found.left_out == {reason: 1}


def test_calls_that_a_template_does_not_write_are_left_out(tokenizer):
    row = a_row(1, "Add 1.", "")
    answer = {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
    row = type(row)(**{name: getattr(row, name) for name in row.__slots__} | {"answer": answer})
    assert encoding.encoded(row, tokenizer, [END]) == encoding.NOT_SHOWN


def test_an_answer_whose_first_letters_join_the_prompt_is_left_out(tokenizer):
    """The prompt ends with a letter there, and the answer makes a word of it: served, the model could not write it so."""
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert encoding.encoded(a_row(1, "Ad", "d"), tokenizer, [END]) == encoding.NOT_ONE


def test_a_template_that_refuses_a_chat_leaves_it_out(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert encoding.encoded(a_row(1, "a", "b"), tokenizer, [END]) == encoding.REFUSED


@pytest.mark.parametrize("line, said", [("nonsense", "line 1: no JSON"), ('{"id": "x"}', "not a row"), ('["x"]', "not a row")])
def test_lines_that_are_no_rows_are_refused(tmp_path, line, said):
    write_data(tmp_path, [])
    (tmp_path / "train.jsonl").write_text(line + "\n")
    with pytest.raises(BadInput, match=said):
        list(encoding.read_rows(tmp_path, "train"))


def test_rows_that_were_changed_are_refused(tmp_path):
    write_data(tmp_path, [a_row(1, "a", "b")])
    write_data(tmp_path, [a_row(1, "a", "b")], files={"train.jsonl": base_models.sha256(tmp_path / "train.jsonl")})
    assert encoding.read_manifest(tmp_path)["form"] == 1
    (tmp_path / "train.jsonl").write_text((tmp_path / "train.jsonl").read_text().replace('"b"', '"c"'))
    with pytest.raises(BadInput, match="was changed"):
        encoding.read_manifest(tmp_path)


def test_a_folder_without_rows_is_no_data_folder(tmp_path):
    with pytest.raises(BadInput, match=r"train\.jsonl"):
        encoding.read_manifest(tmp_path)


# -- batches -----------------------------------------------------------------------------------------------------------------


def some_rows(count=50):
    import numpy as np

    return [EncodedRow(np.arange(1, 4 + i % 7, dtype=np.int32) + i, 2, f"r{i}") for i in range(count)]


def test_the_mask_counts_answers_and_never_padding():
    rows = some_rows(5)
    batch = padded(rows, pad=0)
    assert batch.answer_tokens == sum(len(row.answer) for row in rows)
    assert batch.ids[batch.answer].tolist() == [token for row in rows for token in row.answer.tolist()]


def test_each_round_shows_every_row_once_within_the_limits():
    rows = some_rows()
    source = RowSource(rows, 0, micro_tokens=30, batch_tokens=90, pad=0)
    for number in (0, 1):
        planned = source.planned(number)
        assert sorted(row for step in planned for one in step for row in one) == list(range(50))
        for step in planned:
            sizes = [len(one) * max(len(rows[row].ids) for row in one) for one in step]
            assert max(sizes) <= 30 and sum(sizes) <= 90
    assert source.planned(0) != source.planned(1)


def test_a_source_goes_on_from_any_position():
    source = RowSource(some_rows(), 3, micro_tokens=30, batch_tokens=60, pad=0)
    steps = source.steps(Position())
    seen = [next(steps) for _ in range(12)]
    for at, (position, _) in enumerate(seen[:-1]):
        assert next(source.steps(position))[1][0].ids.tolist() == seen[at + 1][1][0].ids.tolist()
    assert seen[-1][0].round >= 1


def test_dev_batches_hold_every_row_once():
    rows = some_rows()
    assert sum(len(batch.ids) for batch in in_order(rows, 40, 0)) == 50 and in_order([], 40, 0) == []
