"""Work on tall matrices: project on a basis Q, subtract from it, orthonormalise a block, rotate; inner products.

Rows are taken four at a time, so that each small matrix is read once for four rows, and in fixed slices with their own
partial sums, so that results do not depend on the number of threads. The slices' boundaries `starts`
are multiples of four; rows of zeros at the end change nothing.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from fastfactor.kernels.compiling import kernel, parallel_kernel
from fastfactor.kernels.simd import conj, load, store, zeros


@kernel
def quad(r):
    """Return r to r + 3, unsigned, so that nothing looks for negative indices."""
    first = np.uint64(r)
    return first, first + np.uint64(1), first + np.uint64(2), first + np.uint64(3)


@kernel
def add_products(Q, lo, hi, r, w0, w1, w2, w3, C, q, static):
    """C[p] += sum_i conj(Q[r + i, p]) w_i for p in lo:hi, chunk q of C."""
    r0, r1, r2, r3 = quad(r)
    for p in range(np.uint64(lo), np.uint64(hi)):
        c = load(C, p, q, static)
        c = c + conj(Q[r0, p]) * w0
        c = c + conj(Q[r1, p]) * w1
        c = c + conj(Q[r2, p]) * w2
        c = c + conj(Q[r3, p]) * w3
        store(C, p, q, c, static)


@kernel
def combine(Q, lo, hi, r, C, q, static):
    """Return sum_p Q[r + i, p] C[p] for i = 0..3 and p in lo:hi, chunk q of C."""
    w0, w1, w2, w3 = zeros(C, static), zeros(C, static), zeros(C, static), zeros(C, static)
    r0, r1, r2, r3 = quad(r)
    for p in range(np.uint64(lo), np.uint64(hi)):
        c = load(C, p, q, static)
        w0 = w0 + Q[r0, p] * c
        w1 = w1 + Q[r1, p] * c
        w2 = w2 + Q[r2, p] * c
        w3 = w3 + Q[r3, p] * c
    return w0, w1, w2, w3


@parallel_kernel
def collect(G, W, Q, head, lo, hi, starts, C, S, signs, static):
    """W = sum of G[s], which become zero; C[t] = Q_t^H W_t for each slice t of rows and columns :head and lo:hi of Q.

    On the way the sketch S, which is Q signs, takes in the last block of columns before hi.
    """
    for t in prange(len(starts) - 1):
        C[t] = 0
        for r in range(starts[t], starts[t + 1], 4):
            for i in range(r, r + 4):
                w = zeros(W, static)
                for s in range(G.shape[0]):
                    w = w + load(G[s], i, 0, static)
                    store(G[s], i, 0, zeros(W, static), static)
                store(W, i, 0, w, static)
            w0, w1 = load(W, r, 0, static), load(W, r + 1, 0, static)
            w2, w3 = load(W, r + 2, 0, static), load(W, r + 3, 0, static)
            add_products(Q, 0, head, r, w0, w1, w2, w3, C[t], 0, static)
            add_products(Q, lo, hi, r, w0, w1, w2, w3, C[t], 0, static)
            s0, s1, s2, s3 = combine(Q, hi - static.lanes, hi, r, signs, 0, static)
            store(S, r, 0, load(S, r, 0, static) + s0, static)
            store(S, r + 1, 0, load(S, r + 1, 0, static) + s1, static)
            store(S, r + 2, 0, load(S, r + 2, 0, static) + s2, static)
            store(S, r + 3, 0, load(S, r + 3, 0, static) + s3, static)


@parallel_kernel
def subtract(W, Q, head, lo, hi, D, starts, S, K, M, static):
    """W -= Q D, of columns :head and lo:hi; then K[t] = S_t^H W_t and M[t] = W_t^H W_t."""
    for t in prange(len(starts) - 1):
        K[t] = 0
        M[t] = 0
        for r in range(starts[t], starts[t + 1], 4):
            d0, d1, d2, d3 = combine(Q, lo, hi, r, D, 0, static)
            e0, e1, e2, e3 = combine(Q, 0, head, r, D, 0, static)
            w0, w1 = load(W, r, 0, static) - (d0 + e0), load(W, r + 1, 0, static) - (d1 + e1)
            w2, w3 = load(W, r + 2, 0, static) - (d2 + e2), load(W, r + 3, 0, static) - (d3 + e3)
            store(W, r, 0, w0, static)
            store(W, r + 1, 0, w1, static)
            store(W, r + 2, 0, w2, static)
            store(W, r + 3, 0, w3, static)
            add_products(S, 0, static.lanes, r, w0, w1, w2, w3, K[t], 0, static)
            add_products(W, 0, static.lanes, r, w0, w1, w2, w3, M[t], 0, static)


@parallel_kernel
def transform(W, T, X, Q, p, starts, M, static):
    """X = W T, also stored as the columns of Q from p on; M[t] = X_t^H X_t. X may be W."""
    for t in prange(len(starts) - 1):
        M[t] = 0
        for r in range(starts[t], starts[t + 1], 4):
            w0, w1, w2, w3 = combine(W, 0, static.lanes, r, T, 0, static)
            store(X, r, 0, w0, static)
            store(X, r + 1, 0, w1, static)
            store(X, r + 2, 0, w2, static)
            store(X, r + 3, 0, w3, static)
            for i in range(r, r + 4):
                Q[i, p : p + static.lanes] = X[i]
            add_products(X, 0, static.lanes, r, w0, w1, w2, w3, M[t], 0, static)


@parallel_kernel
def rotate(Q, p, Y, starts, tiles, static):
    """Q[:, :Y.shape[1]] = Q[:, :p] Y, in place; tiles[t] are the four rows that slice t works on."""
    for t in prange(len(starts) - 1):
        tile, width = tiles[t], Y.shape[1]
        for r in range(starts[t], starts[t + 1], 4):
            for q in range(width // static.lanes):
                w0, w1, w2, w3 = combine(Q, 0, p, r, Y, q, static)
                store(tile, 0, q, w0, static)
                store(tile, 1, q, w1, static)
                store(tile, 2, q, w2, static)
                store(tile, 3, q, w3, static)
            for i in range(4):
                Q[r + i, :width] = tile[i]


@parallel_kernel
def multiply(Q, p, Y, V, starts, static):
    """V = Q[:, :p] Y."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1], 4):
            for q in range(V.shape[1] // static.lanes):
                w0, w1, w2, w3 = combine(Q, 0, p, r, Y, q, static)
                store(V, r, q, w0, static)
                store(V, r + 1, q, w1, static)
                store(V, r + 2, q, w2, static)
                store(V, r + 3, q, w3, static)


@parallel_kernel
def add_inner(V, k, Z, starts, C, static):
    """C[t] += V_t[:, :k]^H Z_t for each slice t of rows."""
    for t in prange(len(starts) - 1):
        for r in range(starts[t], starts[t + 1], 4):
            for q in range(C.shape[2] // static.lanes):
                z0, z1 = load(Z, r, q, static), load(Z, r + 1, q, static)
                z2, z3 = load(Z, r + 2, q, static), load(Z, r + 3, q, static)
                add_products(V, 0, k, r, z0, z1, z2, z3, C[t], q, static)


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
