from dataclasses import replace

import pytest
from kept_rows import NAMES, PRINTS, config_of, kept_rows

from classifiers import load
from router.decide.certificates import Certificate, Infeasible
from router.engine import Router
from router.flywheel.candidate import alike, make_candidate, target_of
from router.flywheel.rows.dataset import Dataset, build

pytestmark = pytest.mark.slow
TWO = ("small", "large")


@pytest.fixture(scope="module")
def dataset():
    return build(kept_rows(700), NAMES, 1e9, 0)


@pytest.fixture(scope="module")
def of_two():
    """Of two tiers, which are learned in half the time."""
    return build(kept_rows(500, names=TWO), TWO, 1e9, 0)


@pytest.fixture(scope="module")
def made(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "router"
    return make_candidate(dataset, config_of(), PRINTS, folder, 7), folder


def test_a_log_alone_gives_a_router_with_a_certificate(made):
    found, folder = made
    assert isinstance(found.certificate, Certificate) and found.why == "" and found.holdback is None
    assert found.certificate.bound <= 0.05 and found.certificate.coverage > 0.2
    assert load(folder, NAMES).manifest == {**load(folder).manifest, **found.manifest}


def test_the_manifest_says_what_it_was_made_of(made, dataset):
    found, _ = made
    assert found.manifest["dataset_sha256"] == dataset.digest and found.manifest["seed"] == 7
    assert found.manifest["cascades"]["balanced"]["threshold"] == found.certificate.threshold


def test_the_certificate_is_made_of_rows_that_were_not_trained_on(made, dataset):
    found, folder = made
    texts = [row.messages[-1]["content"] for row in dataset.certify]
    assert not load(folder).trained_on(texts).any() and found.certificate.n == len(dataset.certify)


def test_no_prompt_is_left_in_the_folder(made, dataset):
    _, folder = made
    whole = b"".join(file.read_bytes() for file in folder.iterdir())
    assert sorted(file.name for file in folder.iterdir()) == ["answers.skops", "manifest.json", "model.skops"]
    assert not any(row.messages[-1]["content"].encode() in whole for row in dataset.train)


def test_the_engine_serves_under_it(made):
    _, folder = made
    router = Router(config_of(), load(folder), dict.fromkeys(NAMES, lambda text: len(text)), fingerprints=PRINTS)
    assert router.flows.promises.covering("balanced", 0) == "valid"
    assert router.flows.promises.covering("balanced", 0.7) == "uncovered"


def test_the_same_dataset_gives_the_same_model(made, dataset, tmp_path):
    _, folder = made
    make_candidate(dataset, config_of(), PRINTS, tmp_path / "again", 7)
    for name in ("model.skops", "answers.skops"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_streams_are_certified_too_where_they_are_judged_by_their_beginning(of_two, tmp_path):
    found = make_candidate(of_two, config_of("holdback", names=TWO), PRINTS, tmp_path / "router", 0)
    assert isinstance(found.certificate, Certificate)
    assert isinstance(found.holdback, Certificate | Infeasible)
    assert "balanced:holdback" in found.manifest["certificates"]


def test_where_no_answer_is_judged_nothing_is_certified_and_it_says_so(of_two, tmp_path):
    found = make_candidate(of_two, config_of("pre", names=TWO), PRINTS, tmp_path / "router", 0)
    assert found.certificate is None and "escalation.mode is pre" in found.why and found.manifest["rules"]


def test_too_few_rows_to_certify_with_send_everything_up_and_say_how_many_are_needed(of_two, tmp_path):
    few = replace(of_two, certify=of_two.certify[:40])
    found = make_candidate(few, config_of(names=TWO), PRINTS, tmp_path / "router", 0)
    assert isinstance(found.certificate, Infeasible) and "even without a loss 45 are needed" in found.why
    assert found.manifest["cascades"]["balanced"]["threshold"] > 1


@pytest.mark.parametrize("rows", [0, 12])
def test_too_few_rows_are_no_error(rows, tmp_path):
    few = build(kept_rows(rows), NAMES, 1e9, 0)
    found = make_candidate(few, config_of(), PRINTS, tmp_path / "router", 0)
    assert not found.manifest and found.why.startswith("nothing could be trained") and not (tmp_path / "router").exists()


def test_a_top_tier_that_is_always_right_can_be_learned_from(of_two, tmp_path):
    def graded(row):
        return replace(row, grades={**row.grades, "large": replace(row.grades["large"], score=1.0, source="top")})

    sides = {side: tuple(map(graded, getattr(of_two, side))) for side in ("train", "certify", "test")}
    found = make_candidate(replace(of_two, **sides), config_of(names=TWO), PRINTS, tmp_path / "router", 0)
    assert found.manifest["cascades"]["balanced"]["expected_cost"] < 1


def test_the_target_is_the_configured_one_or_balanced():
    assert target_of(config_of(target="quality")) == "quality" and target_of(config_of(target=0.97)) == "balanced"


def test_a_certificate_is_for_the_most_frequent_temperature_of_plain_chats():
    rows = kept_rows(10)
    rows = [replace(row, sampling={} if i < 6 else {"temperature": 0.7}) for i, row in enumerate(rows)]
    assert alike(rows) == (rows[:6], {"temperature": None})
    asked = [replace(row, sampling={"response_format": {"type": "json_object"}}) for row in rows]
    assert alike(asked) == ([], {})


def test_an_unknown_classifier_is_said(tmp_path):
    assert "flywheel.classifier" in make_candidate(Dataset(NAMES), config_of(classifier="oracle"), {}, tmp_path / "r", 0).why
