"""Models: layers that can be trained, evaluated and asked for predictions."""

from .cloning import clone_model, model_from_json
from .functional import Functional
from .model import Model
from .saving import load_model, save_model
from .sequential import Sequential
from .stepper import Stepper

__all__ = [
    "Functional",
    "Model",
    "Sequential",
    "Stepper",
    "clone_model",
    "load_model",
    "model_from_json",
    "save_model",
]
