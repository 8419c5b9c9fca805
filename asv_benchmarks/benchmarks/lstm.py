"""The LSTM layer and its training."""

import numpy as np

from .common import Sized


class Forward(Sized):
    """Calls of one layer on an array, beside the same equations in plain NumPy as a yardstick of the machine."""

    def prepare(self, dtype):
        from numbarnn.layers import LSTM

        self.layer = LSTM(self.units, return_sequences=True, dtype=dtype)
        self.mask = np.arange(self.steps) < np.linspace(1, self.steps, self.batch).astype(int)[:, None]
        self.layer(self.x)
        self.layer(self.x, mask=self.mask)
        self.states = [np.zeros((self.batch, self.units), dtype)] * 2

    def time_forward(self, size, dtype):
        self.layer(self.x)

    def time_forward_masked(self, size, dtype):
        self.layer(self.x, mask=self.mask)

    def time_naive_numpy(self, size, dtype):
        from numbarnn.testing import reference

        reference.lstm(np, self.x, self.layer.get_weights(), self.states)


class Training(Sized):
    """One step, and one epoch of twenty, of LSTM + Dense under Adam."""

    def prepare(self, dtype):
        self.network = self.model(dtype)
        self.network.train_on_batch(self.x, self.y)
        self.network.predict_on_batch(self.x)
        self.many_x, self.many_y = np.concatenate([self.x] * 20), np.concatenate([self.y] * 20)
        self.time_epoch(None, dtype)

    def time_step(self, size, dtype):
        self.network.train_on_batch(self.x, self.y)

    def time_predict(self, size, dtype):
        self.network.predict_on_batch(self.x)

    def time_epoch(self, size, dtype):
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


class Memory(Sized):
    """Peak memory of a process that makes one step of training, or one prediction."""

    def prepare(self, dtype):
        self.network = self.model(dtype)

    def peakmem_training_step(self, size, dtype):
        self.network.train_on_batch(self.x, self.y)

    def peakmem_predict(self, size, dtype):
        self.network.predict_on_batch(self.x)
