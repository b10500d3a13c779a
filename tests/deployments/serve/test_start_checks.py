"""What a start reports: a promise that a model cannot keep, and what its tiers cannot do."""

from types import SimpleNamespace

import pytest
from ray import serve
from ray.exceptions import RayError

from deployments import APP
from deployments.replicas.placement import deployment_of
from deployments.serve.start_checks import asked_abilities, broken_promise, limits
from router.config import Config
from router.decide.abilities import broken_promises
from router.errors import BadInput

pytestmark = pytest.mark.slow

PRICE = {"usd_per_accelerator_hour": 1}
NO_CHAT = {"chat": "its tokenizer has no chat template"}


def ladder(**changes) -> Config:
    tiers = [
        {"name": n, "engine": "vllm", "source": "a/b", "context": 100, "price": PRICE, **changes.get(n, {})} for n in ("a.1", "b")
    ]
    return Config.model_validate({"tiers": tiers})


def details(message: str, app: str = APP) -> dict:
    deployments = {"ingress": {"message": ""}, "tier-b": {"message": message}, "tier-c": {}}
    return {"applications": {app: {"deployments": deployments}}}


def test_a_promise_that_is_not_kept_is_found_in_what_serve_says():
    (tier, _) = ladder(**{"a.1": {"tools": True}}).tiers
    said = broken_promises(tier, {"tools": "it has no tool parser"})
    trace = "A replica failed to start with exception. Retrying 2 more times. Error:\n  in start\n    raise BadConfig(broken)\n"
    trace += f"router.errors.BadConfig: {said}\n"
    assert broken_promise(details(trace)) == said


@pytest.mark.parametrize("message", ["", "A replica failed to start. Error:\nRuntimeError: no memory", "UPDATING"])
def test_another_failure_is_left_to_serve(message):
    assert broken_promise(details(message)) == ""
    assert broken_promise(details("BadConfig: tiers.a.tools", app="another")) == ""
    assert broken_promise({}) == ""


class Cluster:
    """Serve's handles, by deployment; each answers what it is given or raises it."""

    def __init__(self, **answers) -> None:
        self.answers = {deployment_of(name): answer for name, answer in answers.items()}

    def get_deployment_handle(self, name, app):
        assert app == APP
        answer = self.answers[name]

        def result(timeout_s):
            if isinstance(answer, Exception):
                raise answer
            return answer

        return SimpleNamespace(abilities=SimpleNamespace(remote=lambda: SimpleNamespace(result=result)))


def asked(monkeypatch, config: Config, **answers):
    monkeypatch.setattr(serve, "get_deployment_handle", Cluster(**answers).get_deployment_handle)
    return asked_abilities(config)


def test_each_limit_is_a_line(monkeypatch):
    known = asked(monkeypatch, ladder(), **{"a.1": {**NO_CHAT, "json": ""}, "b": {"chat": "", "tools": "it has no tool parser"}})
    assert limits(known).strip().split("\n") == [
        "limit      a.1 answers no chats: its tokenizer has no chat template",
        "  limit      b takes no tools: it has no tool parser",
    ]


def test_a_limit_that_the_settings_have_is_told_in_their_words(monkeypatch):
    known = asked(monkeypatch, ladder(), **{"a.1": {"images": "its model reads text only"}, "b": {}})
    assert limits(known) == ""


def test_a_ladder_that_answers_no_chat_does_not_start(monkeypatch):
    with pytest.raises(BadInput, match="at least one has to answer chats"):
        asked(monkeypatch, ladder(), **{"a.1": NO_CHAT, "b": NO_CHAT})


@pytest.mark.parametrize("error", [TimeoutError(), RayError("gone")], ids=repr)
def test_a_replica_that_does_not_say_stops_no_start(monkeypatch, error):
    known = asked(monkeypatch, ladder(), **{"a.1": error, "b": {"chat": ""}})
    assert known.found == {"b": {"chat": ""}}


def test_a_tier_that_sleeps_is_not_woken(monkeypatch):
    config = ladder(b={"replicas": 0, "max_replicas": 1})
    assert list(asked(monkeypatch, config, **{"a.1": {"chat": ""}}).found) == ["a.1"]
