"""The embedded ladder: three small language models made by this project, and the recipe that made them.

tasks.py makes graded prompts from the texts of templates.json and facts.json, data.py cuts them into training batches, train.py
is the recipe, commands.py its commands. May import no other room of `deployments`; torch and transformers only where models
are trained. Must not know how tiers are served.
"""
