"""Measurements of the accelerator: clock and area, how steadily it takes beats, what it learns."""
