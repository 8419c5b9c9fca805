"""Models: layers that can be trained, evaluated and asked for predictions."""

from .functional import Functional
from .model import Model
from .sequential import Sequential
from .stepper import Stepper

__all__ = ["Functional", "Model", "Sequential", "Stepper"]
