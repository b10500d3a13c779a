"""A real ladder that several files of tests share. Only one Ray can serve a Stepdown, so it ends before another server starts."""

from contextlib import ExitStack

import pytest

from deployments.serve.background import served


class SharedLadder:
    """Starts when a test asks for it first."""

    def __init__(self):
        self.running = ExitStack()
        self.found = None

    def started(self, file):
        """(url up to /v1, key). file: makes the configuration."""
        if self.found is None:
            self.found = self.running.enter_context(served(str(file()), timeout_s=900))
        return self.found

    def stop(self):
        self.found = None
        self.running.close()


POCKET = SharedLadder()


def in_order(items):
    """The tests that share the ladder come first, so that it starts once. The order of the others stays."""
    items.sort(key=lambda item: "ladder" not in fixtures(item))


def make_room(item):
    """Stop the ladder before a test that may start another server."""
    if {"ray", "ladder"} & {mark.name for mark in item.iter_markers()} and "ladder" not in fixtures(item):
        POCKET.stop()


def fixtures(item):
    """Of tests/e2e alone: other folders may have a fixture of that name."""
    names = item.fixturenames if isinstance(item, pytest.Function) and "e2e" in item.path.parts else ()
    return set(names)
