"""Recurrent layers and their training."""

import numpy as np

from .common import Sized, case_of


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
    """One step of the layer + Dense under Adam, and one prediction."""

    def prepare(self, layer, dtype):
        self.network = self.model(layer, dtype)
        self.network.train_on_batch(self.x, self.y)
        self.network.predict_on_batch(self.x)

    def time_step(self, size, layer, dtype):
        self.network.train_on_batch(self.x, self.y)

    def time_predict(self, size, layer, dtype):
        self.network.predict_on_batch(self.x)


class Gradients(Sized):
    """Forward and backward through one layer, the gradients of its inputs and weights."""

    def prepare(self, layer, dtype):
        from numbarnn.bench import ours

        size = ",".join(map(str, (self.batch, self.steps, self.inputs, self.units)))
        self.run = ours.train(layer, case_of(f"{size}:{dtype}").request())
        self.run()

    def time_forward_and_backward(self, size, layer, dtype):
        self.run()


class WordsStep:
    """`train_on_batch` of Embedding + LSTM + Dense; the smallest size is the price of a call."""

    params = ["smallest", "rows_of_digits"]
    param_names = ["size"]

    def setup(self, size):
        from numbarnn.bench import ours

        self.step = ours.step("LSTM", case_of(size).request())
        self.step()

    def time_train_on_batch(self, size):
        self.step()


class GuideEpoch:
    """`fit` of the guide's model for an epoch of twenty batches."""

    params = ["LSTM", "GRU", "SimpleRNN"]
    param_names = ["layer"]

    def setup(self, layer):
        from numbarnn.bench import ours

        self.epoch = ours.epoch(layer, case_of("rows_of_digits").request(), 20)
        self.epoch()

    def time_fit(self, layer):
        self.epoch()


class StreamedStep:
    """One timestep of LSTM(32) on 8 features, one row: from Python, and a thousand of them in compiled code."""

    def setup(self):
        from numbarnn.bench import ours

        self.stream = ours.StreamedStep(case_of("1,1,8,32").request(), 1000)
        self.time_from_python()
        self.time_thousand_compiled()

    def time_from_python(self):
        self.stream.from_python()

    def time_thousand_compiled(self):
        self.stream.compiled()


class Memory(Sized):
    """Peak memory of a process that makes one step of training, or one prediction."""

    def prepare(self, layer, dtype):
        self.network = self.model(layer, dtype)

    def peakmem_training_step(self, size, layer, dtype):
        self.network.train_on_batch(self.x, self.y)

    def peakmem_predict(self, size, layer, dtype):
        self.network.predict_on_batch(self.x)
