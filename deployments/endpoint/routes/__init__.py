"""What the endpoint offers beside chat: other protocols, models, its own description.

It imports the room's answering. It must not know how the server is started, nor the pages of costs and learning.
"""
