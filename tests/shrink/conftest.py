import sys
from pathlib import Path

# test modules are imported by path (importlib mode): this makes `random_nets` importable beside them
sys.path.insert(0, str(Path(__file__).parent))
