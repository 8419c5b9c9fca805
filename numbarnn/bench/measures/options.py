"""Options beside the plain layer, lengths beside a full batch: passes below a layer, where they arrive as arrays."""

import numpy as np

from ... import cells, recurrence
from ..peers import recipes
from ..timing import Local, Row, take_turns

__all__ = ["Pass", "lengths", "options"]

_CELLS = {"LSTM": cells.LSTM, "GRU": cells.GRU, "SimpleRNN": cells.SIMPLE_RNN}


class Pass:
    """A cell's pass over a batch, forward, or forward and backward with all gradients.

    Parameters
    ----------
    cell : str
    case : Case
        Of its size and dtype; not masked, one direction, one layer.
    bias : bool
    start : bool
        Begin from given states.
    scale : float
        Of the recurrent weights.
    **options
        Of `numbarnn.recurrence.run`.
    """

    def __init__(self, cell, case, *, bias=True, start=False, scale=0.1, **options):
        self.cell, self.options = _CELLS[cell], options
        columns = self.cell.gates * case.units
        rng = np.random.default_rng(0)
        self.x = recipes.inputs(case.request())
        self.weights = [
            rng.normal(scale=0.1, size=(case.inputs, columns)).astype(case.dtype),
            rng.normal(scale=scale, size=(case.units, columns)).astype(case.dtype),
            np.zeros(self.cell.bias_shape(case.units), case.dtype) if bias else None,
        ]
        self.start = [np.zeros((case.batch, case.units), case.dtype)] * self.cell.states if start else None
        self.d_out = np.ones((case.batch, case.timesteps, case.units), case.dtype)
        self.packed = self._pack()

    def _pack(self):
        """The weights, to be packed when they are needed."""
        return recurrence.PackedWeights(self.cell, *self.weights)

    def forward(self):
        """Inference: weights packed before."""
        return recurrence.run(self.cell, self.x, self.packed, self.start, **self.options)[0]

    def train(self):
        """Forward and back, weights packed anew as after an update."""
        out, _, pullback = recurrence.run(self.cell, self.x, self._pack(), self.start, save=True, **self.options)
        pullback(self.d_out if out.ndim == 3 else self.d_out[:, 0])


def options(setup):
    """Every option against the plain layer, forward and backward."""
    for cell, case in setup.pairs("rows_of_digits", "medium"):
        passes = {option: Pass(cell, case, scale=0.01, **given) for option, given in _table(cell, case).items()}
        participants = [Local(option, one.train) for option, one in passes.items()]
        times, _ = take_turns(participants, setup.seconds * len(participants) / 2)
        plain = times.pop("plain")
        for option, its in times.items():
            compared = {option: its, "plain": plain}
            yield Row("options", f"{cell} {case.name}", option, compared, details={"size": case.size})


def _table(cell, case):
    """Options by name."""
    batch, steps = case.batch, case.timesteps
    gates = _CELLS[cell].gates
    rng = np.random.default_rng(0)

    def flags(mask, reset=None):
        return {"flags": recurrence.step_flags(batch, steps, mask, reset)}

    def factors(copies, width):
        return ((rng.random((copies, batch, width)) < 0.8) / 0.8).astype(case.dtype)

    # Activations without a bound must not explode: the recurrent weights are small.
    table = {
        "plain": {},
        "mask, right-padded": flags(recipes.mask({**case.request(), "masked": True})),
        "mask, scattered": flags(rng.random((batch, steps)) < 0.7),
        "resets": flags(None, rng.random((batch, steps)) < 0.05),
        "dropout": {"x_factors": factors(1, case.inputs)},
        "dropout, both": {"x_factors": factors(gates, case.inputs), "h_factors": factors(gates, case.units)},
        "recurrent_dropout": {"h_factors": factors(gates, case.units)},
        "go_backwards": {"backwards": True},
        "last output only": {"return_sequences": False},
        "relu": {"activation": "relu"},
        "softsign": {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
        "gelu, silu": {"activation": "gelu", "recurrent_activation": "silu"},
        "no bias": {"bias": False},
        "stateful": {"start": True},
    }
    if gates == 1:
        for given in table.values():
            given.pop("recurrent_activation", None)
    return table


def lengths(setup):
    """Right-padded sequences of 1 to T timesteps, in no order, against a full batch."""
    for cell, case in setup.pairs("batched"):
        mask = recipes.mask({**case.request(), "masked": True})
        full, padded = Pass(cell, case), Pass(cell, case)

        def with_flags(what, padded=padded, mask=mask):
            padded.options = {"flags": recurrence.step_flags(*mask.shape, mask)}
            getattr(padded, what)()

        for what, shown in (("forward", "forward"), ("train", "forward + backward")):
            times, _ = take_turns(
                [Local("padded", lambda what=what: with_flags(what)), Local("full", getattr(full, what))],
                setup.seconds,
            )
            details = {"size": case.size, "share of steps that count": float(mask.mean())}
            yield Row("lengths", f"{cell} {case.name}", shown, times, details=details)
