"""Small real data sets for examples and tests."""

from . import digits

__all__ = ["digits"]
