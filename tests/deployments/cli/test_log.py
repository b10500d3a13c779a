"""`stepdown log`: numbers of what is kept, training files in four forms, and forgetting, which names what was made of it."""

import json

import pytest
from click.testing import CliRunner
from kept_answers import TRACE, database, keep, kept, with_metadata
from sqlalchemy import func, insert, select

from deployments.cli.main import main
from deployments.learning.kept.feedback import Said, give
from deployments.ledger.database import writing
from deployments.ledger.schema import bundles, completions, feedback, fills, grades, model_rows, models
from router.learn.evidence import read_seen
from router.learn.outcomes import read_outcomes

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
pytestmark = pytest.mark.slow
SIGNALS = json.dumps({"mean_logprob": -0.1, "min_logprob": -0.5, "logprob_tokens": 3, "first_logprobs": [-0.1, -0.1, -0.1]})


@pytest.fixture
def engine(tmp_path):
    made = database(tmp_path)
    yield made
    made.dispose()


@pytest.fixture
def config(tmp_path):
    def write(**learning):
        tiers = [{"name": name, "engine": "echo", "context": 400, "price": PRICE} for name in ("small", "large")]
        settings = {"tiers": tiers, "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}, "learning": learning}
        path = tmp_path / "ladder.yaml"
        path.write_text(json.dumps(settings))
        return str(path)

    return write


def graded(engine, *numbers: int, tiers=("small", "large")) -> None:
    """Drawn, with an answer and a grade of each tier; of every second one the small tier's answer is wrong."""
    for n in numbers:
        keep(engine, with_metadata(n, metadata={"app": "mail" if n % 2 else "chat"}, signals=SIGNALS, conversation=f"c{n}"))
        keep(engine, kept(n, role="fill", tier="large", signals=SIGNALS))
        trace = TRACE.format(n)
        with writing(engine) as connection:
            connection.execute(insert(fills).values(trace_id=trace, drawn_s=1, chance=0.1, state="done", why="", changed_s=1))
            for tier in tiers:
                score = float(n % 2) if tier == "small" else 1.0
                values = {"trace_id": trace, "tier": tier, "score": score, "source": "top" if tier == "large" else "agreement"}
                connection.execute(insert(grades).values(**values, detail="", at_s=1))


def corrected(engine, n: int, text: str) -> None:
    with writing(engine) as connection:
        give(connection, Said(TRACE.format(n), "app", 5.0, 0.0, text))


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["log", *words])
    assert done.exit_code == code, done.output
    return done.output


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# -- show ------------------------------------------------------------------------------------------------------------------


def test_show_counts_what_is_kept(engine, config):
    graded(engine, *range(4))
    keep(engine, kept(9, "other", consent="all", licence=""))
    corrected(engine, 0, "It is one.")
    found = json.loads(run("show", "--config", config(), "--json", "--last", "2"))
    assert found["requests"] == 5 and found["consent"] == {"marked": 4, "all": 1} and found["licences"]["unknown"] == 1
    assert {(row["tier"], row["role"]): row["rows"] for row in found["rows"]} == {("small", "answer"): 5, ("large", "fill"): 4}
    assert found["grades"][0] == {"source": "agreement", "tier": "small", "answers": 4, "scored": 4, "failures": 2}
    assert found["feedback"] == {"given": 1, "scored": 1, "failures": 1, "corrections": 1}
    assert [row["id"] for row in found["last"]] == [f"chatcmpl-{TRACE.format(n)}" for n in (9, 3)]
    text = run("show", "--config", config())
    assert "requests  5" in text and "What is 9 plus 1?" in text and "agreement" in text


@pytest.mark.parametrize(
    ("options", "requests"),
    [
        (["--key", "app"], 4),
        (["--metadata", "app=mail"], 2),
        (["--metadata", "app=mail", "--key", "other"], 0),
        (["--tier", "large"], 0),
        (["--tier", "small", "--metadata", "app=chat"], 2),
        (["--until", "2000-01-01"], 5),
        (["--since", "2000-01-01"], 0),
    ],
)
def test_show_counts_only_what_was_chosen(engine, config, options, requests):
    graded(engine, *range(4))
    keep(engine, kept(9, "other"))
    found = json.loads(run("show", "--config", config(), "--json", *options))
    assert found["requests"] == requests == len(found["last"])
    assert sum(row["answers"] for row in found["grades"]) == (2 * min(requests, 4))


def test_an_empty_log_says_how_to_fill_it(engine, config):
    assert "learning.collect" in run("show", "--config", config())


# -- export ----------------------------------------------------------------------------------------------------------------


def test_an_export_is_read_as_a_table_of_label(engine, config, tmp_path):
    graded(engine, *range(12))
    graded(engine, 12, tiers=("large",))
    path = tmp_path / "rows.jsonl"
    told = run("export", "--config", config(), "-o", str(path))
    assert "12 requests" in told and "left out: 1 x not every tier has a grade" in told
    names = {"small": "small", "large": "large"}
    found = read_outcomes(path, names)
    assert found.scores[:, 0].tolist() == [float(n % 2) for n in range(12)] and (found.weights == 10.0).all()
    assert found.groups.tolist() == [f"c{n}" for n in range(12)]
    seen = read_seen([path], names, found)
    assert seen is not None and seen.prefix is not None
    assert "13 requests" in run("export", "--config", config(), "-o", str(path), "--partial")


def test_a_correction_goes_before_the_answer_in_every_form(engine, config, tmp_path):
    graded(engine, 0, 1)
    corrected(engine, 0, "It is one.")
    path = tmp_path / "rows.jsonl"
    asked = [{"role": "user", "content": "What is 0 plus 1?"}]
    answer = {"role": "assistant", "content": "It is one."}
    wanted = {
        "openai": {"messages": [*asked, answer]},
        "trl": {"prompt": asked, "completion": [answer]},
        "sharegpt": {
            "id": TRACE.format(0),
            "conversations": [{"from": "human", "value": asked[0]["content"]}, {"from": "gpt", "value": "It is one."}],
        },
    }
    for form, first in wanted.items():
        run("export", "--config", config(), "-o", str(path), "--format", form)
        assert lines(path)[0] == first and len(lines(path)) == 2
    run("export", "--config", config(), "-o", str(path), "--format", "openai", "--metadata", "app=mail")
    assert [row["messages"][-1]["content"] for row in lines(path)] == ["It is 2."]


def test_only_answers_that_are_good_enough(engine, config, tmp_path):
    graded(engine, *range(6))
    corrected(engine, 0, "It is one.")
    path = tmp_path / "rows.jsonl"
    told = run("export", "--config", config(), "-o", str(path), "--format", "openai", "--least-score", "1")
    assert [row["messages"][-1]["content"] for row in lines(path)] == ["It is one.", "It is 2.", "It is 4.", "It is 6."]
    assert "left out: 2 x its answer's score" in told


def hide(messages):
    return [
        {**message, "content": (message["content"] or "").replace("plus", "NAME").replace("It", "NAME")} for message in messages
    ]


def drop(messages):
    return None


def broken(messages):
    raise RuntimeError("secret")


def test_an_export_is_redacted_once_more(engine, config, tmp_path):
    graded(engine, 0, 1)
    corrected(engine, 0, "It is one.")
    path = tmp_path / "rows.jsonl"
    for form in ("stepdown", "openai", "sharegpt", "trl"):
        run("export", "--config", config(redact=f"{__name__}:hide"), "-o", str(path), "--format", form)
        assert "plus" not in path.read_text() and "It is" not in path.read_text() and path.read_text().count("NAME") >= 4


@pytest.mark.parametrize(("hook", "why"), [("drop", "keeps nothing of it"), ("broken", "failed")])
def test_what_the_hook_does_not_let_out_stays(engine, config, tmp_path, hook, why):
    graded(engine, 0, 1)
    told = run("export", "--config", config(redact=f"{__name__}:{hook}"), "-o", str(tmp_path / "rows.jsonl"), "--json")
    found = json.loads(told.splitlines()[-1])
    assert found["rows"] == 0 and found["left_out"] == {f"learning.redact {why}": 2}


# -- forget ----------------------------------------------------------------------------------------------------------------


def made_from(engine, digest: str, *numbers: int, slot: str = "") -> None:
    words = {"kind": "router", "parent": "", "run_id": f"run-{digest}", "method": "linear", "dataset": "", "licence": ""}
    with writing(engine) as connection:
        connection.execute(insert(models).values(digest=digest, seed=0, made_s=1e9, files="{}", **words))
        connection.execute(insert(model_rows), [{"digest": digest, "trace_id": TRACE.format(n)} for n in numbers])
        if slot:
            place = {"slot": slot, "digest": digest, "run_id": "", "share": 1.0, "since_s": 1.0, "over": "", "by": ""}
            connection.execute(insert(bundles).values(**place))


def left(engine) -> list[int]:
    with engine.connect() as connection:
        tables = (completions, grades, fills, feedback)
        return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]


def test_forget_removes_rows_and_names_what_was_made_from_them(engine, config):
    graded(engine, *range(4))
    keep(engine, kept(9, "other"))
    corrected(engine, 1, "It is two.")
    made_from(engine, "aaaa1111", 0, 1, 2, slot="promoted")
    made_from(engine, "bbbb2222", 1)
    made_from(engine, "cccc3333", 9)
    told = run("forget", "--config", config(), "--metadata", "app=mail", "--yes")
    assert "2 requests forgotten, with 4 answers" in told and "Weights do not forget" in told
    assert "aaaa1111" in told and "promoted" in told and "bbbb2222" in told and "cccc3333" not in told
    assert left(engine) == [5, 4, 2, 0]
    found = json.loads(run("forget", "--config", config(), "--key", "app", "--yes", "--json"))
    assert found["requests"] == 2 and [row["digest"] for row in found["artefacts"]] == ["aaaa1111"]
    assert found["artefacts"][0]["in_use"] == ["promoted"] and found["artefacts"][0]["requests"] == 2
    assert left(engine) == [1, 0, 0, 0]


def test_forget_takes_ids_of_replies_and_of_traces(engine, config):
    keep(engine, *(kept(n) for n in range(4)))
    asked = ["--id", TRACE.format(1), "--id", f"chatcmpl-{TRACE.format(3)}", "--id", "none"]
    assert "2 requests forgotten" in run("forget", "--config", config(), *asked, "--yes")
    assert left(engine)[0] == 2
    assert "0 requests" in run("forget", "--config", config(), "--id", "none", "--yes")


def test_what_is_forgotten_is_in_no_file_any_more(engine, config, tmp_path):
    keep(engine, *(kept(n, answer=json.dumps({"role": "assistant", "content": f"secret {n} " * 900})) for n in range(20)))
    run("forget", "--config", config(), "--key", "app", "--yes")
    left_over = b"".join(file.read_bytes() for file in tmp_path.glob("ledger.db*"))
    assert b"secret" not in left_over and b"What is" not in left_over


def test_forget_asks_first(engine, config):
    keep(engine, kept(0))
    made_from(engine, "aaaa1111", 0)
    done = CliRunner().invoke(main, ["log", "forget", "--config", config(), "--key", "app"], input="n\n")
    assert done.exit_code == 1 and "1 kept requests are meant" in done.output and "aaaa1111" in done.output
    assert left(engine)[0] == 1


def test_more_than_one_batch_is_forgotten(engine, config, monkeypatch):
    monkeypatch.setattr("deployments.learning.kept.log_report.BATCH", 3)
    keep(engine, *(kept(n, created_s=5.0) for n in range(10)))
    assert "10 requests" in run("forget", "--config", config(), "--until", "2000-01-01", "--yes")
    assert left(engine)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["forget", "--yes"], "say what to forget"),
        (["forget", "--key", "app", "--json"], "--yes"),
        (["show", "--metadata", "app"], "NAME=VALUE"),
        (["show", "--metadata", "a=1", "--metadata", "a=2"], "each NAME once"),
        (["show", "--since", "soon"], "`since`"),
        (["show", "--since", "2026-02-01", "--until", "2026-01-01"], "must end after"),
        (["export", "-o", "x", "--format", "openai", "--partial"], "--partial"),
        (["export", "-o", "x", "--least-score", "1"], "--least-score"),
        (["export", "-o", "x", "--format", "csv"], "csv"),
        (["export", "-o", "no/such/folder/x"], "no/such/folder"),
    ],
)
def test_bad_options_are_refused(engine, config, words, said):
    assert said in run(words[0], "--config", config(), *words[1:], code=2)


def test_no_ledger_is_one_line(config, tmp_path):
    assert "no ledger at" in run("show", "--config", config(), code=2)
