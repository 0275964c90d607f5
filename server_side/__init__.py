"""Finds winning tickets on a server: iterative magnitude pruning with rewinding, its controls, its verdict, its report.

`python -m server_side.find --help` is the command; `server_side.search.Search.run` is the algorithm.
"""
