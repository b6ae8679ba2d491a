"""Work on tall matrices: project on a basis Q, subtract from it, orthonormalise a block, rotate; inner products.

A tall matrix lies in blocks of columns: Q[b, r, j] is row r of column b width + j. A Krylov basis has blocks of
`static.lanes` columns, each of which streams through the caches by itself, and `static.whole` says so where all that a
kernel reads is as wide, since a width that the compiler knows saves a fifth. A matrix in C order is one wide block.

Rows are taken several at a time (rows.py), so that each small matrix is read once for them, and in fixed slices with
their own partial sums, so that results do not depend on the number of threads. The slices' boundaries `starts`
are multiples of MOST_ROWS; rows of zeros at the end change nothing.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.rows import ROWS, along, down, load_rows, store_rows, zero_rows
from fastfactor.kernels.simd import conj, load, prefetch, store, zeros

# Rows of a block that are read before the next block's: with fewer, too many streams take turns. The machine does not
# foresee such short ones: each row is asked for when the one a tile before it is read.
TILE = 64


@kernel
def width_of(Q, static):
    """Return the columns of a block."""
    return np.uint64(static.lanes) if static.whole else np.uint64(Q.shape[2])


@kernel
def add_products(Q, b, Z, start, stop, C, q, static):
    """C[p] += sum_r conj(Q[r, p]) Z[r] for rows start:stop and the columns p of block b, chunk q of C and Z."""
    b, width = np.uint64(b), width_of(Q, static)
    for j in range(np.uint64(0), width, np.uint64(ROWS)):
        c = load_rows(C, b * width + j, q, static)
        for r in range(np.uint64(start), np.uint64(stop)):
            prefetch(Q[b], r + np.uint64(TILE), j // np.uint64(static.lanes), static)
            c = c + conj(along(Q[b], r, j, C, static)) * load(Z, r, q, static)
        store_rows(C, b * width + j, q, c, static)


@kernel
def combine_block(w, Q, b, r, C, q, static):
    """Return w + sum_p Q[r + i, p] C[p] for i = 0, 1, ... and the columns p of block b, chunk q of C."""
    width = width_of(Q, static)
    for j in range(width):
        w = w + down(Q[b], np.uint64(r), j, C, static) * load(C, b * width + j, q, static)
    return w


@kernel
def combine(Q, lo, hi, r, C, q, static):
    """Return sum_p Q[r + i, p] C[p] for i = 0, 1, ... and the columns p of blocks lo:hi, chunk q of C."""
    w = zero_rows(C, static)
    for b in range(np.uint64(lo), np.uint64(hi)):
        w = combine_block(w, Q, b, r, C, q, static)
    return w


@kernel
def combine_ahead(w, Q, lo, hi, r, C, static):
    """Return w + sum_p Q[r + i, p] C[p] of those blocks, chunk 0 of C, and ask for each block's rows a tile ahead."""
    for b in range(np.uint64(lo), np.uint64(hi)):
        for i in range(np.uint64(ROWS)):
            prefetch(Q[b], np.uint64(r) + i + np.uint64(TILE), 0, static)
        w = combine_block(w, Q, b, r, C, 0, static)
    return w


@parallel_kernel
def prepare_pass(Q, b, n_sums, static):
    """Make the n_sums blocks after block b zero, for a pass to add to, and ask for block b.

    A pass comes to their rows in no order. One by one they would come from memory, in order they come several at once.
    """
    for s in prange(n_sums):
        sums = Q[b + 1 + s]
        for r in range(np.uint64(Q.shape[1])):
            prefetch(Q[b], r, 0, static)
            store(sums, r, 0, zeros(Q, static), static)


@kernel
def add_up(Q, b, n_sums, start, stop, static):
    """Add rows start:stop of the blocks after b to those of block b: n_sums blocks in all."""
    for r in range(start, stop):
        w = load(Q[b], r, 0, static)
        for s in range(b + 1, b + n_sums):
            w = w + load(Q[s], r, 0, static)
        store(Q[b], r, 0, w, static)


@parallel_kernel
def collect(Q, head, lo, hi, n_sums, starts, C, S, signs, static):
    """Block hi of Q, called W, takes in the sums in the blocks after it; C[t] = Q_t^H W_t of blocks :head and lo:hi.

    On the way the sketch S[0], which is Q signs, takes in block hi - 1.
    """
    for t in prange(len(starts) - 1):
        W, C_t, S_t = Q[hi], C[t], S[0]
        C_t[:] = 0
        for start in range(starts[t], starts[t + 1], TILE):
            stop = min(start + TILE, starts[t + 1])
            add_up(Q, hi, n_sums, start, stop, static)
            for b in range(head):
                add_products(Q, b, W, start, stop, C_t, 0, static)
            for b in range(lo, hi):
                add_products(Q, b, W, start, stop, C_t, 0, static)
            for r in range(start, stop, ROWS):
                s = load_rows(S_t, r, 0, static)
                store_rows(S_t, r, 0, s + combine(Q, hi - 1, hi, r, signs, 0, static), static)


@parallel_kernel
def subtract(Q, head, lo, hi, D, starts, S, K, M, static):
    """Block hi of Q, called W, -= Q D, of blocks :head and lo:hi; then K[t] = S_t^H W_t and M[t] = W_t^H W_t."""
    for t in prange(len(starts) - 1):
        own, W, K_t, M_t = Q[hi : hi + 1], Q[hi], K[t], M[t]
        K_t[:] = 0
        M_t[:] = 0
        for start in range(starts[t], starts[t + 1], TILE):
            stop = min(start + TILE, starts[t + 1])
            for r in range(start, stop, ROWS):
                d = combine_ahead(zero_rows(D, static), Q, lo, hi, r, D, static)
                d = combine_ahead(d, Q, 0, head, r, D, static)
                store_rows(W, r, 0, load_rows(W, r, 0, static) - d, static)
            add_products(S, 0, W, start, stop, K_t, 0, static)
            add_products(own, 0, W, start, stop, M_t, 0, static)


@parallel_kernel
def transform(Q, b, T, starts, M, static):
    """Block b of Q, called X, = X T; M[t] = X_t^H X_t."""
    for t in prange(len(starts) - 1):
        own, X, M_t = Q[b : b + 1], Q[b], M[t]
        M_t[:] = 0
        for start in range(starts[t], starts[t + 1], TILE):
            stop = min(start + TILE, starts[t + 1])
            for r in range(start, stop, ROWS):
                store_rows(X, r, 0, combine(own, 0, 1, r, T, 0, static), static)
            add_products(own, 0, X, start, stop, M_t, 0, static)


@kernel
def combine_chunks(Q, n_blocks, r, Y, W, row, wide, static):
    """ROWS rows of W from `row` on = those of Q Y from r on, of the first blocks, in chunks of `wide` and `static`."""
    n_wide = Y.shape[1] // wide.lanes
    for q in range(n_wide):
        store_rows(W, row, q, combine(Q, 0, n_blocks, r, Y, q, wide), wide)
    for q in range(n_wide * wide.lanes // static.lanes, Y.shape[1] // static.lanes):
        store_rows(W, row, q, combine(Q, 0, n_blocks, r, Y, q, static), static)


@kernel
def rotate_rows(Q, n_blocks, r, Y, tile, wide, static):
    """ROWS rows of Q from r on = those of Q Y, of the first blocks; `tile`, (1, ROWS, columns of Y), keeps a copy."""
    combine_chunks(Q, n_blocks, r, Y, tile[0], 0, wide, static)
    chunks = Q.shape[2] // static.lanes
    for b in range(Y.shape[1] // Q.shape[2]):
        for q in range(chunks):
            store_rows(Q[b], r, q, load_rows(tile[0], 0, b * chunks + q, static), static)


@parallel_kernel
def rotate(Q, n_blocks, Y, starts, tiles, wide, static):
    """Q = Q Y of the first blocks, in place, as many columns as Y has; slice t works on tiles[t]."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1], ROWS):
            rotate_rows(Q, n_blocks, r, Y, tiles[t], wide, static)


@parallel_kernel
def restart(Q, n_blocks, Y, starts, tiles, S, signs, wide, static):
    """Q = Q Y of the first blocks, in place; the block after them moves after the new ones.

    The sketch S[0] becomes Q signs, of the new blocks.
    """
    for t in prange(len(starts) - 1):
        tile, S_t, kept = tiles[t], S[0], Y.shape[1] // Q.shape[2]
        for r in range(starts[t], starts[t + 1], ROWS):
            w = load_rows(Q[n_blocks], r, 0, static)
            rotate_rows(Q, n_blocks, r, Y, tile, wide, static)
            store_rows(Q[kept], r, 0, w, static)
            store_rows(S_t, r, 0, combine(tile, 0, 1, 0, signs, 0, static), static)


@parallel_kernel
def multiply(Q, n_blocks, Y, V, starts, wide, static):
    """V = Q Y, of the first blocks."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1], ROWS):
            combine_chunks(Q, n_blocks, r, Y, V, r, wide, static)


@parallel_kernel
def add_inner(Q, n_blocks, Z, starts, C, static):
    """C[t] += Q_t^H Z_t for each slice t of rows, and the first blocks of Q."""
    for t in prange(len(starts) - 1):
        C_t = C[t]
        for start in range(starts[t], starts[t + 1], TILE):
            stop = min(start + TILE, starts[t + 1])
            for b in range(n_blocks):
                for q in range(C.shape[2] // static.lanes):
                    add_products(Q, b, Z, start, stop, C_t, q, static)


@parallel_kernel
def add_deviations(Z, V, values, starts, squares, static):
    """squares[t] += |Z_r - V_r * values|^2 over the rows r of slice t; `values` is (1, width), squares[t] too."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1]):
            for q in range(V.shape[1] // static.lanes):
                d = load(Z, r, q, static) - load(V, r, q, static) * load(values, 0, q, static)
                store(squares[t], 0, q, load(squares[t], 0, q, static) + d * conj(d), static)


@parallel_kernel
def find_pivots(V, starts, sizes, pivots):
    """pivots[t, j] = the first of the largest entries of V_t[:, j], sizes[t, j] its modulus; both begin as zeros."""
    for t in prange(len(starts) - 1):
        size, pivot = sizes[t], pivots[t]
        for r in range(starts[t], starts[t + 1]):
            for j in range(pivots.shape[1]):
                v = V[r, j]
                is_larger = abs(v) > size[j]
                size[j] = abs(v) if is_larger else size[j]
                pivot[j] = v if is_larger else pivot[j]
