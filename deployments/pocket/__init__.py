"""The embedded ladder: three small language models made by this project, and the recipe that made them. tasks.py makes graded
prompts from templates.json and facts.json, data.py batches of them, train.py the models; commands.py has the commands.
May import deployments/distil and no other room of `deployments`; torch and transformers only where models are trained. Must not
know serving.
"""
