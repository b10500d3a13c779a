"""Reading a request: the body's JSON is checked, its fields are each read by one rule, and its tokens are bounded.

May import the ground files (types, errors) and `classifiers`. Must not know tiers, prices or flows. A field that nothing here
reads goes to the tier untouched.
"""
