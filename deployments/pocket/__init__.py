"""The embedded ladder: three small language models made by this project, and the recipe that made them."""
