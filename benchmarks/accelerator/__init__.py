"""Modelled time of the accelerator to equal loss: 1, 2, 4 and 8 bits against values of 32 bits.

Epochs are counted on the emulator, which computes what the gateware does, bit for bit; cycles come
from the formula that simulations are tested on, seconds from a profile (`zipml_ooc.gateware`).
"""
