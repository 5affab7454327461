"""The cross-scan as ONNX operators, since ONNX knows no selective scan: a chunk of steps an iteration of its `Scan`.

As in the PyTorch form (`selective_scan/chunked.py`), decays and inputs of all steps of a chunk are computed by few large
operators, and only h = decay * h + input is left to be unrolled: `CHUNK` pairs of operators, whatever the length is.
"""

import itertools

import onnx
import onnxscript
from onnxscript import opset18 as op
from selective_scan import Direction

CHUNK = 32  # steps
PROJECTION = "scan_projection_"  # how names begin of operators that project a scan's inputs
_NUMBERS = itertools.count()


def cross_scan(
    u, x_proj_weight, dt_projs_weight, dt_projs_bias, A, D, directions, limb_partners, exact_limbs, implementation, keep
):
    """Return y like u (B, F, J, channels), and no saved states: `torch.ops.selective_scan.cross_scan` as ONNX."""
    paths = [Direction.decode(code) for code in directions]
    count, channels, rank = dt_projs_weight.shape
    states = A.shape[1]
    with_partners = op.Add(u, op.Gather(u, _numbers(limb_partners), axis=2)) if limb_partners else u

    skip_weights = op.Reshape(D, _numbers([count, channels]))
    sequences, terms, orders = [], [], [_orders(path, u) for path in paths]
    for k, path in enumerate(paths):
        x = with_partners if path.limbs else u
        projections = _project(x, _entry(x_proj_weight, k))
        ranks, B, C = _parts(projections, [rank, states, states])
        steps = _project(ranks, _entry(dt_projs_weight, k))
        delta = _softplus(op.Add(steps, _entry(dt_projs_bias, k)))
        together = _flat(op.Concat(delta, op.Mul(delta, x), B, C, axis=-1), u)
        sequences.append(op.Unsqueeze(op.Gather(together, orders[k][0], axis=1), _numbers([2])))
        terms.append(op.Mul(x, _entry(skip_weights, k)))
    decays = op.Transpose(op.Reshape(A, _numbers([count, channels, states])), perm=[0, 2, 1])
    y = _scan(
        op.Transpose(op.Concat(*sequences, axis=2), perm=[1, 0, 2, 3]), decays, [channels, channels, states, states]
    )
    for k, (_, back) in enumerate(orders):
        of_path = op.Transpose(op.Gather(y, _number(k), axis=2), perm=[1, 0, 2])
        terms.append(op.Reshape(op.Gather(of_path, back, axis=1), op.Shape(u)))
    return op.Sum(*terms), op.Constant(value_float=0.0)


def _project(x, weight):
    """Return x @ weight.T by an operator whose name tells that it is a scan's."""
    y = op.MatMul(x, op.Transpose(weight, perm=[1, 0]))
    y.producer().name = f"{PROJECTION}{next(_NUMBERS)}"
    return y


def _softplus(x):
    """Return log(1 + exp(x)) of parts that ONNX Runtime has vectorised, unlike its Softplus."""
    one = op.Constant(value_float=1.0)
    return op.Add(op.Relu(x), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), one)))


def _scan(sequences, A, widths):
    """Return y (L, B, K, D) of step sizes, their products with inputs, B and C in one (L, B, K, 2D + 2N); A (K, N, D)."""
    length = op.Shape(sequences, start=0, end=1)
    missing = op.Mod(op.Neg(length), _numbers([CHUNK]))  # steps of size 0 at the end
    padded = op.Pad(sequences, op.Concat(_numbers([0] * 4), missing, _numbers([0] * 3), axis=0))
    inner = op.Shape(sequences, start=1, end=3)
    chunks = op.Reshape(padded, op.Concat(_numbers([-1, CHUNK]), inner, _numbers([sum(widths)]), axis=0))
    batch = op.Shape(sequences, start=1, end=2)
    h = op.Expand(op.Mul(A, op.Constant(value_float=0.0)), op.Concat(batch, op.Shape(A), axis=0))
    scan = op.Scan(h, A, *_parts(chunks, widths), body=_chunk(CHUNK), num_scan_inputs=4).producer()
    scan.resize_outputs(3)  # that of a traced call is one
    y = scan.outputs[2]
    y = op.Reshape(y, op.Concat(_numbers([-1]), inner, _numbers([widths[0]]), axis=0))
    return op.Slice(y, _numbers([0]), length, _numbers([0]))


def _chunk(steps):
    """Return the graph of an iteration: from state h (B, K, N, D) the state after `steps` steps, and y of each."""
    # a of decays, i of inputs, s of states: (1, B, K, N, D)
    recurrence = "\n".join(f"m{t} = Mul(a{t}, s{t})\ns{t + 1} = Add(m{t}, i{t})" for t in range(steps))

    def named(letter, first=0):
        return ", ".join(f"{letter}{t}" for t in range(first, first + steps))

    text = f"""chunk (float[b, k, n, d] h, float[k, n, d] A, float[t, b, k, d] delta, float[t, b, k, d] inputs,
                      float[t, b, k, n] B, float[t, b, k, n] C)
        => (float[b, k, n, d] last, float[k, n, d] same, float[t, b, k, d] y) {{
        front = Constant <value_ints = [0]> ()
        before_last = Constant <value_ints = [-2]> ()
        end = Constant <value_ints = [-1]> ()
        delta1 = Unsqueeze(delta, before_last)
        exponents = Mul(delta1, A)
        decays = Exp(exponents)
        inputs1 = Unsqueeze(inputs, before_last)
        B1 = Unsqueeze(B, end)
        increments = Mul(inputs1, B1)
        {named("a")} = Split <axis = 0, num_outputs = {steps}> (decays)
        {named("i")} = Split <axis = 0, num_outputs = {steps}> (increments)
        s0 = Unsqueeze(h, front)
        {recurrence}
        states = Concat <axis = 0> ({named("s", first=1)})
        C1 = Unsqueeze(C, before_last)
        y1 = MatMul(C1, states)
        y = Squeeze(y1, before_last)
        last = Squeeze(s{steps}, front)
        same = Identity(A)
    }}"""
    return onnxscript.ir.serde.deserialize_graph(onnx.parser.parse_graph(text))


def _flat(grid, like):
    """Return a grid (B, F, J, channels) as (B, F * J, channels)."""
    return op.Reshape(grid, op.Concat(op.Shape(like, start=0, end=1), _numbers([-1]), op.Shape(grid, start=3), axis=0))


def _orders(path, grid):
    """Return which position (F * J,) of a grid (B, F, J, channels) each step of a `Direction` reads, and the reverse."""
    frames, joints = op.Shape(grid, start=1, end=2), op.Shape(grid, start=2, end=3)
    steps = op.Range(_number(0), op.Squeeze(op.Mul(frames, joints)), _number(1))
    there = op.Reshape(steps, op.Concat(frames, joints, axis=0))
    there = _turned(op.Transpose(there, perm=[1, 0]) if path.joint_major else there, path)
    outer = (joints, frames) if path.joint_major else (frames, joints)
    back = _turned(op.Reshape(steps, op.Concat(*outer, axis=0)), path)
    back = op.Transpose(back, perm=[1, 0]) if path.joint_major else back
    return op.Reshape(there, _numbers([-1])), op.Reshape(back, _numbers([-1]))


def _turned(grid, path):
    """Return (outer, inner) with the axes turned around that a `Direction` reads from their ends."""
    backwards = [axis for axis, turned in enumerate((path.outer_backwards, path.inner_backwards)) if turned]
    if not backwards:
        return grid
    ends, starts = [-(2**31)] * len(backwards), [-1] * len(backwards)
    return op.Slice(grid, _numbers(starts), _numbers(ends), _numbers(backwards), _numbers(starts))


def _parts(tensor, widths):
    """Return the parts of the last axis that have these widths."""
    ends = list(itertools.accumulate(widths))
    return [op.Slice(tensor, _numbers([b - w]), _numbers([b]), _numbers([-1])) for b, w in zip(ends, widths)]


def _entry(tensor, k):
    return op.Gather(tensor, _number(k), axis=0)


def _number(value):
    return op.Constant(value_int=value)


def _numbers(values):
    return op.Constant(value_ints=list(values))
