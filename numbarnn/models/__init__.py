"""Models: layers that can be trained, evaluated and asked for predictions."""

from .model import Model
from .sequential import Sequential

__all__ = ["Model", "Sequential"]
