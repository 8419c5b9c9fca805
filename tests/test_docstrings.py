"""What `help` says of recurrent layers."""

import inspect
import pydoc

import pytest

from numbarnn import layers
from numbarnn.layers.docstrings import sections_of, with_what_is_seen

KERNEL_LAYERS = [layers.LSTM, layers.GRU, layers.SimpleRNN]
CLASSES = [
    *KERNEL_LAYERS, layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell, layers.RNN, layers.Bidirectional,
    layers.StackedRNNCells, layers.TimeDistributed,
]  # fmt: skip


def described(cls):
    """Names in the section Parameters."""
    lines = sections_of(cls.__doc__)["Parameters"]
    heads = [line.split(" : ")[0] for line in lines if line and not line.startswith(" ")]
    return [name for head in heads for name in head.split(", ")]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_argument_is_described_once(cls):
    arguments = inspect.signature(cls).parameters.values()
    names = ["**" * (p.kind is p.VAR_KEYWORD) + p.name for p in arguments]
    assert sorted(described(cls)) == sorted(names)


@pytest.mark.parametrize("cls", KERNEL_LAYERS, ids=lambda cls: cls.__name__)
def test_help_says_all_of_a_layer(cls):
    text = pydoc.plain(pydoc.render_doc(cls))
    assert "See `" not in text.split("Call arguments")[0]
    for line in (
        "return_sequences : bool", "Return the output at each timestep", "kernel_constraint, recurrent_constraint",
        "mask : array, shape (batch, timesteps), optional", "True where a timestep counts", "Call returns", "Raises",
        "If `units` is not a positive integer.", f">>> layers.{cls.__name__}(4)",
    ):  # fmt: skip
        assert line in text
    assert sections_of(cls.__doc__)["Call arguments"] == sections_of(layers.RNN.call.__doc__)["Parameters"]


def test_what_is_seen_elsewhere_is_written_out():
    class Other:
        """Another.

        Parameters
        ----------
        a, b : int
            Both.
        c
            Not asked for.
        """

    def call():
        """Call.

        Parameters
        ----------
        x : float

        Returns
        -------
        float

        Raises
        ------
        ValueError
            Never.
        """

    doc = """One.

    Parameters
    ----------
    z : str
        See `Nobody`.
    b, \
    y
        See `Other`.

    Examples
    --------
    >>> 1
    """
    assert with_what_is_seen(doc, [Other], call).splitlines() == [
        "One.", "", "Parameters", "----------", "z : str", "    See `Nobody`.", "b : int", "    Both.", "",
        "Call arguments", "--------------", "x : float", "", "Call returns", "------------", "float", "",
        "Raises", "------", "ValueError", "    Never.", "", "Examples", "--------", ">>> 1",
    ]  # fmt: skip
