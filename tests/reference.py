"""The oracle: one sweep and the objective in slow, obvious NumPy, written from the derivation and not from the kernels.

Everything is computed in double precision, entry by entry, in the order that the library promises: diagonal by
diagonal, block by block, and within a block in runs that take turns.
"""

import itertools

import numpy as np

RUNS = 8
LONGEST_STEP = 0.5


def huber(x, p):
    e = abs(x - p)
    return e**2 if e < 1 else 2 * e - 1


# name: (value, derivative); the values of squared and huber are twice the functions that are descended on.
LOSSES = {
    "squared": (lambda x, p: abs(x - p) ** 2, lambda x, p: p - x),
    "absolute": (lambda x, p: abs(x - p), lambda x, p: (p > x) - float(p < x)),
    "huber": (huber, lambda x, p: max(-1.0, min(1.0, p - x))),
    "logistic": (
        lambda x, p: -np.log(1 / (1 + np.exp(-p)) if x == 1 else 1 - 1 / (1 + np.exp(-p))),
        lambda x, p: 1 / (1 + np.exp(-p)) - x,
    ),
    "poisson": (
        lambda x, p: (x * np.log(x / np.exp(p)) if x > 0 else 0.0) - x + np.exp(p),
        lambda x, p: np.exp(p) - x,
    ),
}


LOSSES["bpr"] = LOSSES["logistic"]  # of the difference of two predictions, the value being 1


def interleave(entries):
    """Cut a block's entries into RUNS runs of equal length and walk them in turn; what is left over comes last."""
    length = len(entries) // RUNS
    runs = [entries[j * length : (j + 1) * length] for j in range(RUNS)]
    return [run[i] for i in range(length) for run in runs] + list(entries[RUNS * length :])


def visit_stored(rows, cols, values, grid, diagonals):
    """Return (factor row, factor column, value) in the order of visits.

    `rows, cols, values` are the stored entries row by row, in the order in which the user's row has them; `grid` has
    row_order, col_order, row_starts and col_starts.
    """
    *_, col_starts = grid
    blocks, B = cut_into_blocks(rows, cols, values, grid), len(col_starts) - 1
    return [entry for d in diagonals for b in range(B) for entry in interleave(blocks[b, (b + d) % B])]


def cut_into_blocks(rows, cols, values, grid):
    """Return the entries (factor row, factor column, value) of each block, in the order in which they are kept."""
    row_order, col_order, row_starts, col_starts = grid
    place_of_row = {int(r): p for p, r in enumerate(row_order)}
    place_of_col = {int(c): p for p, c in enumerate(col_order)}
    entries = [(place_of_row[int(r)], place_of_col[int(c)], x) for r, c, x in zip(rows, cols, values, strict=True)]
    blocks = {}
    for b, (r0, r1) in enumerate(itertools.pairwise(row_starts)):
        for c, (c0, c1) in enumerate(itertools.pairwise(col_starts)):
            block = [entry for entry in entries if r0 <= entry[0] < r1 and c0 <= entry[1] < c1]
            blocks[b, c] = sorted(block, key=lambda entry: entry[0])  # stable: a row's entries keep their order
    return blocks


def mix(seed, counter):
    """Return 64 random bits: splitmix64, in Python's integers."""
    z = (seed + (counter + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def visit_pairs(rows, cols, weights, grid, diagonals, seed):
    """Return (factor row, factor column, rival's factor column, weight) in the order of visits.

    Entry i, counted over the blocks row by row, is held against the first of eight columns of its block's stripe, drawn
    by `mix`, that its row has not; without one it is left out.
    """
    row_order, col_order, _, col_starts = grid
    has = set(zip(map(int, rows), map(int, cols), strict=True))
    blocks, B = cut_into_blocks(rows, cols, weights, grid), len(col_starts) - 1
    numbered, i = {}, 0
    for b in range(B):
        for c in range(B):
            numbered[b, c] = [(i + k, *entry) for k, entry in enumerate(blocks[b, c])]
            i += len(blocks[b, c])
    visits = []
    for d in diagonals:
        for b in range(B):
            c = (b + d) % B
            width = int(col_starts[c + 1] - col_starts[c])
            for i, row, col, weight in interleave(numbered[b, c]):
                draws = [int(col_starts[c]) + ((mix(seed, 8 * i + t) >> 32) * width >> 32) for t in range(8)]
                free = [q for q in draws if (int(row_order[row]), int(col_order[q])) not in has]
                if free:
                    visits.append((row, col, free[0], weight))
    return visits


def sweep_pairs(U, V, visits, lr, reg, prox=None, pace=None):
    """Return U, V after one step on each visit (r, c, d, weight), and the sum of the losses before each step.

    From the old values, with e = weight / (1 + exp(p)), p = U_r . (V_c - V_d): U_r += lr (e (V_c - V_d) - reg U_r),
    V_c += lr (e U_r - reg V_c), V_d += lr (-e U_r - reg V_d). `prox` and `pace` as in `sweep`.
    """
    U, V = U.astype(np.float64), V.astype(np.float64)
    pace_row, pace_col = (np.ones(len(U)), np.ones(len(V))) if pace is None else pace
    total = 0.0
    for r, c, d, weight in visits:
        u, v, w = U[r].copy(), V[c].copy(), V[d].copy()
        p = u @ (v - w)
        e = weight / (1 + np.exp(p))
        U[r] = u + lr * pace_row[r] * (e * (v - w) - reg[0] * u)
        V[c] = v + lr * pace_col[c] * (e * u - reg[1] * v)
        V[d] = w + lr * pace_col[d] * (-e * u - reg[1] * w)
        if prox is not None:
            for M, i, side in ((U, r, 0), (V, c, 1), (V, d, 1)):
                M[i] = np.maximum(np.sign(M[i]) * np.maximum(np.abs(M[i]) - lr * prox[side], 0), prox[side + 2])
        total += weight * np.log(1 + np.exp(-p))
    return U, V, total


def visit_dense(A, row_starts, col_starts, diagonals):
    """Return (row, column, value) in the order of visits.

    A block is walked in bands of RUNS rows (of as many as it has columns, where that is less), each row one column
    further along than the one above it.
    """
    B = len(row_starts) - 1
    visits = []
    for d in diagonals:
        for b in range(B):
            c = (b + d) % B
            block_rows = range(row_starts[b], row_starts[b + 1])
            block_cols = range(col_starts[c], col_starts[c + 1])
            height = min(RUNS, len(block_cols))
            for top in range(0, len(block_rows), height):
                band = block_rows[top : top + height]
                for t in range(len(block_cols)):
                    for j, r in enumerate(band):
                        col = block_cols[(t + j) % len(block_cols)]
                        visits.append((r, col, A[r, col]))
    return visits


def sweep(U, V, row_bias, col_bias, visits, lr, reg, biases, loss="squared", place=None, prox=None, pace=None):
    """Return U, V, row_bias, col_bias after one step on each visit, and the sum of the losses before each step.

    One step on (r, c), all from the old values: U_r += lr (e V_c - reg U_r), V_c += lr (conj(e) U_r - reg V_c), with
    e = -dL/dp. `place` is (origin, scale, slope, height): then the loss sees origin + scale p, its derivative and its
    value count times slope and height, and no lr e is longer than LONGEST_STEP. A visit's fourth item is its
    weight, 1 where it has none. `prox` is (l1 of rows, l1 of columns,
    least of rows, least of columns): after the step each number moves lr l1 towards 0, never past, and up to the least.
    `pace` is (of rows, of columns): what lr is multiplied by for each, which no prox goes with.
    """
    double = np.result_type(U.dtype, np.float64)
    U, V, row_bias, col_bias = (np.array(M, double) for M in (U, V, row_bias, col_bias))
    reg_row, reg_col = np.broadcast_to(reg[0], len(U)), np.broadcast_to(reg[1], len(V))  # one for all, or one each
    value, derivative = LOSSES[loss] if isinstance(loss, str) else loss
    pace_row, pace_col = (np.ones(len(U)), np.ones(len(V))) if pace is None else pace
    origin, scale, slope, height = (0, 1, 1, 1) if place is None else place
    total = 0.0
    for r, c, x, *weight in visits:
        w = weight[0] if weight else 1.0
        p = sum(U[r, q] * np.conj(V[c, q]) for q in range(U.shape[1]))
        if biases:
            p += row_bias[r] + col_bias[c]
        e = -w * slope * derivative(x, origin + scale * p)
        if place is not None:
            e = np.clip(lr * e, -LONGEST_STEP, LONGEST_STEP) / lr
        u, v = U[r].copy(), V[c].copy()
        U[r] = u + lr * pace_row[r] * (e * v - reg_row[r] * u)
        V[c] = v + lr * pace_col[c] * (np.conj(e) * u - reg_col[c] * v)
        if biases:
            row_bias[r] += lr * pace_row[r] * (e - reg_row[r] * row_bias[r])
            col_bias[c] += lr * pace_col[c] * (e - reg_col[c] * col_bias[c])
        if prox is not None:
            for M, i, side in ((U, r, 0), (V, c, 1), (row_bias, r, 0), (col_bias, c, 1))[: 4 if biases else 2]:
                shorter = np.sign(M[i]) * np.maximum(np.abs(M[i]) - lr * prox[side], 0)
                M[i] = np.maximum(shorter, prox[side + 2])
        total += w * height * value(x, origin + scale * p)
    return U, V, row_bias, col_bias, total


def objective(U, V, row_bias, col_bias, entries, reg, biases):
    """Return J: over the entries, 1/2 |e|^2 + 1/2 reg (|U_r|^2 + |V_c|^2), biases penalised like factors."""
    J = 0.0
    for r, c, x in entries:
        e = x - np.sum(U[r] * np.conj(V[c]))
        size_row, size_col = np.sum(np.abs(U[r]) ** 2), np.sum(np.abs(V[c]) ** 2)
        if biases:
            e -= row_bias[r] + col_bias[c]
            size_row += abs(row_bias[r]) ** 2
            size_col += abs(col_bias[c]) ** 2
        J += 0.5 * abs(e) ** 2 + 0.5 * (reg[0] * size_row + reg[1] * size_col)
    return J


def gradient(function, M, step=1e-6):
    """Return the gradient of the real `function()` of the array `M`, in place, by central differences.

    For complex `M` it is dJ/dRe + i dJ/dIm, the direction of steepest ascent (twice the Wirtinger derivative with
    respect to the conjugate).
    """
    result = np.zeros_like(M)
    for i in np.ndindex(M.shape):
        for unit in (1, 1j) if np.iscomplexobj(M) else (1,):
            kept = M[i]
            M[i] = kept + unit * step
            above = function()
            M[i] = kept - unit * step
            below = function()
            M[i] = kept
            result[i] += unit * (above - below) / (2 * step)
    return result


def optimal_error(A, rank):
    """Return the Frobenius error of the best approximation of `A` of that rank (Eckart and Young)."""
    return float(np.sqrt(np.sum(np.linalg.svd(A, compute_uv=False)[rank:] ** 2)))
