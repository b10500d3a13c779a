"""What stands between a protocol and the chat behind it. Nothing behind the edge learns which protocol a client speaks.

A protocol's room has `read(body, about) -> Edge` and `error(failed, request_id) -> Failure`. Everything here is pure: time, ids
and secrets are passed in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from router.errors import RequestFailed

Name = Literal["responses", "messages"]


class Seals(Protocol):
    """Marks reasoning that leaves the server, so that it is recognised when the client sends it back."""

    def sealed(self, text: str, tier: str) -> str:
        """The text, encrypted."""
        ...

    def unsealed(self, token: str) -> tuple[str, str] | None:
        """(text, tier) of what `sealed` returned for the same key; None: it is somebody else's, or broken."""
        ...

    def signature(self, text: str, tier: str) -> str: ...

    def signer(self, text: str, signature: str) -> str | None:
        """The tier that `signature` was given for with this text; None: somebody else's, or another text's."""
        ...


@dataclass(frozen=True, slots=True)
class About:
    """What reading and answering a request needs beside its body."""

    id: str
    """the request's trace id, 32 hexadecimal digits"""
    at_s: int
    """Unix time"""
    seals: Seals
    reasoning: Literal["summary", "text", "hidden"] = "summary"
    """how reasoning is shown: Responses has two forms of it"""
    stores: bool = False
    """whether answers can be continued by their id"""
    history: Sequence[Mapping[str, Any]] = ()
    """chat messages of the answer that the request continues, without instructions"""


class Encoder(Protocol):
    """Turns the chat chunks of one stream into a protocol's events, in the order that the protocol demands.

    Each event is whole: `event: NAME\\ndata: JSON\\n\\n`. Chunks are OpenAI's `chat.completion.chunk`, with `choices[0].delta`
    (`content`, `reasoning` or `reasoning_content`, `refusal`, `tool_calls` with `index`) and `finish_reason`; the last, without
    choices, has `usage`.
    """

    def waiting(self) -> list[bytes]:
        """The tier has not said anything for a while. Opens the stream if nothing has."""
        ...

    def fed(self, chunk: Mapping[str, Any]) -> list[bytes]:
        """Opens the stream if nothing has."""
        ...

    def failed(self, failed: RequestFailed) -> list[bytes]:
        """The last events of a stream that broke."""
        ...

    def ended(self) -> list[bytes]:
        """The last events of a stream that did not. To be called once the request is written down."""
        ...

    def said(self) -> dict[str, Any]:
        """The whole answer so far, as an assistant's chat message: what a request that continues it will read."""
        ...


class Edge(Protocol):
    """One request that was read."""

    @property
    def name(self) -> Name: ...

    @property
    def tells_prompt(self) -> bool:
        """Whether its streams tell the prompt's tokens before the tier does."""
        ...

    @property
    def body(self) -> dict[str, Any]:
        """An OpenAI chat body. It has passed no check of ours: `wire.parse` reads it next."""
        ...

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields and tools that do nothing here, by their names: `store`, `tools.web_search`."""
        ...

    @property
    def session(self) -> str:
        """What the body calls the conversation; empty: nothing."""
        ...

    def document(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """A chat completion as the protocol's answer."""
        ...

    def said(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """A chat completion's message, as `Encoder.said`."""
        ...

    def encoder(self, prompt_tokens: int = 0) -> Encoder:
        """prompt_tokens: our count of the prompt, for events that tell it before the tier does."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a protocol words it."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
