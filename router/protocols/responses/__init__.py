"""OpenAI's Responses: https://platform.openai.com/docs/api-reference/responses

Requests become chats, answers and streams of chats become responses. May import `router.protocols.edge`, the errors, and its own
files. Must not know the other protocol, tiers or HTTP; time, ids and secrets come in with `edge.About`.
"""

from router.protocols.responses.failures import error
from router.protocols.responses.reading import previous, read
from router.protocols.responses.references import owners, with_items

__all__ = ["error", "owners", "previous", "read", "with_items"]
