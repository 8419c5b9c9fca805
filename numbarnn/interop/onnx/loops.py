"""Steps that are repeated over time, those of cells of the user's, as the operator Scan."""

from __future__ import annotations

import numpy as np

from ...symbolic import Spec
from .builder import ints

__all__ = ["repeat"]


def repeat(b, node, steps, *values, convert_nodes):
    """Add a loop: the program of its step becomes the body.

    Parameters
    ----------
    b : Builder
    node : Node
        Of `numbarnn.scan`.
    steps : str
    *values : str, array or None
        What moves, with time as its first axis; the states; what stays the same, which the body sees as it is.
    convert_nodes : callable
        ``convert_nodes(b, nodes, values)``.

    Returns
    -------
    list of str
    """
    loop = node.operation.loop
    program = loop.program
    moving, carries = len(loop.around.cut) + len(loop.flags), len(loop.recorded.carries)
    held = len(loop.output_specs) if loop.holds else 0  # outputs that come again where a step is masked
    scanned, start = list(values[:moving]), list(values[moving : moving + carries])
    if held:
        batch = b.shape(scanned[-1], 1, 2)  # of the mask, which there is
        for spec in loop.output_specs:
            start.append(b("Expand", np.zeros((), spec.dtype), b("Concat", batch, ints(spec.shape[1:]), axis=0)))
    if not moving:  # the step does not look at its inputs, only at how many there are
        scanned = [b("Range", np.array(0), steps, np.array(1))]

    changing = moving + carries + held
    with b.body() as body:
        inside = dict(zip(map(id, program.inputs[changing:]), values[moving + carries :], strict=True))
        for x in program.inputs[moving:changing]:
            inside[id(x)] = body.input("state", x.spec)
        for x in program.inputs[:moving]:
            inside[id(x)] = body.input("step", x.spec)
        if not moving:
            body.input("step", Spec((), np.int64))
        value = convert_nodes(b, program.nodes, inside)
        for x in (*program.outputs[: carries + held], *program.outputs[carries:]):  # what goes on, what is shown
            body.output(value(x), Spec.of(x))
    found = b.scan(body, [*start, *scanned], len(scanned))
    last, shown = found[:carries], found[carries + held :]
    outputs = len(loop.output_specs)
    for number, (name, spec) in enumerate(zip(shown[:outputs], loop.output_specs, strict=True)):
        if node.operation.return_sequences:
            shown[number] = b.transpose(name, [1, 0, *range(2, 1 + len(spec.shape))])
        else:
            shown[number] = b("Gather", name, np.array(-1), axis=0)
    return [*last, *shown]
