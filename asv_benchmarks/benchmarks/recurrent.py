"""Recurrent layers and their training."""

import numpy as np

from .common import Sized


class Forward(Sized):
    """Calls of one layer on an array, beside the same equations in plain NumPy as a yardstick of the machine."""

    def prepare(self, layer, dtype):
        from numbarnn.layers import Bidirectional

        self.layer = self.recurrent(layer, dtype, return_sequences=True)
        self.both = Bidirectional(self.recurrent(layer, dtype, return_sequences=True), dtype=dtype)
        lengths = np.random.default_rng(1).permutation(np.linspace(1, self.steps, self.batch).astype(int))
        self.mask = np.arange(self.steps) < lengths[:, None]
        self.layer(self.x, mask=self.mask)
        self.both(self.x)
        self.states = [np.zeros((self.batch, self.units), dtype)] * self.layer.cell.kernels.states

    def time_forward(self, size, layer, dtype):
        self.layer(self.x)

    def time_forward_masked(self, size, layer, dtype):
        self.layer(self.x, mask=self.mask)

    def time_forward_both_directions(self, size, layer, dtype):
        self.both(self.x)

    def time_naive_numpy(self, size, layer, dtype):
        from numbarnn.testing import reference

        equations = {"LSTM": reference.lstm, "GRU": reference.gru, "SimpleRNN": reference.simple_rnn}[layer]
        equations(np, self.x, self.layer.get_weights(), self.states)


class Training(Sized):
    """One step, and one epoch of twenty, of the layer + Dense under Adam."""

    def prepare(self, layer, dtype):
        self.network = self.model(layer, dtype)
        self.network.train_on_batch(self.x, self.y)
        self.network.predict_on_batch(self.x)
        self.many_x, self.many_y = np.concatenate([self.x] * 20), np.concatenate([self.y] * 20)
        self.time_epoch(None, layer, dtype)

    def time_step(self, size, layer, dtype):
        self.network.train_on_batch(self.x, self.y)

    def time_predict(self, size, layer, dtype):
        self.network.predict_on_batch(self.x)

    def time_epoch(self, size, layer, dtype):
        self.network.fit(self.many_x, self.many_y, batch_size=self.batch, epochs=1, verbose=0)


class SmallestStep:
    """The price of a call: Embedding + LSTM(8) + Dense on one sequence of one step."""

    def setup(self):
        from numbarnn.layers import LSTM, Dense, Embedding
        from numbarnn.models import Sequential

        self.model = Sequential([Embedding(10, 8), LSTM(8), Dense(1)])
        self.model.compile(optimizer="sgd", loss="mse")
        self.x, self.y = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.float32)
        self.time_train_on_batch()

    def time_train_on_batch(self):
        self.model.train_on_batch(self.x, self.y)


class StreamedStep:
    """One timestep of LSTM(32) on 8 features, one row: from Python, and a thousand of them in compiled code."""

    STEPS = 1000

    def setup(self):
        import numba

        from numbarnn.layers import LSTM, Input
        from numbarnn.models import Sequential

        self.stepper = Sequential([Input((None, 8)), LSTM(32)]).stepper()
        self.xs = np.random.default_rng(0).standard_normal((self.STEPS, 1, 8)).astype("float32")
        self.x, self.out = self.xs[0], np.empty((1, 32), "float32")
        f, self.s = self.stepper.jit()

        @numba.njit
        def run(s, xs, out):
            for t in range(len(xs)):
                f(s, xs[t], out)

        self.run = run
        self.time_from_python()
        self.time_thousand_compiled()

    def time_from_python(self):
        self.stepper.step(self.x, out=self.out)

    def time_thousand_compiled(self):
        self.run(self.s, self.xs, self.out)


class Memory(Sized):
    """Peak memory of a process that makes one step of training, or one prediction."""

    def prepare(self, layer, dtype):
        self.network = self.model(layer, dtype)

    def peakmem_training_step(self, size, layer, dtype):
        self.network.train_on_batch(self.x, self.y)

    def peakmem_predict(self, size, layer, dtype):
        self.network.predict_on_batch(self.x)
