"""The accelerator: linear models trained in hardware on packed codes, as they stream by.

`reference` is the arithmetic in NumPy, `stream` and `scaling` turn datasets into beats and fixed
point, and `accelerator` is the gateware in Amaranth, which needs the extra ``fpga``. What runs
where is specified in docs/accelerator.md.
"""

import time

IMPORTED = time.time()  # ahead of every module of the package
