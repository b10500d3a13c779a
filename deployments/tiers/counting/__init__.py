"""How many tokens a text or a chat is to a tier: by its tokenizer and its chat template, where they are on this machine.

Imports `router` and `classifiers`. Knows no engine, and asks no tier.
"""
