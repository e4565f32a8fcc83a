"""`python -m zipml_cli`."""

from __future__ import annotations

import sys

from .main import main

# Worker processes import this module again under another name.
if __name__ == "__main__":
    sys.exit(main())
