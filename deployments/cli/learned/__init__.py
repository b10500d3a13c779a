"""What the commands of `stepdown flywheel` ask and say: options of a student's run, figures as text.

May import deployments/learning and the modules of cli that are shared. Must never know the commands, which call it.
"""
