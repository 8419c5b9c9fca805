"""What a cell gives to the rest of the library, and the arrays its kernels take.

Axes: B batch rows, T timesteps, I inputs, H units, G gates, S states.  All arrays are C-contiguous, of one dtype
(float32 or float64) unless said, always present (an absent one has a zero axis) and allocated by the caller.

========== ================== =====================================================================================
x          [B, T, I]          inputs
kernel     packed [I, G*H]    ``gemm.pack_gates(kernel, G)``; the bias packed the same way, as a matrix of one row
recurrent  packed [H, G*H]    ``gemm.pack_gates(recurrent_kernel, G)``
states     [S, slots, B, H]   slot 0 holds the first states.  With T+1 slots (training), slot s+1 holds those after
step s;
                              with 2 (inference), steps alternate between the slots: the last states are in slot T % 2
out        [B, T, H]          what the layer emits at each step, in the order of the steps; [B, 0, H]: nobody asks
flags      [T, B] uint8       bits: COUNTS the step counts for this row (else its state is carried over), CUT the state
                              is set to zero before the step, SILENT zeros are emitted
live       [T] int64          at step s only rows 0 .. live[s]-1 can count: the others are carried over
x_factors  [M, B, I]          dropout factors of the inputs: M = 0 (none), 1 (for all gates) or G (for each gate)
h_factors  [M, B, H]          dropout factors of h before the recurrent product
tape       [T, B, G*H]        what backward needs; [0, B, G*H] in inference.  `backward` turns it into the gradients
of z d_out      [B, T, H]          gradient of `out`; [B, 0, H]: none d_states   [S, B, H]          in: gradient of
the last states; out: of the first states d_x        [B, T, I]          gradient of the inputs, zeros at the start;
[B, 0, I]: nobody asks
========== ================== =====================================================================================

Kernels run steps ``first <= s < last`` for the rows ``start <= b < stop``; `backward` from the last down to the
first.  Step s reads timestep s of `x`, or T-1-s with ``backwards``; everything else is indexed by s.  Calls on
disjoint rows may run at once; calls on consecutive segments of steps give the bits of one call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from numbarnn.gemm import aligned_empty

COUNTS = 1
CUT = 2
SILENT = 4


class Workspace(NamedTuple):
    """The arrays of one pass that are not the caller's data, in the order in which `Cell.forward` takes them."""

    states: np.ndarray
    out: np.ndarray
    flags: np.ndarray
    live: np.ndarray
    x_factors: np.ndarray
    h_factors: np.ndarray
    tape: np.ndarray


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: its sizes and its kernels.

    Attributes
    ----------
    name : str
        Name of the cell, as in error messages.
    gates, states : int
        G and S: how many gates its kernels hold side by side, how many state arrays it carries.
    default_activation, default_recurrent_activation : str
        The activations that its fast kernel holds; other names run the same kernel with run-time codes.
    step, step_back : callable
        One step and its derivative on any values: vectors in kernels, scalars, NumPy arrays.
    forward, backward : callable
        The loops over time, as described above.
    """

    name: str
    gates: int
    states: int
    default_activation: str
    default_recurrent_activation: str
    step: Callable
    step_back: Callable
    forward: Callable
    backward: Callable

    def workspace(
        self,
        batch,
        timesteps,
        inputs,
        units,
        dtype="float32",
        training=False,
        return_sequences=True,
        empty=aligned_empty,
    ):
        """Allocate what a pass needs beside inputs and weights: first states zero, every step counts, no dropout.

        Parameters
        ----------
        batch, timesteps, inputs, units : int
            B, T, I, H.
        dtype : str or dtype
            float32 or float64.
        training : bool
            Keep what `backward` needs.
        return_sequences : bool
            Make room for the outputs of all steps.
        empty : callable
            ``empty(shape, dtype)`` gives the memory of states and tape.

        Returns
        -------
        Workspace
        """
        states = empty((self.states, timesteps + 1 if training else 2, batch, units), dtype)
        states[:, 0] = 0
        return Workspace(
            states=states,
            out=np.empty((batch, timesteps if return_sequences else 0, units), dtype),
            flags=np.full((timesteps, batch), COUNTS, np.uint8),
            live=np.full(timesteps, batch, np.int64),
            x_factors=np.empty((0, batch, inputs), dtype),
            h_factors=np.empty((0, batch, units), dtype),
            tape=empty((timesteps if training else 0, batch, self.gates * units), dtype),
        )
