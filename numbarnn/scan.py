"""A step repeated over time, traced once: one operation of the graph, with back-propagation through time.

What a step computes falls into three parts (`row_rules` says which operations may be moved):

- what needs no inputs of the timestep and no states (``exp(log_tau)``) is computed once;
- what needs inputs but no states, row by row (the product of the inputs with a kernel), is computed for all timesteps
  at once, before the loop. Both are operations around the loop, with gradients of their own;
- the rest is the loop, a `Program` that is replayed for each timestep.

Going back, a second program is replayed from the last timestep to the first; it computes the gradients of the states.
The gradients of weights, sums over rows, are again computed for all timesteps at once, after the loop.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import NamedTuple

import numpy as np

from . import gemm, graph, ops
from .arrays import array_module, as_array, zeros
from .graph import KernelOp, Op, Program, Spec, Tensor
from .ops.elementwise import _assign_op
from .ops.linalg import _matmul
from .program import _needed
from .protocols import local
from .row_rules import INVARIANT, ROWS, STEP, SUMMED, call_on_rows, kind_of, stackable
from .variable import Variable

__all__ = ["scan"]


# -- timesteps as rows ---------------------------------------------------------------------------------------------


def _lengths(shape):
    return None if None in shape else int(np.prod(shape))


_merge = Op(
    "all_rows",
    lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]),
    lambda x: Spec((_lengths(x.shape[:2]), *x.shape[2:]), x.dtype),
    lambda node, d: _split(d, node.inputs[0]),
    doc="(batch, timesteps, ...) -> (batch * timesteps, ...)",
)
_split = Op(
    "rows_of_steps",
    lambda rows, like: rows.reshape(*like.shape[:2], *rows.shape[1:]),
    lambda rows, like: Spec((*like.shape[:2], *rows.shape[1:]), rows.dtype),
    lambda node, d: (_merge(d), None),
    doc="(batch * timesteps, ...) -> (batch, timesteps, ...)",
)
_count_steps = Op("timesteps", lambda x: np.asarray(x.shape[1]), lambda x: Spec((), np.int64))
_given = Op("given", as_array, lambda x: x, lambda node, d: d, doc="Make a Tensor of any value.")


# -- products with what stays the same ---------------------------------------------------------------------------


def _packed_gradient(a, b, d, transpose_b):
    left, right = (d, a) if transpose_b else (a, d)
    return (
        _packed_matmul(d, b, transpose_b=not transpose_b),
        _matmul(left, right, transpose_a=True, transpose_b=False),
    )


_packed_matmul = Op(
    "packed_matmul",
    lambda a, b, *, transpose_b: b.times(a, transpose=transpose_b),
    lambda a, b, *, transpose_b: Spec((a.shape[0], b.shape[0 if transpose_b else 1]), a.dtype),
    lambda node, d: _packed_gradient(*node.inputs, d, node.attrs["transpose_b"]),
    doc="Multiply a matrix by a `gemm.RightOperand`.",
)


_packed_onto = Op(
    "packed_matmul_onto",
    lambda start, a, b, *, transpose_b: b.times(a, transpose=transpose_b, start=start),
    lambda start, a, b, *, transpose_b: start,
    lambda node, d: (d, *_packed_gradient(*node.inputs[1:], d, node.attrs["transpose_b"])),
    doc="Add the product of a matrix and a `gemm.RightOperand` to a matrix: its chains of additions go on.",
)


def _is_right_operand(node, tensor):
    a, b = node.inputs if node.operation is _matmul else (None, None)
    return (
        b is tensor
        and a is not tensor
        and isinstance(a, Tensor)
        and len(a.shape) == len(b.shape) == 2
        and a.dtype == b.dtype
        and b.dtype in (np.float32, np.float64)
        and not node.attrs["transpose_a"]
    )


# -- the public function --------------------------------------------------------------------------------------------


def scan(
    step,
    sequences,
    states,
    *,
    mask=None,
    reset=None,
    backwards=False,
    return_sequences=True,
    zero_output=False,
    name="step",
):
    """Repeat a step over time. To be called while a function is traced.

    Parameters
    ----------
    step : callable
        ``step(inputs, states) -> (outputs, new_states, extras)``, lists of Tensors: the inputs of one timestep (batch,
        ...); as many new states, of the same shapes; `extras` are scalars. Called once. It may use Tensors of the
        active trace.
    sequences : list of Tensor or array, shape (batch, timesteps, ...)
        One at least.
    states : list of Tensor or array, shape (batch, ...)
    mask : Tensor or array of bool, shape (batch, timesteps), optional
        True where the step counts for a row; elsewhere its states stay, and its output comes again.
    reset : Tensor or array of bool, shape (batch, timesteps), optional
        True where states and output of a row are set to zero before the step.
    backwards : bool
        From the last timestep to the first.
    return_sequences : bool
        Return the outputs of all steps, not only the last.
    zero_output : bool
        Zeros where a row is masked, instead of the output before.
    name : str
        For messages.

    Returns
    -------
    outputs : list of Tensor
        (batch, timesteps, ...) in the order of the steps, or (batch, ...).
    states : list of Tensor
        The last ones.
    extras : list of Tensor, shape (timesteps,)

    Raises
    ------
    ValueError
        If the step returns another number of states, or states of other shapes.
    """
    if mask is not None:
        # What a masked step computes is not used, but its slopes are multiplied by zero: they must be finite. Finite
        # inputs stay: there are cells that divide by the size of their inputs.
        sequences = [_where_rows(mask, x, None, ops.isfinite(x)) for x in sequences]
    flags = {"counts": mask, "keeps": None if reset is None else ops.logical_not(reset)}
    flags = {key: _time_first(value, backwards) for key, value in flags.items() if value is not None}
    specs = [Spec((x.shape[0], *x.shape[2:]), x.dtype) for x in sequences]
    recorded = _Recorded(step, specs, [Spec.of(state) for state in states], mask is not None)
    around = _Around(recorded, sequences, backwards)
    carried = _Carried(len(states), len(recorded.assigned), recorded.outputs, len(recorded.extras))
    loop = _Loop(recorded, around, tuple(flags), carried, mask is not None and not zero_output, name)
    operation = _Scan(loop, sequences[0].shape[1], return_sequences)
    steps = _count_steps(sequences[0])
    last = operation(
        steps, *around.cuts, *flags.values(), *states, *recorded.assigned, *loop.fixed, **recorded.generators
    )
    last = list(last)
    finals, assigned, outputs, extras = carried.cut(last)
    for variable, value in zip(recorded.assigned, assigned, strict=True):
        variable.assign(value)
    for place, x in recorded.outside.items():
        whole = around.sequence(x)
        whole = ops.flip(whole, 1) if backwards else whole
        outputs.insert(place, whole if return_sequences else whole[:, -1])
    return outputs, finals, extras


def _where_rows(flags, x, other, also=None):
    """Return `x` in the rows (and timesteps) that `flags` name and where `also` says, elsewhere `other`, or zeros."""
    missing = len(x.shape) - len(flags.shape)
    if missing:
        flags = ops.expand_dims(flags, tuple(range(len(flags.shape), len(x.shape))))
    flags = flags if also is None else ops.logical_or(flags, also)
    return ops.where(flags, x, ops.zeros_like(x) if other is None else other)


def _time_first(x, backwards):
    x = ops.transpose(x, (1, 0, *range(2, len(x.shape))))
    return ops.flip(x, 0) if backwards else x


class _Carried(NamedTuple):
    """How many of each the results of a step are, in this order."""

    states: int
    assigned: int
    outputs: list
    extras: int

    def cut(self, values):
        """Return values as four lists."""
        ends = np.cumsum([0, self.states, self.assigned, len(self.outputs), self.extras])
        return [list(values[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]


@contextlib.contextmanager
def _in_the_name_of(node):
    """Let what is recorded in the block name the line of the user's code that `node` names."""
    start = len(local.trace.nodes)
    yield
    for made in local.trace.nodes[start:]:
        made.line = node.line


class _Recorded:
    """One run of a step on symbols: its nodes, and of which kind each value is.

    Attributes
    ----------
    outside : dict
        Outputs that no state and no mask has a part in, by their place: the loop has nothing to do with them.
    outputs : list
        The others.
    """

    def __init__(self, step, input_specs, state_specs, masked):
        trace, symbols, (outputs, states, extras) = graph.trace_within(step, (input_specs, state_specs))
        self.inputs, self.states = symbols[: len(input_specs)], symbols[len(input_specs) :]
        if len(states) != len(self.states):
            raise ValueError(f"the step has {len(self.states)} states, but it returned {len(states)} of them")
        for number, (new, old) in enumerate(zip(states, self.states, strict=True)):
            shape = np.shape(new) if not hasattr(new, "shape") else new.shape
            if len(shape) != len(old.shape) or any(
                n is not None and m is not None and n != m for n, m in zip(shape, old.shape, strict=True)
            ):
                raise ValueError(f"the step returned state {number} of shape {tuple(shape)}, it had {old.shape}")
        self.trace, self.new_states, self.extras = trace, list(states), list(extras)
        self.assigned = sorted(trace.assigned, key=lambda v: v.path)
        self.finals = [trace.variables[v] for v in self.assigned]
        self.leaves = {id(leaf): variable for variable, leaf in trace.leaves.items()}
        self.captures = {id(twin): ours for ours, twin in trace.captures.values()}
        self.nodes = _needed(trace.nodes, [*self.new_states, *self.finals, *outputs, *self.extras])
        self.carries = [*self.states, *(trace.leaves[v] for v in self.assigned)]
        self.effect = any(node.operation.effect and node.operation is not _assign_op for node in self.nodes)
        self.generators = self._find_generators()
        self.kinds = self._classify()
        self.outside = {} if masked else {i: x for i, x in enumerate(outputs) if self.kind(x) is ROWS}
        self.outputs = [x for i, x in enumerate(outputs) if i not in self.outside]
        self.results = [*self.new_states, *self.finals, *self.outputs, *self.extras]

    def _find_generators(self):
        """Return what the nodes draw from, where whoever runs a program finds it (and puts it back if that fails)."""
        drawn = [value for node in self.nodes for value in node.attrs.values() if hasattr(value, "state")]
        return {f"generator_{i}": value for i, value in enumerate(dict.fromkeys(drawn))}

    def _classify(self):
        kinds = {id(x): ROWS if x.shape else STEP for x in self.inputs}
        kinds.update((id(leaf), INVARIANT) for leaf in self.trace.leaves.values())
        kinds.update((twin, INVARIANT) for twin in self.captures)
        kinds.update((id(x), STEP) for x in self.carries)
        for node in self.nodes:
            kind = kind_of(node, kinds)
            kinds.update((id(x), kind if kind in (INVARIANT, ROWS) else STEP) for x in node.outputs)
        return kinds

    def kind(self, x):
        """Return the kind of a value."""
        return self.kinds[id(x)] if isinstance(x, Tensor) else INVARIANT


class _Around:
    """What is computed around the loop, in the active trace: once, and for all timesteps at once.

    Attributes
    ----------
    cut, fixed : list of Tensor
        Of the step's trace: what the loop takes in at each timestep, and what stays the same.
    cuts : list of Tensor, shape (timesteps, batch, ...)
        The values of `cut`, in the active trace.
    """

    def __init__(self, recorded, sequences, backwards):
        self.recorded, self.sequences, self.values = recorded, sequences, {}
        inside = [node for node in recorded.nodes if not node.outputs or recorded.kind(node.outputs[0]) is STEP]
        used = [x for node in inside for x in node.inputs if isinstance(x, Tensor)]
        used += [x for x in recorded.results if isinstance(x, Tensor)]
        used = list({id(x): x for x in used}.values())
        self.inside = inside
        self.cut = [x for x in used if recorded.kind(x) is ROWS]
        self.fixed = [x for x in used if recorded.kind(x) is INVARIANT]
        within = {id(node) for node in inside}
        wanted = [*self.cut, *self.fixed, *recorded.outside.values()]
        for node in _needed([n for n in recorded.nodes if id(n) not in within], wanted):
            with _in_the_name_of(node):
                rows = recorded.kinds[id(node.outputs[0])] is ROWS
                args = [self._value(x) for x in node.inputs]
                found = call_on_rows(node, recorded.kinds, args) if rows else node.operation(*args, **node.attrs)
            self.values.update(zip(map(id, node.outputs), (found,) if node.single else found, strict=True))
        # Time comes first after what is computed for all timesteps: mostly it is smaller than the inputs are.
        self.cuts = [_time_first(self.sequence(x), backwards) for x in self.cut]

    def _value(self, x):
        """Return the value of a Tensor of the step, rows of all timesteps together."""
        if not isinstance(x, Tensor):
            return x
        found = self.values.get(id(x))
        if found is None:
            recorded = self.recorded
            if id(x) in recorded.leaves:
                found = recorded.leaves[id(x)]
            elif id(x) in recorded.captures:
                found = recorded.captures[id(x)]
            else:
                found = _merge(self.sequences[next(i for i, y in enumerate(recorded.inputs) if y is x)])
            self.values[id(x)] = found
        return found

    def sequence(self, x):
        """Return what a Tensor of the step, of kind `ROWS`, is at all timesteps: shape (batch, timesteps, ...)."""
        whole = next((y for given, y in zip(self.recorded.inputs, self.sequences, strict=True) if given is x), None)
        return _split(self._value(x), self.sequences[0]) if whole is None else whole

    def constant(self, x):
        """Return the value of a Tensor of the step that stays the same."""
        return self._value(x)


class _Loop:
    """The part of a step that is repeated, as a program; and its gradient.

    Arguments of the program: the cuts, the flags, the states, the assigned variables, where they are carried on the
    outputs before, then what stays the same. Results: see `_Carried`.
    """

    def __init__(self, recorded, around, flags, carried, holds, name):
        self.recorded, self.around, self.flags, self.carried, self.holds = recorded, around, flags, carried, holds
        self.name = name
        self.batch = recorded.inputs[0].shape[0]
        # Of what stays the same: right operands of products, and what is used otherwise.
        self.packed, self.plain = [], []
        for x in around.fixed:
            users = [node for node in around.inside if any(y is x for y in node.inputs)]
            right = [node for node in users if _is_right_operand(node, x)]
            if right:
                self.packed.append(x)
            if len(right) < len(users) or any(x is y for y in recorded.results):
                self.plain.append(x)
        self.fixed = [around.constant(x) for x in (*self.plain, *self.packed)]
        outputs = [Spec.of(x) for x in recorded.outputs]
        arguments = (
            [x.spec for x in around.cut],
            [Spec((self.batch,), bool) for _ in flags],
            [x.spec for x in recorded.carries],
            outputs if holds else [],
            [Spec.of(x) for x in self.fixed],
        )
        self.program = graph.trace(self._run, arguments, name=name)
        self.differentiable = self._differentiable()
        self.output_specs = outputs
        self.specs = [x.spec for x in self.program.outputs]
        self._linear = None
        self._plans = {}

    def _run(self, cuts, flags, carries, before, fixed):
        recorded = self.recorded
        flags = dict(zip(self.flags, flags, strict=True))
        if "keeps" in flags:
            states = [_where_rows(flags["keeps"], x, None) for x in carries[: self.carried.states]]
            carries = [*states, *carries[self.carried.states :]]
            before = [_where_rows(flags["keeps"], x, None) for x in before]
        values = dict(zip(map(id, (*self.around.cut, *recorded.carries)), (*cuts, *carries), strict=True))
        values.update(zip(map(id, self.plain), fixed, strict=False))
        right = dict(zip(map(id, self.packed), fixed[len(self.plain) :], strict=True))

        def value(x):
            return values[id(x)] if isinstance(x, Tensor) else x

        def onto(node):
            """Where a node adds a product that nothing else needs to a matrix, return the sum as one operation.

            Not to what is the same at each timestep: one row of a weight would be like the product in a batch of one
            alone, and a row alone is to have the bits that it has among others.
            """
            for x, y in (node.inputs, node.inputs[::-1]):
                product, start = value(x), value(y)
                made = product.node if isinstance(product, Tensor) else None
                if made is None or made.operation is not _packed_matmul or uses[id(x)] > 1:
                    continue
                if recorded.kind(y) is not INVARIANT and isinstance(start, Tensor) and start.spec == product.spec:
                    return _packed_onto(start, *made.inputs, **made.attrs)
            return None

        used = [x for node in self.around.inside for x in node.inputs] + recorded.results
        uses = Counter(id(x) for x in used if isinstance(x, Tensor))
        for node in self.around.inside:
            with _in_the_name_of(node):
                if node.operation is _assign_op:  # the value goes on with the states, and is assigned after the loop
                    found = ops.cast(value(node.inputs[0]), node.outputs[0].dtype)
                elif id(node.inputs[1] if len(node.inputs) > 1 else None) in right and _is_right_operand(
                    node, node.inputs[1]
                ):
                    a, b = node.inputs
                    found = _packed_matmul(value(a), right[id(b)], transpose_b=node.attrs["transpose_b"])
                elif node.operation is ops.add and (found := onto(node)) is not None:
                    pass
                else:
                    found = node.operation(*map(value, node.inputs), **node.attrs)
            values.update(zip(map(id, node.outputs), (found,) if node.single else found, strict=True))
        results = []
        for x in recorded.results:
            x = value(x)
            results.append(x if isinstance(x, Tensor) else local.trace.record(_given, (np.asarray(x),), {}).result)
        states, assigned, outputs, extras = self.carried.cut(results)
        old = [value(x) for x in recorded.states]
        states = [x if x.dtype == y.dtype else ops.cast(x, y.dtype) for x, y in zip(states, old, strict=True)]
        if "counts" in flags:
            states = [_where_rows(flags["counts"], x, y) for x, y in zip(states, old, strict=True)]
            before = before if self.holds else [None] * len(outputs)
            outputs = [_where_rows(flags["counts"], x, y) for x, y in zip(outputs, before, strict=True)]
        return [*states, *assigned, *outputs, *extras]

    # -- the gradient ---------------------------------------------------------------------------------------------

    def _differentiable(self):
        """Say of each argument of the program whether a gradient can be wanted: dropout factors, say, have none."""
        active = set()
        for node in local.trace.nodes:
            if node.operation.gradient is not None and any(
                isinstance(x, Tensor) and (x.node is None or id(x) in active) for x in node.inputs
            ):
                active.update(map(id, node.outputs))

        def can(x):
            return isinstance(x, Variable) or (isinstance(x, Tensor) and (x.node is None or id(x) in active))

        cuts, fixed = map(can, self.around.cuts), map(can, self.fixed)
        inside = len(self.program.inputs) - len(self.around.cuts) - len(self.fixed)
        return [*cuts, *[True] * inside, *fixed]

    @property
    def linear(self):
        """Forward and backward program, and the numbers of the results and arguments between which gradients flow."""
        if self._linear is None:
            program = self.program
            heads = [i for i, x in enumerate(program.outputs) if x.dtype.kind == "f"]
            wrt = [i for i, x in enumerate(program.inputs) if x.dtype.kind == "f" and self.differentiable[i]]
            self._linear = *program.linearize(heads, [program.inputs[i] for i in wrt]), heads, wrt
        return self._linear

    def plan(self, needs):
        """Return how to go back for these needs: for each argument of the program, whether its gradient is wanted."""
        plan = self._plans.get(needs)
        if plan is None:
            plan = self._plans[needs] = _Plan(self, needs)
        return plan


class _Plan:
    """The backward program of a loop, cut in two: what is repeated, and what is done for all timesteps at once.

    Attributes
    ----------
    back : Program
        Repeated: ``back(residuals, seeds)`` -> gradients of what is carried; of single arguments, to be added up; of
        cuts, one for each timestep; and values that `tail` wants.
    tail : Program or None
        Takes the rows of all timesteps together.
    """

    def __init__(self, loop, needs):
        _, backward, _, wrt = loop.linear
        self.loop = loop
        program = loop.program
        residuals, seeds = backward.groups[0][1], backward.groups[1][1]
        gradients = dict(zip(wrt, backward.outputs, strict=True))
        cuts = len(loop.around.cut)
        first_carry = cuts + len(loop.flags)
        carries = len(loop.recorded.carries) + (len(loop.output_specs) if loop.holds else 0)
        self.carries = [i for i in range(first_carry, first_carry + carries) if i in gradients]
        wanted = [i for i in gradients if needs[i] and i not in self.carries]
        origin = {id(twin): ours for ours, twin in backward.trace.residuals.values()}
        arguments = {id(x): i for i, x in enumerate(program.inputs)}

        def given_kind(x, source):
            if source is not None and arguments.get(id(source), -1) >= first_carry + carries:
                return INVARIANT
            return ROWS if stackable(x.spec, loop.batch) else STEP

        kinds = {id(x): given_kind(x, origin[id(x)]) for x in residuals}
        kinds.update((id(x), given_kind(x, None)) for x in seeds)
        carried = [gradients[i] for i in self.carries]
        inside = {id(node) for node in _needed(backward.trace.nodes, carried)}
        nodes = _needed(backward.trace.nodes, [*carried, *(gradients[i] for i in wanted)])
        producer = {id(x): node for node in nodes for x in node.outputs}
        stuck = []
        for node in nodes:
            kind = kind_of(node, kinds, sums=True)
            if id(node) in inside and kind is not INVARIANT:
                kind = STEP
            for x in node.outputs:
                kinds[id(x)] = kind
                if kind is STEP:
                    stuck.append(x)
                    kinds[id(x)] = ROWS if stackable(x.spec, loop.batch) else STEP
        # Which gradients come from the tail; the others are computed at each step, with all that they need.
        self.tail_cuts, self.tail_sums, self.step_cuts, self.step_sums = [], [], [], []
        for i in wanted:
            g = gradients[i]
            kind = kinds[id(g)] if isinstance(g, Tensor) else STEP
            if i < cuts:
                (self.tail_cuts if kind is ROWS else self.step_cuts).append(i)
            else:
                (self.tail_sums if kind is SUMMED else self.step_sums).append(i)
        stepwise = [*carried, *(gradients[i] for i in (*self.step_sums, *self.step_cuts))]
        inside = {id(node) for node in _needed(nodes, [*stepwise, *stuck])}
        # Backwards from the results of the tail to what is there after the loop.
        targets = [gradients[i] for i in (*self.tail_cuts, *self.tail_sums)]
        open_, inlined = {id(x): x for x in targets}, []
        for node in reversed(nodes):
            mine = [x for x in node.outputs if id(x) in open_]
            if not mine or (id(node) in inside and all(kinds[id(x)] is ROWS for x in mine)):
                continue
            inlined.append(node)
            for x in node.outputs:
                open_.pop(id(x), None)
            open_.update((id(x), x) for x in node.inputs if isinstance(x, Tensor))
        needed = list(open_.values())
        self.from_loop = [x for x in needed if id(x) in producer]
        position = {id(x): i for i, x in enumerate(residuals)}
        self.from_residuals = [position[id(x)] for x in needed if kinds[id(x)] is ROWS and id(x) in position]
        seed_position = {id(x): i for i, x in enumerate(seeds)}
        self.from_seeds = [seed_position[id(x)] for x in needed if id(x) in seed_position]
        self.constants = [position[id(x)] for x in needed if kinds[id(x)] is INVARIANT and id(x) in position]
        self.tail = None
        if targets:
            sources = [
                *self.from_loop,
                *(residuals[i] for i in self.from_residuals),
                *(seeds[i] for i in self.from_seeds),
                *(residuals[i] for i in self.constants),
            ]
            self.tail = self._trace_tail(sources, inlined[::-1], kinds, targets)
        # Every gradient and value of the loop, in this order.
        results = [*stepwise, *self.from_loop]
        groups = [("residuals", residuals), ("d_outputs", seeds)]
        self.back = Program(f"{loop.name}_gradient", backward.trace, [*residuals, *seeds], results, groups=groups)

    def _trace_tail(self, sources, nodes, kinds, targets):
        def run(*given):
            values = dict(zip(map(id, sources), given, strict=True))
            for node in nodes:
                args = [values[id(x)] if isinstance(x, Tensor) else x for x in node.inputs]
                with _in_the_name_of(node):
                    rows = kinds[id(node.outputs[0])] is ROWS
                    found = call_on_rows(node, kinds, args) if rows else node.operation(*args, **node.attrs)
                values.update(zip(map(id, node.outputs), (found,) if node.single else found, strict=True))
            return [values[id(x)] for x in targets]

        specs = [Spec((None, *x.shape[1:]), x.dtype) if kinds[id(x)] is ROWS else x.spec for x in sources]
        return graph.trace(run, tuple(specs), name=f"{self.loop.name}_gradient_of_all_steps")


# -- the operation ----------------------------------------------------------------------------------------------------


class _Scan(KernelOp):
    """Inputs: number of steps, cuts, flags, states, assigned variables, what stays the same. Results: `_Carried`."""

    def __init__(self, loop, timesteps, return_sequences):
        self.loop, self.timesteps, self.return_sequences = loop, timesteps, return_sequences
        super().__init__(f"repeat_{loop.name}", self._forward, self._infer, self._pullback, effect=loop.recorded.effect)

    def _infer(self, *inputs, **generators):
        states, assigned, outputs, extras = self.loop.carried.cut(self.loop.specs)
        if self.return_sequences:
            outputs = [Spec((x.shape[0], self.timesteps, *x.shape[1:]), x.dtype) for x in outputs]
        return (*states, *assigned, *outputs, *(Spec((self.timesteps, *x.shape), x.dtype) for x in extras))

    def _forward(self, steps, *arrays, save, **generators):
        loop = self.loop
        carried, steps = loop.carried, int(steps)
        cuts, flags = len(loop.around.cut), len(loop.flags)
        carries = len(loop.recorded.carries)
        moving, arrays = arrays[: cuts + flags], arrays[cuts + flags :]
        carry, fixed = list(arrays[:carries]), arrays[carries:]
        plain = len(loop.plain)
        fixed = [*fixed[:plain], *(gemm.RightOperand(x) for x in fixed[plain:])]
        if loop.holds:
            batch = arrays[0].shape[0] if carries else moving[-1].shape[1]
            batch = moving[-1].shape[1] if flags else batch
            carry += [zeros((batch, *x.shape[1:]), x.dtype) for x in loop.output_specs]
        going = carries + len(loop.output_specs) * loop.holds
        first, last = carries, carries + len(loop.output_specs)
        program = loop.linear[0] if save else loop.program
        (run, again), residuals, shown, extras = program.replays(), [], None, []
        try:
            for t, now in enumerate(zip(*moving, strict=True) if moving else ((),) * steps):
                result = run(*now, *carry, *fixed)
                run = again
                if save:
                    result, kept = result
                    residuals.append(kept)
                carry = result[:going]
                if self.return_sequences:
                    emitted = result[first:last]
                    if shown is None:
                        shown = [array_module(x).empty((len(x), steps, *x.shape[1:]), x.dtype) for x in emitted]
                    for whole, x in zip(shown, emitted):  # noqa: B905 - equal by construction, at each step
                        whole[:, t] = x
                if carried.extras:
                    extras.append(result[last:])
        except Exception as error:
            program._explain(error)
            raise
        more = [np.stack(x) for x in zip(*extras, strict=True)]
        return (*result[:first], *(shown if self.return_sequences else result[first:last]), *more), residuals

    def _pullback(self, saved, d_outputs, needs, **generators):
        loop = self.loop
        _, _, heads, _ = loop.linear
        arguments = needs[1:]  # those of the program, but the outputs before
        cuts, flags, carries = len(loop.around.cut), len(loop.flags), len(loop.recorded.carries)
        held = len(loop.output_specs) if loop.holds else 0
        start = cuts + flags
        plan = loop.plan((*arguments[: start + carries], *[False] * held, *arguments[start + carries :]))
        steps, first, last = len(saved), carries, carries + len(loop.output_specs)
        d_outputs = list(d_outputs)
        gradients = [None] * len(needs)

        def zeros_like_result(i):
            """Return zeros like the result `i` of a step."""
            spec = loop.specs[i]
            return zeros([n if n is not None else _rows(d_outputs[:last]) for n in spec.shape], spec.dtype)

        # Gradients of the states go from step to step; those of the other results come from outside at each step, and
        # of outputs that are held over masked steps from the step behind as well.
        held_at = {start + carries + j: first + j for j in range(held)}  # argument -> result
        state_heads, other_heads = [i for i in heads if i < first], [i for i in heads if i >= first]
        going = [zeros_like_result(i) if d_outputs[i] is None else d_outputs[i] for i in state_heads]
        nothing = [zeros_like_result(i) for i in other_heads]
        streams = []
        for i, none in zip(other_heads, nothing, strict=True):
            d = d_outputs[i]
            if d is None:
                streams.append([none] * steps)
            elif i >= last:
                streams.append(list(d))
            else:
                streams.append(list(np.moveaxis(d, 1, 0)) if self.return_sequences else [none] * (steps - 1) + [d])
        n_states = len(state_heads)
        places = [n_states + other_heads.index(held_at[a]) for a in plan.carries[n_states:]]
        held_d = []
        rows, row_seeds = None, [j for j in plan.from_seeds if j < n_states or j in places]
        step_cuts, sums = [], None
        n_carry, n_sum, n_cut = len(plan.carries), len(plan.step_sums), len(plan.step_cuts)
        first_piece = n_carry + n_sum + n_cut
        back, again = plan.back.replays()
        try:
            for t in range(steps - 1, -1, -1):
                seeds = [*going, *[stream[t] for stream in streams]]
                if held_d:
                    for place, d in zip(places, held_d, strict=True):
                        seeds[place] = d if seeds[place] is nothing[place - n_states] else seeds[place] + d
                found = back(saved[t], seeds)
                back = again
                going = found[:n_states]
                if places:
                    held_d = found[n_states:n_carry]
                if n_sum:
                    more = found[n_carry : n_carry + n_sum]
                    sums = more if sums is None else [a + b for a, b in zip(sums, more, strict=True)]
                if n_cut:
                    step_cuts.append(found[n_carry + n_sum : n_carry + n_sum + n_cut])
                pieces = found[first_piece:]
                if row_seeds:
                    pieces += [seeds[j] for j in row_seeds]
                if rows is None:
                    rows = [array_module(x).empty((len(x), steps, *x.shape[1:]), x.dtype) for x in pieces]
                for whole, x in zip(rows, pieces):  # noqa: B905 - equal by construction, at each step
                    whole[:, t] = x
        except Exception as error:
            plan.back._explain(error)
            raise

        def whole_stream(i):
            """Return the gradient of result `i` of all steps: shape (batch, timesteps, ...)."""
            d = d_outputs[i]
            if self.return_sequences and d is not None:
                return d
            none = zeros_like_result(i)
            whole = zeros((len(none), steps, *none.shape[1:]), none.dtype)
            if d is not None:
                whole[:, -1] = d
            return whole

        def put(argument, gradient):
            """Note the gradient of an argument of the program."""
            gradients[1 + argument - (held if argument >= start + carries + held else 0)] = gradient

        for argument, d in zip(plan.carries, going, strict=False):
            put(argument, d)
        for argument, d in zip(plan.step_sums, sums or (), strict=True):
            put(argument, d)
        for j, argument in enumerate(plan.step_cuts):
            put(argument, np.stack([found[j] for found in step_cuts[::-1]]))
        if plan.tail is not None:
            # Rows stand as in the data, batch before time.
            seeds = dict(zip(row_seeds, rows[len(plan.from_loop) :], strict=True))
            for j in plan.from_seeds:
                if j not in seeds:
                    seeds[j] = whole_stream(other_heads[j - n_states])
            rows = rows[: len(plan.from_loop)]
            rows += [np.stack([kept[j] for kept in saved], 1) for j in plan.from_residuals]
            rows += [seeds[j] for j in plan.from_seeds]
            rows = [x.reshape(-1, *x.shape[2:]) for x in rows]
            found = plan.tail(*rows, *(saved[0][j] for j in plan.constants))
            n = len(plan.tail_cuts)
            for argument, d in zip(plan.tail_cuts, found[:n], strict=True):
                put(argument, np.moveaxis(d.reshape(loop.batch, steps, *d.shape[1:]), 1, 0))
            for argument, d in zip(plan.tail_sums, found[n:], strict=True):
                put(argument, d)
        return tuple(g if need else None for g, need in zip(gradients, needs, strict=True))


def _rows(d_outputs):
    """Return the batch size, where the trace did not know it."""
    return next(len(d) for d in d_outputs if d is not None)
