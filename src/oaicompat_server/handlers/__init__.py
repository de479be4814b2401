"""What is done for each route: one module by subject, each with the table of its routes and methods.

One rule: a handler answers, or raises an `OaicompatError`; what any error looks like is the router's business.
"""
