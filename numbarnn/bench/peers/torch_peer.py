"""PyTorch. Each function makes what `worker` times, or says why there is nothing."""

import importlib

__all__ = ["custom", "epoch", "forward", "set_threads", "step", "stream", "train", "versions"]


def set_threads(count):
    """Use so many threads."""
    import torch

    torch.set_num_threads(count)


def versions():
    """The versions of what is measured."""
    import torch

    return {"torch": torch.__version__}


def _recurrent(cell, case):
    """The layers of a case, one module."""
    import torch

    kind = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "SimpleRNN": torch.nn.RNN}[cell]
    return kind(
        case["inputs"],
        case["units"],
        num_layers=case["layers"],
        bidirectional=case["bidirectional"],
        batch_first=True,
        dtype=getattr(torch, case["dtype"]),
    )


def _call(layer, x, case, lengths):
    """Outputs at every step of padded sequences, and the last output of each."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    if lengths is None:
        out, states = layer(x)
    else:
        packed, states = layer(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        out = pad_packed_sequence(packed, batch_first=True, total_length=case["timesteps"])[0]
    h = states[0] if isinstance(states, tuple) else states
    return out, torch.cat((h[-2], h[-1]), 1) if case["bidirectional"] else h[-1]


def _layer(cell, case):
    import torch

    recipes = importlib.import_module("recipes")
    lengths = torch.tensor(recipes.lengths(case)) if case["masked"] else None
    return _recurrent(cell, case), torch.from_numpy(recipes.inputs(case)), lengths


def forward(cell, case):
    """Inference of layers."""
    import torch

    layer, x, lengths = _layer(cell, case)

    def call():
        with torch.inference_mode():
            return _call(layer, x, case, lengths)[0]

    return call


def train(cell, case):
    """Forward and backward through layers."""
    layer, x, lengths = _layer(cell, case)
    x.requires_grad_(True)

    def call():
        layer.zero_grad()
        x.grad = None
        _call(layer, x, case, lengths)[0].sum().backward()

    return call


def step(cell, case):
    """One step of training Embedding, recurrent layers, Linear with Adam, from NumPy arrays to the loss."""
    import torch

    recipes = importlib.import_module("recipes")
    x, y = recipes.tokens(case)
    dtype = getattr(torch, case["dtype"])
    embedding = torch.nn.Embedding(recipes.WORDS, case["inputs"], dtype=dtype)
    layer = _recurrent(cell, case)
    dense = torch.nn.Linear(case["units"] * (2 if case["bidirectional"] else 1), recipes.CLASSES, dtype=dtype)
    weights = [*embedding.parameters(), *layer.parameters(), *dense.parameters()]
    optimizer, loss_of = torch.optim.Adam(weights), torch.nn.CrossEntropyLoss()
    lengths = torch.tensor(recipes.lengths(case)) if case["masked"] else None

    def call():
        optimizer.zero_grad()
        loss = loss_of(dense(_call(layer, embedding(torch.from_numpy(x)), case, lengths)[1]), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return loss.item()

    return call


def epoch(cell, case, batches):
    """An epoch of the guide's model: shuffled batches, the mean loss and the accuracy at the end."""
    import torch

    recipes = importlib.import_module("recipes")
    x, y = map(torch.from_numpy, recipes.labelled(case, batches))
    dtype = getattr(torch, case["dtype"])
    layer, width = _recurrent(cell, case), case["units"] * (2 if case["bidirectional"] else 1)
    norm, dense = torch.nn.BatchNorm1d(width, dtype=dtype), torch.nn.Linear(width, recipes.CLASSES, dtype=dtype)
    weights = [*layer.parameters(), *norm.parameters(), *dense.parameters()]
    optimizer, loss_of = torch.optim.SGD(weights, lr=0.01), torch.nn.CrossEntropyLoss()

    def call():
        total, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for rows in torch.randperm(len(x)).split(case["batch"]):
            optimizer.zero_grad()
            logits = dense(norm(_call(layer, x[rows], case, None)[1]))
            loss = loss_of(logits, y[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach()
            right += (logits.detach().argmax(1) == y[rows]).sum()
        return total.item() / batches, right.item() / len(x)

    return call


def stream(case):
    """One timestep of an LSTMCell."""
    import torch

    rows, units = case["batch"], case["units"]
    cell, x = torch.nn.LSTMCell(case["inputs"], units).requires_grad_(False), torch.randn(rows, case["inputs"])
    states = torch.zeros(rows, units), torch.zeros(rows, units)

    def call():
        nonlocal states
        states = cell(x, states)

    return call


def custom(cell, batch, timesteps, size):
    """Cells of one's own, eagerly."""
    import torch

    def weight(*shape):
        return (0.1 * torch.randn(shape)).requires_grad_(True)

    if cell == "NestedCell":
        (i1, i2, i3), (u1, u2, u3) = size["inputs"], size["units"]
        x1, x2 = torch.randn(batch, timesteps, i1), torch.randn(batch, timesteps, i2, i3)
        weights = [weight(i1, u1), weight(i2, i3, u2, u3)]

        def total():
            s1, s2, outs = torch.zeros(batch, u1), torch.zeros(batch, u2, u3), []
            for t in range(timesteps):
                o1, o2 = x1[:, t] @ weights[0], torch.einsum("bij,ijkl->bkl", x2[:, t], weights[1])
                s1, s2 = s1 + o1, s2 + o2
                outs.append((o1, o2))
            return sum(torch.stack(parts, 1).sum() for parts in zip(*outs, strict=True))

    else:
        inputs, units = size["inputs"], size["units"]
        x = torch.randn(batch, timesteps, inputs)
        gates = 1 if cell == "MinimalRNNCell" else 4
        weights = [weight(inputs, gates * units), weight(units, gates * units), weight(3, units)]
        if gates == 1:
            weights.pop()

        def total():
            h, c, outs = torch.zeros(batch, units), torch.zeros(batch, units), []
            for t in range(timesteps):
                z = x[:, t] @ weights[0] + h @ weights[1]
                if gates == 1:
                    h = z
                else:
                    i, f, g, o = z.chunk(4, -1)
                    p = weights[2]
                    new = torch.sigmoid(f + p[1] * c) * c + torch.sigmoid(i + p[0] * c) * torch.tanh(g)
                    c, h = new, torch.sigmoid(o + p[2] * new) * torch.tanh(new)
                outs.append(h)
            return torch.stack(outs, 1).sum()

    def call():
        for w in weights:
            w.grad = None
        total().backward()

    return call
