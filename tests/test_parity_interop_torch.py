"""Weights to and from live PyTorch modules: the same outputs both ways."""

import numpy as np
import pytest

from numbarnn import layers, models
from numbarnn.interop.torch import from_torch, load_torch, to_torch
from numbarnn.testing import assert_close

pytestmark = pytest.mark.parity

KINDS = {"tanh": "RNN", "relu": "RNN", "GRU": "GRU", "LSTM": "LSTM"}
COMBINATIONS = [
    (name, depth, bidirectional, bias, dtype)
    for name in KINDS
    for depth in (1, 3)
    for bidirectional in (False, True)
    for bias in (False, True)
    for dtype in ("float32", "float64")
]


def module(name, depth, bidirectional, bias, dtype):
    import torch

    torch.manual_seed(0)
    options = {"nonlinearity": name} if name in ("tanh", "relu") else {}
    make = getattr(torch.nn, KINDS[name])
    return make(5, 7, depth, bias=bias, batch_first=True, bidirectional=bidirectional, **options).to(
        getattr(torch, dtype)
    )


def output(theirs, x):
    import torch

    with torch.no_grad():
        return theirs(torch.tensor(x))[0].numpy()


@pytest.mark.parametrize(("name", "depth", "bidirectional", "bias", "dtype"), COMBINATIONS)
def test_both_ways(name, depth, bidirectional, bias, dtype, tmp_path, rng):
    from safetensors.torch import load_file, save_file

    theirs = module(name, depth, bidirectional, bias, dtype)
    x = rng.standard_normal((3, 6, 5)).astype(dtype)
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    path = tmp_path / "weights.safetensors"
    save_file(theirs.state_dict(), path)
    option = {"nonlinearity": name} if name in ("tanh", "relu") else {}
    for source in (path, theirs.state_dict()):
        ours = from_torch(source, **option)
        assert ours.layers[0].compute_dtype == dtype
        np.testing.assert_allclose(ours(x), output(theirs, x), rtol=0, atol=tolerance)

    # And back, other weights, into a module of theirs that had others.
    for variable in ours.trainable_variables:
        variable.assign(rng.uniform(-0.4, 0.4, variable.shape))
    to_torch(ours, path)
    result = theirs.load_state_dict(load_file(path), strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    np.testing.assert_allclose(output(theirs, x), ours(x), rtol=0, atol=tolerance)


def test_a_whole_network():
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(11, 5)
            self.rnn = torch.nn.GRU(5, 4, 2, batch_first=True, bidirectional=True)
            self.norm = torch.nn.LayerNorm(8)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, ids):
            return self.head(self.norm(self.rnn(self.words(ids))[0]))

    torch.manual_seed(0)
    network = Network()
    with torch.no_grad():
        for parameter in network.norm.parameters():
            parameter.uniform_(0.5, 1.5)
    modules = {
        "words": layers.Embedding(11, 5),
        "rnn": [layers.Bidirectional(layers.GRU(4, return_sequences=True)) for _ in range(2)],
        "norm": layers.LayerNormalization(epsilon=1e-5),
        "head": layers.Dense(3),
    }
    load_torch(modules, network.state_dict())
    model = models.Sequential([modules["words"], *modules["rnn"], modules["norm"], modules["head"]])
    ids = np.arange(12).reshape(2, 6) % 11
    with torch.no_grad():
        assert_close(model(ids), network(torch.tensor(ids)).numpy(), 1e-5)
    network.load_state_dict({name: torch.tensor(array) for name, array in to_torch(modules).items()}, strict=True)
    with torch.no_grad():
        assert_close(model(ids), network(torch.tensor(ids)).numpy(), 1e-5)


def test_half_precision_weights():
    import torch

    theirs = torch.nn.LSTM(3, 4)
    for dtype in (torch.bfloat16, torch.float16):
        state = {name: value.to(dtype) for name, value in theirs.state_dict().items()}
        kernel = from_torch(state).layers[0].cell.kernel
        np.testing.assert_array_equal(kernel.numpy(), state["weight_ih_l0"].float().numpy().T)
