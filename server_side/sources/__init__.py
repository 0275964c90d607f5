"""Readers of labelled data, a module a kind of source: each gives Samples, which server_side/data.py checks and splits.

A reader refuses files that are missing, damaged, mixed up or of the wrong size; it never changes a value of a sample.
"""
