"""Measurements, run by hand from the root of a checkout: ``python -m benchmarks.<module>``.

Each prints the machine, the versions and its peers, measured in the same run. None of them
asserts anything: what a number should be is for the tests, or for the reader.
"""
