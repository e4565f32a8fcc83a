"""Measurements, run by hand from the root of a checkout: ``python -m benchmarks.<module>``.

Those that measure time print the machine and their peers, measured in the same run. None of them
asserts anything: what a number should be is for the tests, or for the reader.
"""
