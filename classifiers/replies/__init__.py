"""What is learned from answers: whether two agree, and better chances and costs once some tiers have answered.

This room may import `models`, `costs` and the rooms below them. It must not know how prompts are calibrated (`sufficiency`),
how artefacts are stored, or what a cascade does with the chances.
"""
