APP = "stepdown"
"""its name in Ray Serve"""
