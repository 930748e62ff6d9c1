"""Attention engines behind one function, `attend(q, k, v, plan, scale) → (out, lse)`.

Engines call kernels directly and never change another library's global state.
"""

from longgen.attention.choose import choose, table
from longgen.attention.sdpa import attend
from longgen.attention.text import with_text
from longgen.core.merge import merge

__all__ = ["attend", "choose", "merge", "table", "with_text"]
