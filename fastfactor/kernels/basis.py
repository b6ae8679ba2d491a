"""Work on tall matrices: project on a basis Q, subtract from it, orthonormalise a block, rotate; inner products.

A tall matrix lies in blocks of columns: Q[b, r, j] is row r of column b width + j. A Krylov basis has blocks of
`static.lanes` columns, each of which streams through the caches by itself; a matrix in C order is one wide block.

Rows are taken four at a time, so that each small matrix is read once for four rows, and in fixed slices with their own
partial sums, so that results do not depend on the number of threads. The slices' boundaries `starts`
are multiples of four; rows of zeros at the end change nothing.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.simd import conj, load, store, zeros

TILE = 64  # rows of a block that are read before the next block's: with fewer, too many streams take turns


@kernel
def quad(r):
    """Return r to r + 3, unsigned, so that nothing looks for negative indices."""
    first = np.uint64(r)
    return first, first + np.uint64(1), first + np.uint64(2), first + np.uint64(3)


@kernel
def load_quad(M, r, q, static):
    """Return rows r to r + 3 of chunk q of M."""
    r0, r1, r2, r3 = quad(r)
    return load(M, r0, q, static), load(M, r1, q, static), load(M, r2, q, static), load(M, r3, q, static)


@kernel
def store_quad(M, r, q, w0, w1, w2, w3, static):
    """Store rows r to r + 3 of chunk q of M."""
    r0, r1, r2, r3 = quad(r)
    store(M, r0, q, w0, static)
    store(M, r1, q, w1, static)
    store(M, r2, q, w2, static)
    store(M, r3, q, w3, static)


@kernel
def add_products(Q, b, Z, start, stop, C, q, static):
    """C[p] += sum_r conj(Q[r, p]) Z[r] for rows start:stop and the columns p of block b, chunk q of C and Z."""
    b, width = np.uint64(b), np.uint64(Q.shape[2])
    for r in range(start, stop, 4):
        z0, z1, z2, z3 = load_quad(Z, r, q, static)
        r0, r1, r2, r3 = quad(r)
        for j in range(width):
            p = b * width + j
            c = load(C, p, q, static)
            c = c + conj(Q[b, r0, j]) * z0
            c = c + conj(Q[b, r1, j]) * z1
            c = c + conj(Q[b, r2, j]) * z2
            c = c + conj(Q[b, r3, j]) * z3
            store(C, p, q, c, static)


@kernel
def combine(Q, lo, hi, r, C, q, static):
    """Return sum_p Q[r + i, p] C[p] for i = 0..3 and the columns p of blocks lo:hi, chunk q of C."""
    w0, w1, w2, w3 = zeros(C, static), zeros(C, static), zeros(C, static), zeros(C, static)
    r0, r1, r2, r3 = quad(r)
    width = np.uint64(Q.shape[2])
    for b in range(np.uint64(lo), np.uint64(hi)):
        for j in range(width):
            c = load(C, b * width + j, q, static)
            w0 = w0 + Q[b, r0, j] * c
            w1 = w1 + Q[b, r1, j] * c
            w2 = w2 + Q[b, r2, j] * c
            w3 = w3 + Q[b, r3, j] * c
    return w0, w1, w2, w3


@kernel
def add_up(Q, b, n_sums, start, stop, static):
    """Add rows start:stop of the blocks after b, which become zero, to those of block b: n_sums blocks in all."""
    for r in range(start, stop):
        w = load(Q[b], r, 0, static)
        for s in range(b + 1, b + n_sums):
            w = w + load(Q[s], r, 0, static)
            store(Q[s], r, 0, zeros(Q, static), static)
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
            for r in range(start, stop, 4):
                s0, s1, s2, s3 = load_quad(S_t, r, 0, static)
                d0, d1, d2, d3 = combine(Q, hi - 1, hi, r, signs, 0, static)
                store_quad(S_t, r, 0, s0 + d0, s1 + d1, s2 + d2, s3 + d3, static)


@parallel_kernel
def subtract(Q, head, lo, hi, D, starts, S, K, M, static):
    """Block hi of Q, called W, -= Q D, of blocks :head and lo:hi; then K[t] = S_t^H W_t and M[t] = W_t^H W_t."""
    for t in prange(len(starts) - 1):
        own, W, K_t, M_t = Q[hi : hi + 1], Q[hi], K[t], M[t]
        K_t[:] = 0
        M_t[:] = 0
        for start in range(starts[t], starts[t + 1], TILE):
            stop = min(start + TILE, starts[t + 1])
            for r in range(start, stop, 4):
                w0, w1, w2, w3 = load_quad(W, r, 0, static)
                d0, d1, d2, d3 = combine(Q, lo, hi, r, D, 0, static)
                e0, e1, e2, e3 = combine(Q, 0, head, r, D, 0, static)
                store_quad(W, r, 0, w0 - (d0 + e0), w1 - (d1 + e1), w2 - (d2 + e2), w3 - (d3 + e3), static)
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
            for r in range(start, stop, 4):
                x0, x1, x2, x3 = combine(own, 0, 1, r, T, 0, static)
                store_quad(X, r, 0, x0, x1, x2, x3, static)
            add_products(own, 0, X, start, stop, M_t, 0, static)


@kernel
def rotate_quad(Q, n_blocks, r, Y, tile, static):
    """Rows r to r + 3 of Q = those of Q Y, of the first blocks; `tile`, (1, 4, columns of Y), keeps a copy of them."""
    for q in range(Y.shape[1] // static.lanes):
        w0, w1, w2, w3 = combine(Q, 0, n_blocks, r, Y, q, static)
        store_quad(tile[0], 0, q, w0, w1, w2, w3, static)
    chunks = Q.shape[2] // static.lanes
    for b in range(Y.shape[1] // Q.shape[2]):
        for q in range(chunks):
            w0, w1, w2, w3 = load_quad(tile[0], 0, b * chunks + q, static)
            store_quad(Q[b], r, q, w0, w1, w2, w3, static)


@parallel_kernel
def rotate(Q, n_blocks, Y, starts, tiles, static):
    """Q = Q Y of the first blocks, in place, as many columns as Y has; slice t works on tiles[t]."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1], 4):
            rotate_quad(Q, n_blocks, r, Y, tiles[t], static)


@parallel_kernel
def restart(Q, n_blocks, Y, starts, tiles, S, signs, static):
    """Q = Q Y of the first blocks, in place; the block after them moves after the new ones; the rest becomes zero.

    The sketch S[0] becomes Q signs, of the new blocks.
    """
    for t in prange(len(starts) - 1):
        tile, S_t, kept = tiles[t], S[0], Y.shape[1] // Q.shape[2]
        for r in range(starts[t], starts[t + 1], 4):
            w0, w1, w2, w3 = load_quad(Q[n_blocks], r, 0, static)
            rotate_quad(Q, n_blocks, r, Y, tile, static)
            z = zeros(Q, static)
            for b in range(kept + 1, Q.shape[0]):
                store_quad(Q[b], r, 0, z, z, z, z, static)
            store_quad(Q[kept], r, 0, w0, w1, w2, w3, static)
            s0, s1, s2, s3 = combine(tile, 0, 1, 0, signs, 0, static)
            store_quad(S_t, r, 0, s0, s1, s2, s3, static)


@parallel_kernel
def multiply(Q, n_blocks, Y, V, starts, static):
    """V = Q Y, of the first blocks."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1], 4):
            for q in range(V.shape[1] // static.lanes):
                w0, w1, w2, w3 = combine(Q, 0, n_blocks, r, Y, q, static)
                store_quad(V, r, q, w0, w1, w2, w3, static)


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
