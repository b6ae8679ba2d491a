"""The small matrices of a block: their sums over slices, what they say, and the Cholesky factor.

Each is a few hundred operations, for which NumPy and LAPACK take as long as for thousands.
"""

from __future__ import annotations

import math

import numpy as np

from fastfactor.kernels.compiling import kernel


@kernel
def find_lost(K, M, gram, norms, allowed, floor):
    """Let gram = sum_t M[t], and norms be the roots of its diagonal; tell whether a column has lost too much.

    That is: whether the root mean square of its share of sum_t K[t] is above `allowed` times its norm, or times `floor`
    where that is more.
    """
    n, is_lost = len(norms), False
    gram[:] = 0
    for j in range(n):
        square = 0.0
        for i in range(n):
            k = gram[i, j]  # zero, in the type that sums are taken in
            for t in range(len(M)):
                gram[i, j] += M[t, i, j]
                k += K[t, i, j]
            square += abs(k) ** 2
        norms[j] = math.sqrt(abs(gram[j, j]))
        is_lost |= math.sqrt(square / n) > allowed * max(norms[j], floor)
    return is_lost


@kernel
def factor(gram, R, T):
    """Let R be the Cholesky factor of gram, R^H R = gram, and T its inverse.

    Returns
    -------
    float64
        No more than the least eigenvalue of gram when it is scaled to a diagonal of ones, and no less than a share of
        1 / len(gram) of that; 0 where there is no factor.
    """
    n, square = len(gram), 0.0
    norms = np.sqrt(np.abs(np.diag(gram)))
    R[:] = 0
    T[:] = 0
    for j in range(n):
        for i in range(j + 1):
            rest = gram[i, j] / (norms[i] * norms[j])
            for h in range(i):
                rest -= np.conj(R[h, i]) * R[h, j]
            if i < j:
                R[i, j] = rest / R[i, i]
            elif rest.real > 0.0:
                R[j, j] = math.sqrt(rest.real)
            else:
                return 0.0
    for j in range(n):
        T[j, j] = 1.0 / R[j, j]
        for i in range(j - 1, -1, -1):
            for h in range(i + 1, j + 1):
                T[i, j] -= R[i, h] * T[h, j]
            T[i, j] /= R[i, i]
        for i in range(j + 1):
            square += abs(T[i, j]) ** 2
    for i in range(n):
        for j in range(n):
            R[i, j] *= norms[j]
            T[i, j] /= norms[i]
    return 1.0 / square
