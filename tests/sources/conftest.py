import sys
from pathlib import Path

# The helpers lie beside the tests, whatever import mode pytest runs in.
sys.path.insert(0, str(Path(__file__).parent))
