"""The protocols that clients speak. Each reads requests as OpenAI chats and writes answers back; none imports another.

It must not know tiers, flows or keys: what lies behind the edge is the same for all protocols.
"""
