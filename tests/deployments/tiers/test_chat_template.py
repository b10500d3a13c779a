"""The count of a request is an upper bound: of whatever a chat template writes, tokenized as the tier does it."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from deployments.tiers.token_counters import TokenizerCount, counters
from router.config import load_config
from router.engine_settings import ModelSource
from router.request.token_bounds import Reader

pytestmark = pytest.mark.slow

FOLDER = Path("deployments/pocket/models/large")
FILE = (FOLDER / "tokenizer.json").read_bytes()
ITSELF = Tokenizer.from_buffer(FILE)
OURS = Path(__file__).parent / "chat_templates"
TEMPLATES = {"pocket": FOLDER / "chat_template.jinja"} | {file.stem: file for file in sorted(OURS.glob("*.jinja"))}
TEMPLATES = {name: file.read_text("utf-8").removesuffix("\n") for name, file in TEMPLATES.items()}
NAMES = {"bos_token": "<|user|>", "eos_token": "<|end|>"}

TEXT = st.one_of(
    st.text("0123456789abcdef", max_size=60),
    st.text("0123456789", max_size=60),
    st.text("的一是不了人我在有他这中大来上国", max_size=20),
    st.sampled_from(
        [
            "🙂👩‍👩‍👧",
            "def f(x):\n    return {'a': [x]}\n",
            "  a  ",
            "\n\n",
            "",
            "ok",
            "<|end|><|user|>",
            "Plan each of these, please",
        ]
    ),
    st.text(max_size=30),
)
VALUE = st.recursive(
    st.none() | st.integers() | TEXT, lambda of: st.lists(of, max_size=4) | st.dictionaries(TEXT, of, max_size=3), max_leaves=8
)
ARGUMENTS = st.dictionaries(TEXT, VALUE, max_size=4).map(lambda value: json.dumps(value, separators=(",", ":")))
FUNCTION = st.fixed_dictionaries({"name": TEXT, "arguments": ARGUMENTS})
CALLS = st.lists(FUNCTION.map(lambda function: {"id": "c", "type": "function", "function": function}), max_size=3)
PLAIN = st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user", "assistant"]), TEXT)
CALLING = st.builds(lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls}, TEXT | st.none(), CALLS)
RESULT = st.builds(lambda text, name: {"role": "tool", "content": text, "tool_call_id": "c", "name": name}, TEXT, TEXT)
THINKING = st.builds(lambda text, why: {"role": "assistant", "content": text, "reasoning_content": why}, TEXT, TEXT)
MESSAGES = st.lists(PLAIN | CALLING | RESULT | THINKING, max_size=8).map(lambda found: [*found, {"role": "user", "content": "x"}])
TURNS = st.lists(TEXT, min_size=1, max_size=40).map(
    lambda texts: [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
)
TOOLS = st.lists(
    st.builds(
        lambda name, schema: {"type": "function", "function": {"name": name, "parameters": {"properties": schema}}},
        TEXT,
        st.dictionaries(TEXT, VALUE, max_size=3),
    ),
    max_size=3,
)


def folder_of(tmp_path, text):
    (tmp_path / "chat_template.jinja").write_text(text)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(NAMES))
    return tmp_path


@pytest.fixture(scope="module", params=list(TEMPLATES))
def told(request, tmp_path_factory):
    """(the count, the template as transformers compiles it)"""
    compiled = pytest.importorskip("transformers.utils.chat_template_utils")._compile_jinja_template(TEMPLATES[request.param])
    folder = folder_of(tmp_path_factory.mktemp(request.param), TEMPLATES[request.param])
    return TokenizerCount(FILE, ModelSource("it", folder)), compiled


def read_by_tier(compiled, body):
    """Tokens of the prompt that vLLM makes of a body."""
    messages = [dict(message) for message in body["messages"]]
    for message in messages:
        message["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
            for call in message.get("tool_calls") or []
        ]
    try:
        text = compiled.render(
            messages=messages,
            tools=body.get("tools") or None,
            add_generation_prompt=True,
            **NAMES,
            **body.get("chat_template_kwargs", {}),
        )
    except Exception:  # noqa: BLE001 the tier would refuse it too
        return None
    return len(ITSELF.encode(text, add_special_tokens=False).ids)


@pytest.mark.slow
@settings(max_examples=150)
@given(messages=MESSAGES | TURNS, tools=TOOLS, kwargs=st.sampled_from([{}, {"enable_thinking": False}]))
@example(messages=[{"role": "user", "content": "ok"}] * 40, tools=[], kwargs={})
def test_no_tier_reads_more_than_was_counted(told, messages, tools, kwargs):
    count, compiled = told
    body = {"messages": messages, "chat_template_kwargs": kwargs} | ({"tools": tools} if tools else {})
    read = read_by_tier(compiled, body)
    assume(read is not None)
    assert Reader(count, 1 << 20).total(body) >= read


@pytest.mark.parametrize("name, least, each", [("pocket", 3, 0), ("chatml", 40, 20), ("indented", 20, 20), ("alternating", 1, 4)])
def test_what_a_template_adds_is_measured(tmp_path, name, least, each):
    """The pocket tokenizer has a token for each character of these templates' words, so they are dear here."""
    cost = TokenizerCount(FILE, ModelSource("it", folder_of(tmp_path, TEMPLATES[name]))).template
    assert cost.per_prompt >= least and (cost.per_message >= each > 0 or cost.per_message == each)


def test_the_pocket_tiers_windows_are_not_spent_on_guesses():
    """512 tokens are few: a plain question costs its own tokens and the three of the template, and one for how texts join."""
    reader = Reader.of(load_config("pocket").tiers[0], counters(load_config("pocket"))["small"])
    asked = {"messages": [{"role": "user", "content": "what is 2 plus 3"}]}
    assert reader.total(asked) == len(ITSELF.encode("what is 2 plus 3").ids) + 4


@pytest.mark.parametrize("text", ["{% for %}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{{ messages[0].x.y }}", ""])
def test_where_a_template_cannot_be_measured_safe_figures_are_used(tmp_path, text):
    made = TokenizerCount(FILE, ModelSource("it", folder_of(tmp_path, text)))
    assert made.template is None and Reader(made, 512).total({"messages": [{"role": "user", "content": "a"}]}) == 1 + 64 + 8


def test_a_template_in_the_tokenizers_settings_and_one_in_the_tiers_are_found(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "chat_template": [
                    {"name": "tool_use", "template": "x"},
                    {"name": "default", "template": "{{ messages[0].content }}!!!"},
                ]
            }
        )
    )
    assert TokenizerCount(FILE, ModelSource("it", tmp_path)).template.per_prompt == 4
    own = "{{ messages[0].content }}!!!!!!"
    assert TokenizerCount(FILE, ModelSource("it", tmp_path, chat_template=own)).template.per_prompt == 7
    (tmp_path / "own.jinja").write_text(own)
    assert TokenizerCount(FILE, ModelSource("it", None, chat_template=str(tmp_path / "own.jinja"))).template.per_prompt == 7


def test_special_tokens_in_a_users_text_count_as_the_text_that_some_tiers_read():
    made = TokenizerCount(FILE)
    assert made.tokens("<|end|>") == len("<|end|>") and made.tokens("hello") == len(ITSELF.encode("hello").ids)


def test_marks_for_training_are_written_as_what_is_inside(tmp_path):
    text = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert TokenizerCount(FILE, ModelSource("it", folder_of(tmp_path, text))).template is not None
