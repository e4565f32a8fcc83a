"""How to choose the part of the rounding correction: rules compared in closed form on many tables.

    python -m benchmarks.guard [--quick] [--data FOLDER] [--figure docs/figures/guard.svg]

Tables are rounded to levels that `zipml_codecs` fits, many times; each rule chooses a part of the
correction, the normal equations are solved in doubles, and the model is scored on the original
values. One core takes some minutes for all of it. `--data` names the folder of the real tables
(by default that of the environment variable ZIPML_TEST_DATA); without it they are left out. Needs
scikit-learn, and matplotlib for the figure.
"""
