"""Anthropic's Messages: https://docs.anthropic.com/en/api/messages. Requests become OpenAI chats, chat answers messages.

May import `request`, the ground files and `protocols.edge`. Must not know another protocol, tiers, flows or HTTP.
"""

from router.protocols.messages.failures import error
from router.protocols.messages.model_list import model, models
from router.protocols.messages.requests import read

__all__ = ["error", "model", "models", "read"]
