"""Recurrent cells: their equations, and the kernels that run them on plain arrays.

Layers are built on these kernels; so may your own code be, from Python or inside a function that Numba compiles. A
cell is a module (`lstm`) with a record of its parts, a `Cell`; the arrays are described in `numbarnn.cells.contract`.
Weights are packed once with `Cell.pack`, and again when they change.

Examples
--------
A batch of 2 sequences, 5 timesteps of 3 features, 4 units, inside the user's own compiled function:

>>> import numpy as np
>>> from numba import njit
>>> from numbarnn import cells
>>> from numbarnn.cells import lstm
>>> rng = np.random.default_rng(0)
>>> weights = cells.LSTM.pack(rng.normal(size=(3, 16)), rng.normal(size=(4, 16)))
>>> work = cells.LSTM.workspace(batch=2, timesteps=5, inputs=3, units=4, dtype="float64")
>>> @njit
... def mean_output(x, weights, work):
...     batch, timesteps, _ = x.shape
...     kernel, recurrent, bias = weights
...     states, out, flags, order, x_factors, h_factors, tape = work
...     states[:, 0] = 0  # a workspace used again holds other states by now
...     lstm.forward(
...         0, batch, x, kernel, recurrent, bias, states, out, flags, order, x_factors, h_factors, tape,
...         0, timesteps, False, None, None,
...     )
...     return out.mean()
>>> x = rng.normal(size=(2, 5, 3))
>>> mean_output(x, weights, work) == mean_output(x, weights, work)
True

The last states are in ``states[:, timesteps % 2]``; copied to ``states[:, 0]`` they are where the next piece of the
sequences begins.

The same from Python, checked and with threads, is `numbarnn.recurrence.run`. One step on numbers or arrays, for reading
and for tests, is ``lstm.step``:

>>> h, c, *gates = lstm.step(0.0, 0.0, 0.5, 0.0, 1.0, None, None)
>>> print(f"{c:.4f}")
0.7311
"""

from numbarnn.cells.contract import Cell, Workspace
from numbarnn.cells.gru import CELL as GRU
from numbarnn.cells.gru_reset_before import CELL as GRU_RESET_BEFORE
from numbarnn.cells.lstm import CELL as LSTM
from numbarnn.cells.simple_rnn import CELL as SIMPLE_RNN

__all__ = ["GRU", "GRU_RESET_BEFORE", "LSTM", "SIMPLE_RNN", "Cell", "Workspace"]
