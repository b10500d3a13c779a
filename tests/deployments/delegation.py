"""A ladder of scripted tiers whose largest plans: what the tests of delegation through a real server share."""

import openai
from live import ladder, serving
from planning import PLANNING
from scripted_tier import Said, ScriptedTier, asked

from router.engine import Router

PARTS = 8
TEXT = "Do each of these:\n" + "\n".join(f"{i}. Summarise report number {i} in one line." for i in range(1, PARTS + 1))
LONG = TEXT.replace("in one line", "in one line, from this text: " + "words " * 80)
CHAT = {"model": "auto", "messages": [{"role": "user", "content": TEXT}]}
MAP, DIRECT = '{"plan": [{"each": "c1"}]}', '{"plan": []}'
SETTINGS = {**PLANNING, "deadline_s": 10.0}


def is_plan(body) -> bool:
    return "plan" in str((body.get("response_format") or {}).get("json_schema", {}).get("name"))


def did(body) -> Said:
    return Said(f"did {asked(body).split()[3]}", wait_s=0.2)


def tiers(plan=MAP, worker=did, final=Said("plain answer", wait_s=0.05)):
    def large(body):
        return (plan if isinstance(plan, Said) else Said(plan, wait_s=0.05)) if is_plan(body) else final

    return {
        "small": ScriptedTier("small", worker),
        "medium": ScriptedTier("medium", worker),
        "large": ScriptedTier("large", large),
    }


def served(made, **changes):
    config = ladder(delegation={**SETTINGS, **changes})
    count = dict.fromkeys(config.names, lambda text: len(text.split()))
    return serving(Router(config, None, count), made)


def client(url):
    return openai.OpenAI(base_url=url, api_key="x", max_retries=0)
