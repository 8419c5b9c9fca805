"""ONNX Runtime, which does inference only: graphs of RNN, GRU and LSTM nodes."""

import importlib

__all__ = ["forward", "set_threads", "stream", "versions"]

OPSET, IR_VERSION = 17, 9
NODES = {"LSTM": ("LSTM", 4, {}), "GRU": ("GRU", 3, {"linear_before_reset": 1}), "SimpleRNN": ("RNN", 1, {})}
_threads = 1


def set_threads(count):
    """Use so many threads."""
    global _threads
    _threads = count


def versions():
    """The versions of what is measured."""
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__}


def _session(nodes, inputs, outputs, weights, threads):
    """Make a session; `inputs` and `outputs` are (name, type, shape), `weights` is {name: array}."""
    import onnxruntime
    from onnx import helper, numpy_helper

    values = [[helper.make_tensor_value_info(*one) for one in group] for group in (inputs, outputs)]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", *values, constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def forward(cell, case):
    """Inference of layers, on inputs that have the time first as its nodes want them."""
    if case["dtype"] != "float32":
        return f"its recurrent nodes have no {case['dtype']}"
    import numpy as np
    from onnx import TensorProto, helper

    recipes = importlib.import_module("recipes")
    rng, (operator, gates, options) = np.random.default_rng(0), NODES[cell]
    units, directions = case["units"], 2 if case["bidirectional"] else 1
    nodes, name, width = [], "x", case["inputs"]
    weights = {"shape": np.array([0, 0, directions * units])}
    for number in range(case["layers"]):
        shapes = {"W": (gates * units, width), "R": (gates * units, units), "B": (2 * gates * units,)}
        names = {letter: f"{letter}{number}" for letter in (*shapes, "y", "turned", "out")}
        for letter, shape in shapes.items():
            weights[names[letter]] = rng.normal(scale=0.1, size=(directions, *shape)).astype("f4")
        given = [name, names["W"], names["R"], names["B"], *(["lengths"] if case["masked"] else [])]
        direction = "bidirectional" if case["bidirectional"] else "forward"
        nodes.append(helper.make_node(operator, given, [names["y"]], hidden_size=units, direction=direction, **options))
        # From (T, directions, B, H) to (T, B, directions * H).
        nodes.append(helper.make_node("Transpose", [names["y"]], [names["turned"]], perm=(0, 2, 1, 3)))
        nodes.append(helper.make_node("Reshape", [names["turned"], "shape"], [names["out"]]))
        name, width = names["out"], directions * units
    x = np.ascontiguousarray(recipes.inputs(case).swapaxes(0, 1))
    feed, inputs = {"x": x}, [("x", TensorProto.FLOAT, x.shape)]
    if case["masked"]:
        feed["lengths"] = np.array(recipes.lengths(case), np.int32)
        inputs.append(("lengths", TensorProto.INT32, feed["lengths"].shape))
    session = _session(nodes, inputs, [(name, TensorProto.FLOAT, None)], weights, _threads)
    return lambda: session.run(None, feed)


def stream(case):
    """A graph of one LSTM node and one timestep."""
    import numpy as np
    from onnx import TensorProto, helper

    rng, units = np.random.default_rng(0), case["units"]
    shapes = {"W": (1, 4 * units, case["inputs"]), "R": (1, 4 * units, units), "B": (1, 8 * units)}
    weights = {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    state = 1, case["batch"], units
    given, found = ["x", "W", "R", "B", "", "h0", "c0"], ["", "h", "c"]
    node = helper.make_node("LSTM", given, found, hidden_size=units, direction="forward")
    feed = {"x": np.ones((1, case["batch"], case["inputs"]), "f4"), "h0": np.zeros(state, "f4")}
    feed["c0"] = feed["h0"]
    inputs = [(name, TensorProto.FLOAT, array.shape) for name, array in feed.items()]
    outputs = [(name, TensorProto.FLOAT, state) for name in ("h", "c")]
    session = _session([node], inputs, outputs, weights, 1)  # one row is not worth a second thread

    def call():
        feed["h0"], feed["c0"] = session.run(None, feed)

    return call
