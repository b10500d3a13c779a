"""OpenAI's Responses as chats: https://platform.openai.com/docs/api-reference/responses

It must not know or import another protocol, nor anything behind the edge.
"""
