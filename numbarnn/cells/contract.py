"""What a cell gives to the rest of the library, and the arrays its kernels take.

Axes: B batch rows, T timesteps, I inputs, H units, G gates, S states, P planes of the tape.  All arrays are
C-contiguous, of one dtype (float32 or float64) unless said, always present (an absent one has a zero axis) and
allocated by the caller.

========== ================== =====================================================================================
x          [B, T, I]          inputs
kernel     packed [I, G*H]    `Cell.pack` of the weights: panels of gates side by side; `backward` takes those of
                              `Cell.pack_back`, the transposed weights
recurrent  packed [H, G*H]    the same
bias       packed [1, N*H]    where the gates' chains begin; N > G where a gate has two chains
states     [S, slots, B, H]   slot 0 holds the first states.  With T+1 slots (training), slot s+1 holds those after
                              step s; with 2 (inference), steps alternate: the last states are in slot T % 2
out        [B, T, H]          what the layer emits at each step, in the order of the steps; [B, 0, H]: nobody asks
flags      [T, B] uint8       bits: COUNTS the step counts for this row (else its state is carried over), CUT the state
                              is set to zero before the step, SILENT zeros are emitted
order      [B] int64          row r of the kernel is row order[r] of x, out, d_out and d_x, while states, flags, factors
                              and tape have the kernel's rows; [0]: the rows are in order
x_factors  [M, B, I]          dropout factors of the inputs: M = 0 (none), 1 (for all gates) or G (for each gate)
h_factors  [M, B, H]          dropout factors of h before the recurrent product
tape       [T, B, P*H]        what backward needs; [0, B, P*H] in inference.  `backward` turns its first planes into the
                              gradients of the gates' inputs, at the steps that count
d_out      [B, T, H]          gradient of `out`; [B, 0, H]: none
d_states   [S, B, H]          in: gradient of the last states; out: of the first states
d_x        [B, T, I]          gradient of the inputs, zeros at the start; [B, 0, I]: nobody asks
room       [K]                working memory of `forward`, K as `Cell.room` says; None: it allocates its own
member     int                which member of a team this call is, see `numbarnn.meeting`; 0 without a team
meeting    [members, 16] int64 where the team meets: `numbarnn.meeting.assembly`, new for each kernel; None: no team
========== ================== =====================================================================================

Kernels run steps ``first <= s < last`` for the kernel's rows ``start <= r < stop``; `backward` from the last down to
the first.  Step s reads timestep s of `x`, or T-1-s with ``backwards``; everything else is indexed by s.  Rows behind
the last one that counts at a step leave its products, so rows in falling order of length cost what they are long.
Calls on disjoint rows may run at once; calls on consecutive segments of steps give the bits of one call.  So do the
calls of a team, with the same arguments but for `member`, which run at once and share the units of the same rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from numbarnn import gemm
from numbarnn.jit import kernel_array

COUNTS = 1
CUT = 2
SILENT = 4

# What the last gate has apart from the others, see `Cell.apart`.
NOTHING = 0
PRODUCT = 1
OPERAND = 2


FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def refuse_unfit(name, array, shape, dtype, kind=np.ndarray):
    """Refuse an array of another type, dtype or shape."""
    if not isinstance(array, kind):
        raise TypeError(f"{name} must be a NumPy array; got {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}; got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {array.shape}")


def check_array(name, array, shape, dtype, kind=np.ndarray):
    """Return an array as kernels take it, or refuse one of another type, dtype or shape."""
    refuse_unfit(name, array, shape, dtype, kind)
    return kernel_array(array) if isinstance(array, np.ndarray) else array


class Workspace(NamedTuple):
    """The arrays of one pass that are not the caller's data, in the order in which `Cell.forward` takes them."""

    states: np.ndarray
    out: np.ndarray
    flags: np.ndarray
    order: np.ndarray
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
        G and S: how many gates its kernel has, how many state arrays it carries.
    shared : int
        How many gates, from the first on, have their panels side by side; the others have panels of their own.
    apart : int
        What the last gate has apart from the others: NOTHING; PRODUCT, its recurrent product, with a bias of its own
        (the bias has two rows, the tape one more plane for the gradient of that product); OPERAND, the left side of its
        recurrent product, which the tape keeps in one more plane.
    default_activation, default_recurrent_activation : str or None
        The activations that its fast kernel holds; other names run the same kernel with run-time codes. A cell without
        gates has no recurrent activation.
    phases : tuple of (callable, callable)
        The pointwise parts of a step, in order, each with its derivative: a product comes before each of them. They
        take any values: vectors in kernels, scalars, NumPy arrays.
    forward, backward : callable
        The loops over time, as described above.
    """

    name: str
    gates: int
    states: int
    shared: int
    apart: int
    default_activation: str
    default_recurrent_activation: str | None
    phases: tuple[tuple[Callable, Callable], ...]
    forward: Callable
    backward: Callable

    @property
    def planes(self):
        """P: how many arrays of H units the tape keeps of a step."""
        return self.gates + (self.apart != NOTHING)

    def bias_shape(self, units):
        """Shape of the bias: (G*H,), or (2, G*H) for the chains of inputs and of h."""
        return (2, self.gates * units) if self.apart == PRODUCT else (self.gates * units,)

    def pack(self, kernel, recurrent_kernel, bias=None):
        """Pack the weights as `forward` takes them.

        Parameters
        ----------
        kernel, recurrent_kernel : ndarray of shape (I, G*H), (H, G*H)
            float32 or float64.
        bias : ndarray of shape ``bias_shape(H)``, optional
            Zeros by default.

        Returns
        -------
        kernel, recurrent, bias : ndarray

        Raises
        ------
        TypeError, ValueError
            For a weight whose type, dtype or shape does not fit the others.
        """
        dtype, units = self.check_weights(kernel, recurrent_kernel)
        if bias is None:
            bias = np.zeros(self.bias_shape(units), dtype)
        refuse_unfit("bias", bias, self.bias_shape(units), dtype)
        return gemm.pack_cell(kernel, recurrent_kernel, self.chain_bias(bias), self.gates, self.shared)

    def chain_bias(self, bias, xp=np):
        """Where the gates' chains begin: one row, [N*H], made by the array module `xp` of the bias."""
        if self.apart != PRODUCT:
            return bias
        # The joint chains of the other gates begin with both biases, the last gate's two chains with one each.
        joint = bias.shape[1] // self.gates * (self.gates - 1)
        return xp.concatenate([bias[0, :joint] + bias[1, :joint], bias[0, joint:], bias[1, joint:]])

    def check_weights(self, kernel, recurrent_kernel, kind=np.ndarray):
        """Return the dtype of weights that fit each other, and H."""
        for name, matrix in (("kernel", kernel), ("recurrent_kernel", recurrent_kernel)):
            if not isinstance(matrix, kind) or matrix.dtype not in FLOATS:
                came = getattr(matrix, "dtype", type(matrix).__name__)
                raise TypeError(f"{name} must be a float32 or float64 NumPy array; got {came}")
            if matrix.ndim != 2:
                raise ValueError(f"{name} must have two axes; got shape {matrix.shape}")
        dtype, units = kernel.dtype, recurrent_kernel.shape[0]
        if units == 0:
            raise ValueError(f"recurrent_kernel must have at least one row; got shape {recurrent_kernel.shape}")
        refuse_unfit("recurrent_kernel", recurrent_kernel, (units, self.gates * units), dtype, kind)
        refuse_unfit("kernel", kernel, (kernel.shape[0], self.gates * units), dtype, kind)
        return dtype, units

    def pack_back(self, kernel, recurrent_kernel):
        """Pack the weights as `backward` takes them; arguments and errors are those of `pack`.

        Returns
        -------
        kernel, recurrent : ndarray
        """
        self.check_weights(kernel, recurrent_kernel)
        return gemm.pack_cell_transposed(kernel, recurrent_kernel)

    def room(self, rows, inputs, units, dtype):
        """Elements of working memory that `forward` needs at most, for that many rows."""
        line = 64 // np.dtype(dtype).itemsize  # where the memory begins is not known
        return rows * (4 * gemm.panel_width(dtype) + 4 * inputs + 5 * units) + line

    def workspace(
        self,
        batch,
        timesteps,
        inputs,
        units,
        dtype="float32",
        training=False,
        return_sequences=True,
        empty=gemm.aligned_empty,
        plain=None,
    ):
        """Allocate what a pass needs beside inputs and weights: first states zero, every step counts, no dropout.

        A pass leaves other states behind: set ``states[:, 0]`` before the workspace serves another one.

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
        plain : tuple, optional
            What `plain_options` returned for these sizes; no kernel writes to it.

        Returns
        -------
        Workspace
        """
        states = empty((self.states, timesteps + 1 if training else 2, batch, units), dtype)
        states[:, 0] = 0
        out = np.empty((batch, timesteps if return_sequences else 0, units), dtype)
        tape = empty((timesteps if training else 0, batch, self.planes * units), dtype)
        return Workspace(states, out, *(plain or plain_options(batch, timesteps, inputs, units, dtype)), tape)


def plain_options(batch, timesteps, inputs, units, dtype):
    """Return the flags, order and dropout factors of a pass without options: every step counts."""
    flags = np.full((timesteps, batch), COUNTS, np.uint8)
    return flags, np.empty(0, np.int64), np.empty((0, batch, inputs), dtype), np.empty((0, batch, units), dtype)
