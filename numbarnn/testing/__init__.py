"""What our tests measure with, for yours too: one definition of error, finite differences, naive loops."""

from . import reference
from .errors import TOLERANCE, assert_close, relative_error
from .gradcheck import GradientReport, gradcheck
from .gradients import check_gradients

__all__ = [
    "TOLERANCE",
    "GradientReport",
    "assert_close",
    "check_gradients",
    "gradcheck",
    "reference",
    "relative_error",
]
