"""Real data sets for examples and tests."""

from . import digits, mnist

__all__ = ["digits", "mnist"]
