"""Teaching a smaller tier from a larger one's answers: which rows, which recipe, which gates. All of it is pure.

May import router/flywheel and the rooms below it. Must never know torch, files of weights, the database or HTTP.
"""
