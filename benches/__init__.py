"""Benches: each times a hot path against a named baseline in the same run and ends in one line of JSON."""
