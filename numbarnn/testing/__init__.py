"""What our tests measure with, for yours too: one definition of error, finite differences, naive loops."""

from . import reference
from .errors import TOLERANCE, assert_close, relative_error
from .gradients import check_gradients

__all__ = ["TOLERANCE", "assert_close", "check_gradients", "reference", "relative_error"]
