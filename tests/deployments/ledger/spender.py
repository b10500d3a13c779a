"""Processes that spend a key's budget: `spender.py URL PROCESSES REQUESTS MOST_USD SPENT_USD HOW`.

It waits for a line; then each process asks for all its requests at once, prints the ids of those let in, and settles them.
HOW `holds`: they wait to be killed. Forked, so that they begin at the same time and import once.
"""

import asyncio
import json
import os
import sys

from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger.database import connect
from router.config import Ledger
from router.errors import BudgetSpent
from router.limits.reservation import Size


async def spend(url: str, requests: int, most_usd: float, spent_usd: float, how: str) -> None:
    engine = connect(Ledger(url=url))
    keys, key = Keys(engine), key_store.find(engine, "bob").key

    async def one(n: int):
        try:
            return await keys.admit(key, f"{os.getpid()}-{n}", Size(10, 10), most_usd)
        except BudgetSpent:
            return None

    grants = [grant for grant in await asyncio.gather(*map(one, range(requests))) if grant]
    os.write(1, json.dumps([grant.trace_id for grant in grants]).encode() + b"\n")
    if how == "holds":
        await asyncio.sleep(600)
    await asyncio.gather(*(keys.settle(grant, spent_usd, 20) for grant in grants))


def main(url: str, processes: int, *arguments) -> int:
    os.write(1, b"ready\n")
    sys.stdin.readline()
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            asyncio.run(spend(url, *arguments))
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]), sys.argv[6]))
