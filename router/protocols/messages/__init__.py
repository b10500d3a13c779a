"""Anthropic's Messages as chats: https://docs.anthropic.com/en/api/messages

It must not know or import another protocol, nor anything behind the edge.
"""
