"""What a replica asks its engine before it is ready."""

import asyncio
import logging

from deployments.replicas.warm_up import bodies, warm_up


class Engine:
    def __init__(self, fault=None):
        self.fault, self.asked, self.closed = fault, [], 0

    async def chat(self, body):
        self.asked.append(body)
        try:
            if self.fault:
                raise self.fault
            yield "an answer"
        finally:
            self.closed += 1


def test_log_probabilities_and_guided_tokens_are_asked_for_once():
    engine = Engine()
    asyncio.run(warm_up("small", engine.chat))
    assert engine.asked == bodies("small") and engine.closed == 2
    assert [bool(body.get("logprobs")) for body in engine.asked] == [True, False]
    assert [bool(body.get("response_format")) for body in engine.asked] == [False, True]
    assert all(body["max_tokens"] <= 4 and body["model"] == "small" for body in engine.asked)


def test_a_model_that_cannot_do_them_serves_all_the_same(caplog):
    engine = Engine(ValueError("no chat template"))
    with caplog.at_level(logging.WARNING, "stepdown"):
        asyncio.run(warm_up("small", engine.chat))
    assert len(engine.asked) == engine.closed == 2  # the second is tried though the first failed
    assert "warm-up of small: ValueError: no chat template" in caplog.text
