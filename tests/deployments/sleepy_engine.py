"""A made-up engine that can sleep, for tests of dozing without vLLM. As vLLM does, it ends what runs when it is put to sleep."""

import asyncio


class SleepyEngine:
    """steps: what was asked of it, in order. fault: raised by the next waking. may_sleep, may_wake: both wait for these."""

    def __init__(self, steps=None) -> None:
        self.steps = [] if steps is None else steps
        self.fault = self.cannot_sleep = None
        self.may_sleep, self.may_wake = asyncio.Event(), asyncio.Event()
        self.may_sleep.set()
        self.may_wake.set()
        self.asleep, self.running, self.aborted = False, 0, 0
        self.held = asyncio.Event()
        """answers wait for it"""
        self.held.set()

    async def sleep(self, *, level) -> None:
        self.steps.append(f"sleep {level}")
        if self.cannot_sleep:
            raise self.cannot_sleep
        self.aborted += self.running
        await self.may_sleep.wait()
        self.asleep = True
        self.steps.append("asleep")

    async def wake_up(self) -> None:
        self.steps.append("wake")
        await self.may_wake.wait()
        if self.fault:
            fault, self.fault = self.fault, None
            raise fault
        self.asleep = False

    async def is_sleeping(self) -> bool:
        return self.asleep

    async def generate(self, text="x") -> str:
        if self.asleep:
            raise RuntimeError("asked in its sleep")
        self.running += 1
        try:
            await self.held.wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        self.steps.append(text)
        return text

    async def token(self) -> None:
        await self.generate("token")
