"""`KernelRNN`: what the layers that are a cell and its `RNN` in one share."""

from .. import backend, regularizers
from .docstrings import with_what_is_seen
from .rnn import RNN

__all__ = ["KernelRNN"]


class KernelRNN(RNN):
    """Base of the layers around one cell that has kernels: ``RNN(cell_type(...))`` with one list of arguments.

    A subclass has `cell_type` and its constructor; the arguments of its cell are its attributes.

    Parameters
    ----------
    use_cudnn : bool or "auto", optional
        Keras's, for layers that `knows_cudnn`; True raises ValueError.
    **given
        The arguments of the cell, by name, and those of `RNN`.
    """

    cell_type = None
    knows_cudnn = True

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if KernelRNN in cls.__bases__:
            if cls.__doc__:  # not under python -OO
                cls.__doc__ = with_what_is_seen(cls.__doc__, (cls.cell_type, RNN), RNN.call)
            for name in (*cls.cell_type.argument_names, "implementation"):
                setattr(cls, name, _of_cell(cls.cell_type, name))

    def __init__(self, *, implementation=2, **given):
        if self.knows_cudnn:
            use_cudnn = given.pop("use_cudnn")
            if use_cudnn not in ("auto", True, False):
                raise ValueError(
                    "Invalid valid received for argument `use_cudnn`. Expected one of {'auto', True, False}. "
                    f"Received: use_cudnn={use_cudnn}"
                )
            if use_cudnn is True:
                raise ValueError(
                    "use_cudnn=True was specified, but cuDNN is not supported for this layer configuration: kernels "
                    "here are numbarnn's own"
                )
            self.use_cudnn = use_cudnn
        cell = self.cell_type(
            **{name: given.pop(name) for name in self.cell_type.argument_names},
            implementation=implementation,
            dtype=given.get("dtype"),
            trainable=given.get("trainable", True),
            name=backend.to_snake_case(self.cell_type.__name__),
        )
        super().__init__(cell, **given)

    def get_config(self):
        """Return the arguments that make this layer again."""
        config = {k: v for k, v in super().get_config().items() if k not in ("cell", "activity_regularizer")}
        for name, value in self.cell.cell_config().items():
            config[name] = value
            if name == "bias_regularizer":  # where Keras has it
                config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        return config


def _of_cell(cell_type, name):
    return property(lambda self: getattr(self.cell, name), doc=f"`{cell_type.__name__}.{name}` of the cell.")
