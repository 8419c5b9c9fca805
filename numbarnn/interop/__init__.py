"""Files of other libraries."""

from .onnx import to_onnx
from .torch import from_torch, load_torch, to_torch

__all__ = ["from_torch", "load_torch", "to_onnx", "to_torch"]
