"""Server-sent events in bytes: whole events from whatever parts arrive, and the data that an event carries."""

END = b"\n\n"
FIELDS = (b"data", b"event", b"id", b"retry", b"")  # of an event's lines; a comment has none before its colon


class EventBuffer:
    """Puts events together. Every kind of line end becomes \\n. What is no event, but a page or a document, passes as it is.

    most: bytes; what grows beyond them is handed on although it is not whole.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = bytearray()
        self.after_cr = False
        """the last part ended in \\r: a \\n that comes next belongs to it"""

    def feed(self, part: bytes) -> list[bytes]:
        """The events that have become whole, each without its blank line."""
        if not self.held and not self.after_cr and part.endswith(END) and b"\r" not in part:
            return part[:-2].split(END)
        if self.after_cr:
            part = part.removeprefix(b"\n")
        self.after_cr = part.endswith(b"\r")
        seen = max(0, len(self.held) - 1)
        self.held += part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = self.held.rfind(END, seen)
        if end < 0:
            return self.rest() if len(self.held) > self.most else []
        whole = bytes(self.held[:end])
        del self.held[: end + len(END)]
        return [event.strip(b"\n") for event in whole.split(END)]

    def rest(self) -> list[bytes]:
        """What is left at the end: an event whose blank line did not come."""
        rest = bytes(self.held).strip(b"\n")
        self.held.clear()
        return [rest] if rest else []


def data_of(event: bytes) -> bytes | None:
    """The data of an event's lines; empty: it is a comment, or has no data. None: these are no lines of an event."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    found = [line.partition(b":") for line in event.split(b"\n")]
    if not any(name in FIELDS and (colon or name) for name, colon, _ in found):
        return None
    return b"\n".join(value.removeprefix(b" ") for name, _, value in found if name == b"data")
