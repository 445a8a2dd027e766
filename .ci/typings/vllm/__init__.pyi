# vLLM need not be installed where types are checked, and folders here have its name: nothing is known of what is in it.
from typing import Any

def __getattr__(name: str) -> Any: ...
