"""Programs: traced functions as straight-line Python, and their gradients.

A `Program` is a list of steps, one per recorded node that something depends on. It is written out as the source of
one Python function (``print(program)`` shows it) and compiled by Python itself, so that replaying costs little more
than the array calls: values are local variables, deleted after their last use.
"""

import functools
import math

import numpy as np

from . import cuda, tree
from .arrays import Constant
from .operation import KernelOp, Pullback
from .protocols import OPERATIONS, local
from .symbolic import Node, Spec, Tensor, Trace, tracing
from .variable import Variable

_LITERALS = (bool, int, float, type(None))


class Step:
    """One line of a program: the node that it repeats, and its text."""

    __slots__ = ("node", "text")

    def __init__(self, node, text):
        self.node, self.text = node, text

    def __repr__(self):
        return self.text


class Program:
    """A traced function, replayed on arrays by calling it.

    Safe to call from several threads: a call keeps its values to itself.

    Attributes
    ----------
    name : str
        The name of the traced function.
    inputs : list of Tensor
        One per Spec among the traced function's arguments, in flattening order; a call takes one array for each.
    outputs : list
        The leaves of what the function returned: Tensors, or values that did not depend on symbols.
    output_specs : nest
        What the function returned, with Specs for Tensors.
    variables : list of Variable
        Those that the function read.
    steps : list of Step
    source : str
        The Python source that is run.
    """

    def __init__(self, name, trace, inputs, result, *, groups=None, residuals=None):
        self.name, self.trace, self.inputs, self.groups = name, trace, inputs, groups
        self.handed_out = {id(x) for x in tree.leaves(result)}
        self.result = result if residuals is None else (result, residuals)
        self.outputs, self.treedef = tree.flatten(self.result)
        saving = {x.node for x in self.outputs if isinstance(x, Tensor) and x.spec is None}
        self.nodes = _needed(trace.nodes, self.outputs, saving)
        self._saving = saving
        writer = _Writer(self, saving)
        self.steps, self.variables, self.source = writer.steps, writer.variables, writer.source
        self._names, self._returned, self._step_at = writer.names, writer.returned, writer.step_at
        self._compile = writer.compile
        self._run = self._compile()

    @functools.cached_property
    def _run_again(self):
        """The replay without the checks of its arguments, for calls with arrays like those of a checked one."""
        return self._compile(checked=False)

    @functools.cached_property
    def _run_on_gpu(self):
        """The replay on arrays on the GPU; line by line like the other one."""
        return _Writer(self, self._saving, on_gpu=True).compile()

    def replays(self):
        """Return two functions to replay with where this thread computes: for the first call, and for later ones."""
        return (self._run_on_gpu,) * 2 if local.on_gpu else (self._run, self._run_again)

    @property
    def output_specs(self):
        """The result with Specs in place of Tensors."""
        return tree.unflatten(self.treedef, [x.spec if isinstance(x, Tensor) else x for x in self.outputs])

    def __call__(self, *arrays, **options):
        """Replay on arrays; return the traced function's result with arrays in place of Tensors."""
        try:
            return self._run_on_gpu(*arrays, **options) if local.on_gpu else self._run(*arrays, **options)
        except Exception as error:
            self._explain(error)
            raise

    def _explain(self, error):
        """Add to an error which step failed, and which line of the user's code that came from."""
        found = error.__traceback__
        while found is not None:
            if found.tb_frame.f_code.co_filename == self._run.__code__.co_filename:
                step = self._step_at.get(found.tb_lineno)
                if step is not None:
                    file, line = step.node.line
                    error.add_note(
                        f"In program {self.name!r}, step {self.steps.index(step)}: {step.text}\n"
                        f"recorded at {file}:{line}"
                    )
                return
            found = found.tb_next

    def __str__(self):
        head = ", ".join(f"{self._names[id(x)]}: {_describe(x.spec)}" for x in self.inputs)
        width = max((len(step.text) for step in self.steps), default=0)
        lines = [f"program {self.name}({head})"]
        for i, step in enumerate(self.steps):
            outputs = ", ".join(_describe(x.spec) for x in step.node.outputs)
            file, line = step.node.line
            lines.append(f"{i:4d}  {step.text:<{width}}  # {outputs}  {file.rsplit('/', 1)[-1]}:{line}")
        return "\n".join([*lines, f"      return {self._returned}"])

    def __repr__(self):
        counts = f"{len(self.inputs)} inputs, {len(self.steps)} steps, {len(self.variables)} variables"
        return f"<Program {self.name}: {counts}>"

    def inline(self, *inputs):
        """Call the operations one by one, on arrays (to debug) or on Tensors (to make this a part of another trace)."""
        values = self.values(*inputs)
        leaves = [values[id(x)] if isinstance(x, Tensor) else x for x in self.outputs]
        return tree.unflatten(self.treedef, leaves)

    def values(self, *inputs):
        """Call the operations one by one; return the values of all Tensors, those of variables too, by their ids."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"program {self.name!r} takes {len(self.inputs)} inputs, got {len(inputs)}")
        values = {id(t): x for t, x in zip(self.inputs, inputs, strict=True)}
        for variable, leaf in self.trace.leaves.items():  # read before anything is assigned
            values[id(leaf)] = OPERATIONS["copy"](variable) if variable in self.trace.assigned else variable
        for node in self.nodes:
            given = [values[id(x)] if isinstance(x, Tensor) else x for x in node.inputs]
            if local.on_gpu:
                given = [cuda.to_device(x) if isinstance(x, np.ndarray) else x for x in given]
            results = node.operation(*given, **node.attrs)
            values.update(zip(map(id, node.outputs), (results,) if node.single else results, strict=True))
        return values

    def linearize(self, outputs=0, wrt=()):
        """Split into a forward program that keeps what the gradient needs, and the gradient.

        Parameters
        ----------
        outputs : int or sequence of int
            Which of `outputs` are differentiated.
        wrt : sequence of Variable or Tensor
            With respect to what; Tensors are among `inputs`.

        Returns
        -------
        forward : Program
            ``forward(*arrays) -> (result, residuals)``; ``residuals`` is a list.
        backward : Program
            ``backward(residuals, d_outputs, release=False) -> gradients``, a list aligned with ``wrt``; ``d_outputs``
            has one array per entry of ``outputs`` (bare where ``outputs`` is an int). With ``release`` the residuals
            are given up, each freed after its last use, for less memory; otherwise ``backward`` may be called again.
            Gradients may share memory with each other: change none in place.
        """
        wanted = [outputs] if isinstance(outputs, int) else list(outputs)
        heads = []
        for i in wanted:
            head = self.outputs[i]
            if not isinstance(head, Tensor):
                raise ValueError(
                    f"output {i} of program {self.name!r} is {head!r}, which depends on no input and no variable"
                )
            if head.dtype.kind != "f":
                raise TypeError(
                    f"output {i} of program {self.name!r} is {head.dtype}; only floating point outputs have gradients"
                )
            heads.append(head)
        targets = [self._target(w) for w in wrt]
        trace = Trace(forward=self.trace)
        seeds = [trace.input(head.spec, name=f"d_{i}") for i, head in zip(wanted, heads, strict=True)]
        with tracing(trace):
            gradients = _differentiate(self.nodes, heads, seeds, [t for t in targets if t is not None])
            result = [_gradient(w, t, gradients) for w, t in zip(wrt, targets, strict=True)]
        result = [trace.resolve(g) for g in result]
        live = {id(x) for node in _needed(trace.nodes, result) for x in node.inputs} | {id(x) for x in result}
        residuals = [(ours, twin) for ours, twin in trace.residuals.values() if id(twin) in live]
        forward = Program(self.name, self.trace, self.inputs, self.result, residuals=[ours for ours, _ in residuals])
        bare = seeds[0] if isinstance(outputs, int) else seeds
        groups = [("residuals", [twin for _, twin in residuals]), ("d_outputs", bare)]
        return forward, Program(f"{self.name}_gradient", trace, [*groups[0][1], *seeds], result, groups=groups)

    def _target(self, wrt):
        """Return the Tensor that stands for something to differentiate by, None where the function does not read it."""
        if isinstance(wrt, Variable):
            if wrt.dtype.kind != "f":
                raise TypeError(f"{wrt!r} is not floating point, it has no gradient")
            return self.trace.leaves.get(wrt)
        if not any(wrt is x for x in self.inputs):
            raise ValueError(f"{wrt!r} is no Variable and no input of program {self.name!r}")
        return wrt


def _needed(nodes, outputs, saving=()):
    """Return the nodes that have an effect or on which outputs depend, in order."""
    live = {id(x) for x in outputs}
    kept = []
    for node in reversed(nodes):
        if node.operation.effect or node in saving or any(id(x) in live for x in node.outputs):
            kept.append(node)
            live.update(map(id, node.inputs))
    return kept[::-1]


def _differentiate(nodes, heads, seeds, targets):
    """Run the gradient rules backwards over nodes; return the gradients of Tensors by id. A trace must be active."""
    active = {id(t) for t in targets}
    for node in nodes:
        if node.operation.gradient is not None and any(id(x) in active for x in node.inputs):
            active.update(id(x) for x in node.outputs if x.dtype.kind == "f")
    gradients = {}
    _add(gradients, zip(heads, seeds, strict=True), active)
    for node in reversed(nodes):
        d_outputs = [gradients.get(id(x)) for x in node.outputs]
        if all(d is None for d in d_outputs) or not any(id(x) in active for x in node.inputs):
            continue
        recorded = len(local.trace.nodes)
        found = (
            _pull_back(node, d_outputs, active)
            if isinstance(node.operation, KernelOp)
            else node.operation.gradient(node, *d_outputs)
        )
        found = found if isinstance(found, (tuple, list)) else (found,)
        for made in local.trace.nodes[recorded:]:
            made.line = node.line  # errors in the gradient name the line that is differentiated
        for x, d in zip(node.inputs, found, strict=True):
            if d is not None and id(x) in active and not _compatible(d, x.spec):
                raise ValueError(f"the gradient rule of {node.name} gives {d!r} for an input of {x.spec}")
        _add(gradients, zip(node.inputs, found, strict=True), active)
    return gradients


def _add(gradients, found, active):
    for x, d in found:
        if d is not None and id(x) in active:
            before = gradients.get(id(x))
            pieces = None if before is None else OPERATIONS["add_pieces"](before, d)
            gradients[id(x)] = d if before is None else OPERATIONS["add"](before, d) if pieces is None else pieces


def _compatible(gradient, spec):
    got = Spec.of(gradient)
    return (
        got.dtype == spec.dtype
        and len(got.shape) == len(spec.shape)
        and all(n is None or m is None or n == m for n, m in zip(got.shape, spec.shape, strict=True))
    )


def _pull_back(node, d_outputs, active):
    """Record the pullback of a kernel node as one node."""
    if node.saved is None:
        node.saved = Tensor(None, node, trace=node.outputs[0].trace, name="saved")
    needs = tuple(id(x) in active for x in node.inputs)
    specs = tuple(x.spec for x, need in zip(node.inputs, needs, strict=True) if need)
    operation = Pullback(node.operation, needs, tuple(d is not None for d in d_outputs), specs)
    inputs = [local.trace.resolve(node.saved), *(d for d in d_outputs if d is not None)]
    pullback = Node(operation, tuple(inputs), node.attrs, inputs, specs, local.trace)
    local.trace.nodes.append(pullback)
    given = iter(pullback.outputs)
    return [next(given) if need else None for need in needs]


def _gradient(wrt, target, gradients):
    """Return the gradient found for one target, else zeros of its shape."""
    found = gradients.get(id(target)) if target is not None else None
    if found is not None:
        return found
    spec = Spec.of(wrt)
    return OPERATIONS["zeros"](spec.shape, spec.dtype) if spec.known else OPERATIONS["zeros_like"](target)


def _describe(spec):
    return "saved" if spec is None else f"{spec.dtype}{list(spec.shape)}".replace("None", "?")


class _Writer:
    """Writes a program out as the source of one Python function."""

    def __init__(self, program, saving, on_gpu=False):
        self.program, self.saving, self.on_gpu = program, saving, on_gpu
        self.names = {}  # id of a Tensor -> its local variable
        self.globals = {
            "_reject": functools.partial(_reject, program.name),
            "_d_output": functools.partial(_d_output, program.name),
        }
        self.lines, self.steps, self.step_at, self.variables = [], [], {}, []
        self.checks = set()  # places of the lines that check arguments
        used = [x for node in program.nodes for x in node.inputs] + program.outputs
        self.outputs = {id(x) for x in program.outputs}
        arguments = self._arguments()
        self._variables(used)
        dead = self._last_uses()
        for node in program.nodes:
            self._step(node)
            gone = [self.names[i] for i in dead[node]]
            if gone:
                self._line(f"del {', '.join(gone)}")
        self.returned = self._nest(program.result)
        self._line(f"return {self.returned}")
        self.source = f"def replay({arguments}):\n" + "\n".join(self.lines) + "\n"

    def compile(self, checked=True):
        """Return the function, with its lines where they are also without its checks."""
        source = self.source
        if not checked:
            lines = ["    pass" if i in self.checks else line for i, line in enumerate(self.lines)]
            source = "\n".join([source.split("\n", 1)[0], *lines, ""])
        exec(compile(source, f"<program {self.program.name}>", "exec"), self.globals)
        return self.globals["replay"]

    def _check(self, text):
        self.checks.add(len(self.lines))
        self._line(text)

    def _line(self, text):
        self.lines.append(f"    {text}")
        return len(self.lines) + 1  # line 1 is the def

    def _new(self, tensor, letter):
        return self.names.setdefault(id(tensor), f"{letter}{len(self.names)}")

    def _constant(self, x, letter="c"):
        name = f"{letter}{len(self.globals)}_"
        self.globals[name] = x
        return name

    def _value(self, x):
        """Return the text of an input or output."""
        if isinstance(x, Tensor):
            return self.names[id(x)]
        if type(x) in _LITERALS and not (type(x) is float and not math.isfinite(x)):
            return repr(x)
        if self.on_gpu and isinstance(x, np.ndarray):
            return f"{self._constant(Constant(x))}()"
        return self._constant(x)

    def _arguments(self):
        """Write how the inputs arrive; return the parameter list."""
        program = self.program
        if program.groups is None:
            for i, x in enumerate(program.inputs):
                name, spec = self._new(x, "x"), self._constant(x.spec, "spec")
                fits = (
                    f"{name}.shape == {x.shape} and {name}.dtype == {spec}.dtype"
                    if x.spec.known
                    else f"{spec}.fits({name})"
                )
                self._check(f"if not ({fits}): _reject({i}, {name}, {spec})")
            return ", ".join(self.names[id(x)] for x in program.inputs)
        (_, residuals), (_, d_outputs) = program.groups
        names = [self._new(x, "r") for x in residuals]
        if names:
            self._line(f"{', '.join(names)}, = residuals")
        self._line("if release: residuals.clear()")
        if isinstance(d_outputs, Tensor):
            self._line(f"{self._new(d_outputs, 'd')} = d_outputs")
            d_outputs = [d_outputs]
        else:
            self._line(f"{', '.join(self._new(x, 'd') for x in d_outputs)}, = d_outputs")
        for i, x in enumerate(d_outputs):
            name = self.names[id(x)]
            self._check(f"{name} = _d_output({i}, {name}, {self._constant(x.spec, 'spec')})")
        return "residuals, d_outputs, release=False"

    def _variables(self, used):
        """Write the reading of the variables that are used."""
        for x in used:
            if isinstance(x, Tensor) and x.variable is not None and id(x) not in self.names:
                self.variables.append(x.variable)
                # A later assignment is in place: what was read before keeps its value, also as a result.
                copy = (
                    ".copy()" if x.variable in self.program.trace.assigned or id(x) in self.program.handed_out else ""
                )
                read = f"{self._constant(x.variable, 'variable')}.{'on_gpu' if self.on_gpu else '_view'}{copy}"
                self._line(f"{self._new(x, 'w')} = {read}  # {x.variable.path}")

    def _last_uses(self):
        """Return node -> ids of the Tensors that nothing needs after it."""
        seen, dead = set(self.outputs), {}
        for node in reversed(self.program.nodes):
            mine = [*node.inputs, *node.outputs] + ([node.saved] if node in self.saving else [])
            dead[node] = list(dict.fromkeys(id(x) for x in mine if isinstance(x, Tensor) and id(x) not in seen))
            seen.update(dead[node])
        return dead

    def _step(self, node):
        operation, attrs = node.operation, node.attrs
        targets = ", ".join(self._new(x, "t") for x in node.outputs)
        if not node.single and targets:
            targets += ","
        inputs = [self._value(x) for x in node.inputs]
        function, pick = operation.compute, ""
        if isinstance(operation, KernelOp):
            save = node in self.saving
            function, pick, attrs = operation.forward, "" if save else "[0]", {**attrs, "save": save}
            if save:
                targets = f"{targets if node.single else f'({targets})'}, {self._new(node.saved, 's')}"
        name = self._constant(functools.partial(function, **attrs) if attrs else function, "f")
        equals = f"{targets} = " if targets else ""
        number = self._line(f"{equals}{name}({', '.join(inputs)}){pick}")
        shown = inputs + [f"{key}={value!r:.40}" for key, value in node.attrs.items()]
        step = Step(node, f"{equals}{node.name}({', '.join(shown)})")
        self.steps.append(step)
        self.step_at[number] = step

    def _nest(self, nest):
        """Return the text of a nest of results."""
        if type(nest) in (tuple, list):
            inside = ", ".join(map(self._nest, nest))
            return f"[{inside}]" if type(nest) is list else f"({inside},)" if nest else "()"
        if type(nest) is dict:
            return (
                "{"
                + ", ".join(
                    f"{self._value(k) if type(k) is not str else repr(k)}: {self._nest(v)}" for k, v in nest.items()
                )
                + "}"
            )
        if type(nest) not in (Tensor, Variable) and tree.is_nested(nest):
            leaves, treedef = tree.flatten(nest)
            unflatten = self._constant(functools.partial(tree.unflatten, treedef), "unflatten")
            return f"{unflatten}([{', '.join(map(self._nest, leaves))}])"
        return self._value(nest)


def _reject(program, i, array, spec):
    got = _describe(array) if hasattr(array, "dtype") else repr(array)[:60]
    raise ValueError(f"program {program!r} was traced for {_describe(spec)} as input {i}, got {got}")


def _d_output(program, i, array, spec):
    array = np.asarray(array, spec.dtype) if not hasattr(array, "dtype") else array
    if not spec.fits(array):
        raise ValueError(f"program {program!r} takes {_describe(spec)} as d_outputs entry {i}, got {_describe(array)}")
    return array
