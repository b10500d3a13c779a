"""From a data folder to a trained model in a run folder: the command, kill -9, adapters, what is refused."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner
from distilling import MODELS, pocket_data, tiny_model
from safetensors.torch import load_file

from deployments.cli.distil_train import train as command
from deployments.distil import adapters, base_models, training
from deployments.distil.training import Job
from router.distil.recipe import Asked
from router.errors import BadInput

FEW = 6_000  # tokens


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pocket_data(tmp_path_factory.mktemp("data"), licences=["apache-2.0"])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("base") / "tiny")


def run(data, base, folder, **asked):
    return training.train(Job(data, base, folder, Asked(**{"tokens": FEW, **asked})), lambda progress, recipe: None)


def invoke(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def greedy(model, tokenizer, prompts):
    said = []
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        said.append(model.generate(**ids, max_new_tokens=12, do_sample=False)[0].tolist())
    return said


@pytest.mark.slow
def test_a_run_folder_holds_a_model_that_serves_and_says_how_it_came_about(data, base, tmp_path):
    manifest = run(data, base, tmp_path / "run")
    found = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert found == ["card.md", "manifest.json", "model", "progress.jsonl", "wanted.json"]
    assert manifest["dataset_sha256"] == "d" * 64 and manifest["licences"] == ["apache-2.0"] and manifest["rows"] == 60
    assert manifest["parents"] == [base_models.digest_of(base)]
    assert manifest["model_sha256"] == base_models.digest_of(tmp_path / "run" / "model") != manifest["parents"][0]
    assert manifest["tokens"] >= FEW and manifest["dev"][-1][1] < manifest["dev"][0][1]
    assert "apache-2.0" in (tmp_path / "run" / "card.md").read_text()
    model = base_models.load_model(tmp_path / "run" / "model")
    assert model.config.vocab_size == base_models.load_model(base).config.vocab_size
    base_models.load_tokenizer(tmp_path / "run" / "model")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_an_adapter_answers_as_the_merged_model(data, tmp_path, family):
    from peft import PeftModel

    base = tiny_model(tmp_path / family, family)
    manifest = run(data, base, tmp_path / "run", lora=True, rank=8, learning_rate=3e-2, tokens=30_000)
    settings = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert settings["r"] == 8 and settings["lora_alpha"] == 16 and settings["modules_to_save"] is None
    assert settings["target_modules"] == sorted("q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split())
    assert settings["base_model_name_or_path"] == family
    assert sorted(path.name for path in (tmp_path / "run" / "adapter").iterdir()) == [adapters.SETTINGS, adapters.WEIGHTS]
    tokenizer, prompts = base_models.load_tokenizer(base), [f"What is {n} plus {n + 1}?" for n in range(10)]
    with adapters.without_warnings():
        beside = PeftModel.from_pretrained(base_models.load_model(base), tmp_path / "run" / "adapter")
    merged = base_models.load_model(tmp_path / "run" / "model")
    plain = greedy(base_models.load_model(base), tokenizer, prompts)
    assert greedy(beside, tokenizer, prompts) == greedy(merged, tokenizer, prompts) != plain
    assert manifest["dev"][-1][1] < manifest["dev"][0][1]


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_kill_9_and_the_same_call_again_give_the_same_bits(data, tmp_path, family, lora):
    base = tiny_model(tmp_path / family, family)
    wanted = {"tokens": 20_000, "lora": lora, "threads": 1}
    run(data, base, tmp_path / "whole", tokens=20_000, lora=lora)
    killed = started(data, base, tmp_path / "cut", wanted)
    killed.wait(300)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "cut" / "checkpoint.safetensors").is_file()
    again = subprocess.run(process(data, base, tmp_path / "cut", wanted), timeout=300, check=False)
    assert again.returncode == 0
    for name in ("model", "adapter") if lora else ("model",):
        whole, cut = (weights_of(tmp_path / run_name / name) for run_name in ("whole", "cut"))
        assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)
    lines = [json.loads(line) for line in (tmp_path / "cut" / "progress.jsonl").read_text().splitlines()]
    assert lines[-1]["event"] == "finished"


def weights_of(folder):
    return load_file(next(folder.glob("*.safetensors")))


def process(data, base, folder, wanted):
    return [sys.executable, "-m", "deployments.distil.training_process", str(data), str(base), str(folder), json.dumps(wanted)]


DIES = """
import os, signal, sys
from deployments.distil import checkpoint, trainer, training_process
trainer.EVERY_S = 0.0
save, saved = checkpoint.save, []
def counted(file, *rest):
    save(file, *rest)
    saved.append(file)
    if len([one for one in saved if one.name == trainer.CHECKPOINT]) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save = counted
sys.exit(training_process.main(sys.argv[1:]))
"""


def started(data, base, folder, wanted):
    """A process that is killed after its ninth checkpoint."""
    return subprocess.Popen([sys.executable, "-c", DIES, *process(data, base, folder, wanted)[3:]])


@pytest.mark.slow
def test_a_process_that_is_asked_to_end_goes_on_later(data, base, tmp_path):
    wanted = {"tokens": 400_000, "threads": 1, "beside": True}
    child = subprocess.Popen(process(data, base, tmp_path / "run", wanted), stdin=subprocess.PIPE)
    until = time.monotonic() + 120
    while not (tmp_path / "run" / "progress.jsonl").is_file() and time.monotonic() < until:
        time.sleep(0.1)
    child.stdin.close()  # as when the parent dies
    assert child.wait(60) == 3
    assert json.loads((tmp_path / "run" / "checkpoint.json").read_text())["progress"]["steps"] > 0
    assert json.loads((tmp_path / "run" / "progress.jsonl").read_text().splitlines()[-1])["event"] == "interrupted"


@pytest.mark.slow
def test_a_process_that_cannot_do_it_says_why(data, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.pt").write_bytes(b"x")
    done = subprocess.run(process(data, tmp_path / "base", tmp_path / "run", {}), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "can run code" in done.stderr and not (tmp_path / "run").exists()


# -- the command -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_trains_once_and_then_says_so(data, base, tmp_path):
    arguments = (data, "-o", tmp_path / "run", "--base", base, "--tokens", FEW, "--json")
    first = [json.loads(line) for line in invoke(*arguments).output.splitlines()]
    assert first[0]["event"] == "progress" and first[0]["of"] == FEW
    assert first[-1]["event"] == "finished" and first[-1]["already"] is False and first[-1]["base"]["name"] == "tiny"
    before = base_models.digest_of(tmp_path / "run" / "model")
    again = invoke(*arguments[:-1])
    assert again.exit_code == 0 and "finished already; nothing was done" in again.output
    assert base_models.digest_of(tmp_path / "run" / "model") == before
    other = invoke(*arguments, "--seed", 1)
    assert isinstance(other.exception, BadInput) and "belongs to a training with asked" in str(other.exception)
    other_rows = pocket_data(tmp_path / "other", seed=9)
    refused = invoke(other_rows, *arguments[1:])
    assert isinstance(refused.exception, BadInput) and "rows_sha256" in str(refused.exception)


def test_a_folder_with_other_things_is_left_alone(data, base, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    found = invoke(data, "-o", tmp_path, "--base", base)
    assert isinstance(found.exception, BadInput) and "choose a new folder" in str(found.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("name", ["template_sha256", "tokenizer_sha256"])
def test_rows_for_another_template_or_tokenizer_are_refused(base, tmp_path, name):
    other = pocket_data(tmp_path / "data", 5, 2, **{name: "a" * 64})
    with pytest.raises(BadInput, match=f"another|{name.removesuffix('_sha256')} aaaaaaaaaaaa"):
        run(other, base, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_students_folder_comes_from_the_ladder(tmp_path):
    from deployments.cli.distil_train import student_folder

    data = pocket_data(tmp_path, 1, 1, student={"tier": "medium"})
    assert student_folder(data, "pocket", None) == (MODELS / "medium", "medium")
    with pytest.raises(BadInput, match="--base FOLDER"):
        student_folder(data, "pocket", "huge")


def test_rows_that_are_all_too_long_are_refused(data, base, tmp_path):
    with pytest.raises(BadInput, match="none of its rows can be learned .*longer than the limit"):
        run(data, base, tmp_path / "run", longest=4)


# -- the real thing ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_pocket_small_tier_learns(tmp_path):
    """A thousand rows of the kinds of task that it fails most, and it does better on others of these kinds."""
    import random

    from distilling import a_row, write_data

    from deployments.pocket import tasks
    from deployments.pocket.train import answers

    def some(count, seed):
        rng = random.Random(seed)
        return [tasks.single(rng, lambda r: (r.choice(["reverse", "letter", "sort"]), r.choice([3, 4]))) for _ in range(count)]

    rows = [a_row(i, task.prompt, task.answer) for i, task in enumerate(some(1_100, 1))]
    write_data(tmp_path / "data", rows[:1_000], rows[1_000:])
    run(tmp_path / "data", MODELS / "small", tmp_path / "run", tokens=250_000)
    held_out, right = some(200, 2), {}
    for name, folder in (("before", MODELS / "small"), ("after", tmp_path / "run" / "model")):
        with torch.inference_mode():
            said = answers(base_models.load_model(folder), [task.prompt for task in held_out], 30)
        right[name] = sum(answer == task.answer for answer, task in zip(said, held_out, strict=True)) / len(held_out)
    assert right["after"] > right["before"] + 0.05, right
