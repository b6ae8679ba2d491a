"""What a truncated SVD gives back, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from fastfactor.matrix.inputs import is_sparse
from fastfactor.matrix.structure import as_array, check_structure
from fastfactor.options import check_choice, check_real
from fastfactor.solvers.dispatch import choose_signs

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class SVDResult:
    """Singular triplets in descending order, with their certificate. Unpacks as ``U, s, Vt``.

    Attributes
    ----------
    U : (n_rows, k) array
        Left singular vectors, orthonormal columns.
    s : (k,) array
        Singular values.
    Vt : (k, n_cols) array
        Right singular vectors, conjugated, as orthonormal rows: ``A ~ (U * s) @ Vt``.
    residuals : (k,) float64 array
        ``max(|| A v - s u ||, || A^H u - s v ||) / s_1`` for each triplet, computed anew from A, in double
        precision; a result in single precision is rounded after that.
    converged : bool
        Whether all residuals meet the tolerance that was asked for.
    n_passes : int
        How often a block of vectors was multiplied by A and its adjoint.
    frobenius_norm : float or None
        Of A; None when A is only known by its products.

    Examples
    --------
    >>> import numpy as np
    >>> import fastfactor.decomposition as ff
    >>> A = np.diag([3.0, 2.0, 1.0])
    >>> U, s, Vt = ff.svd(A, k=2)
    >>> s.round(6).tolist()
    [3.0, 2.0]
    """

    U: Array
    s: Array
    Vt: Array
    residuals: NDArray[np.float64]
    converged: bool
    n_passes: int
    frobenius_norm: float | None = None

    def __iter__(self) -> Iterator[Array]:
        return iter((self.U, self.s, self.Vt))

    @classmethod
    def from_factors(cls, left: Array, right: Array) -> SVDResult:
        """Return the SVD of ``left @ right.conj().T`` without forming it: thin QR of both, SVD of the core.

        Parameters
        ----------
        left, right : (n_rows, rank), (n_cols, rank) arrays

        Raises
        ------
        ValueError
            If the factors are not matrices with as many columns as each other.

        Examples
        --------
        >>> import numpy as np
        >>> from fastfactor.results import SVDResult
        >>> SVDResult.from_factors(np.ones((3, 1)), np.ones((3, 1))).s.round(6).tolist()
        [3.0]
        """
        if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
            raise ValueError(f"left and right must have the same number of columns, got {left.shape}, {right.shape}")
        (P, R), (Q, S) = np.linalg.qr(left), np.linalg.qr(right)
        core_U, s, core_Vh = np.linalg.svd(R @ S.conj().T, full_matrices=False)
        U, Vt = choose_signs(P @ core_U, core_Vh @ Q.conj().T)
        V = Vt.conj().T
        errors = np.maximum(
            np.linalg.norm(left @ (right.conj().T @ V) - U * s, axis=0),
            np.linalg.norm(right @ (left.conj().T @ U) - V * s, axis=0),
        )
        residuals = (errors / (s.max(initial=0.0) or 1.0)).astype(np.float64)
        return cls(U, s, Vt, residuals, True, 0, float(np.linalg.norm(s.astype(np.float64))))

    def plot_spectrum(self, ax: Any = None) -> Any:
        """Draw the singular values (extra `plot`).

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default in a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from fastfactor.plotting import plot_spectrum

        return plot_spectrum(self.s, ax)

    def approximation_error(self) -> float:
        """Return ``|| A - (U * s) @ Vt ||_F``, which no matrix of rank k can better: sqrt(||A||_F^2 - sum s^2).

        Raises
        ------
        ValueError
            If the norm of A is not known, because A was a LinearOperator.

        Examples
        --------
        >>> import numpy as np
        >>> import fastfactor.decomposition as ff
        >>> round(ff.svd(np.diag([3.0, 2.0, 1.0]), k=2).approximation_error(), 6)
        1.0
        """
        if self.frobenius_norm is None:
            raise ValueError("the Frobenius norm of a LinearOperator is not known")
        s = np.asarray(self.s, np.float64)
        scale = self.frobenius_norm or 1.0
        return scale * float(np.sqrt(max(1.0 - np.sum((s / scale) ** 2), 0.0)))

    def eigh(self, side: str = "left") -> tuple[Array, Array]:
        """Return the k largest eigenvalues of A A^H or A^H A, descending, and their eigenvectors.

        Parameters
        ----------
        side : {"left", "right"}
            "left" for A A^H, "right" for A^H A.

        Returns
        -------
        w : (k,) array
        Q : (n_rows, k) or (n_cols, k) array
            Orthonormal columns.

        Raises
        ------
        ValueError
            If `side` is neither of the two.

        Examples
        --------
        >>> import numpy as np
        >>> import fastfactor.decomposition as ff
        >>> w, Q = ff.svd(np.diag([3.0, 2.0, 1.0]), k=2).eigh(side="right")
        >>> w.round(6).tolist()
        [9.0, 4.0]
        """
        check_choice(side, "side", ("left", "right"))
        return self.s**2, self.U if side == "left" else self.Vt.conj().T

    def pinv(self, rcond: float | None = None) -> LinearOperator:
        """Return the pseudo-inverse of ``(U * s) @ Vt`` (of A itself, when k is its rank).

        Parameters
        ----------
        rcond : float or None
            Singular values up to ``rcond * s_1`` count as zero; None: ``max(A.shape)`` times the machine epsilon.

        Returns
        -------
        LinearOperator of shape (n_cols, n_rows)

        Raises
        ------
        ValueError
            If `rcond` is negative or not a number.

        Examples
        --------
        >>> import numpy as np
        >>> import fastfactor.decomposition as ff
        >>> A = np.array([[2.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
        >>> (ff.svd(A, k=2).pinv() @ np.array([2.0, 4.0, 7.0])).round(6).tolist()
        [1.0, 1.0]
        """
        n_rows, n_cols = len(self.U), self.Vt.shape[1]
        if rcond is None:
            rcond = max(n_rows, n_cols) * float(np.finfo(self.s.dtype).eps)
        rcond = check_real(rcond, "rcond")
        kept = self.s > rcond * self.s.max(initial=0.0)
        U, Vt = self.U[:, kept], self.Vt[kept]
        inverse = (1.0 / self.s[kept])[:, None]

        def forward(X: Array) -> Array:
            return np.asarray(Vt.conj().T @ (inverse * (U.conj().T @ X.reshape(n_rows, -1))))

        def backward(X: Array) -> Array:
            return np.asarray(U @ (inverse * (Vt @ X.reshape(n_cols, -1))))

        return LinearOperator(
            (n_cols, n_rows), matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=self.U.dtype
        )


@dataclass(frozen=True, eq=False)
class PCAResult(SVDResult):
    """The SVD of a centred (and scaled) matrix, in the words of principal component analysis.

    Attributes
    ----------
    mean : (n_cols,) array
        What was subtracted from each column; zeros when nothing was.
    scale : (n_cols,) array
        What each column was divided by; ones when nothing was.
    """

    mean: Array | None = None
    scale: Array | None = None

    @property
    def components(self) -> Array:
        """Principal axes, (k, n_cols), by descending variance."""
        return self.Vt

    @property
    def explained_variance(self) -> Array:
        """Variance along each axis, with n_rows - 1 in the denominator."""
        return np.asarray(self.s**2 / max(len(self.U) - 1, 1))

    @property
    def explained_variance_ratio(self) -> Array:
        """Share of the total variance along each axis."""
        total = self.frobenius_norm or 0.0
        return np.asarray((self.s / total) ** 2 if total > 0.0 else np.zeros_like(self.s))

    def transform(self, X: Any) -> Array:
        """Return the coordinates of the rows of X on the principal axes; X stays sparse.

        Parameters
        ----------
        X : (n, n_cols) array or sparse matrix
            Not centred: the result's mean is subtracted, and its scale divided out.

        Returns
        -------
        (n, k) array

        Raises
        ------
        TypeError, ValueError
            If the result does not come from `pca`, or X is no matrix of as many columns as it has.
        """
        if self.mean is None or self.scale is None:
            raise ValueError("this result has no mean and scale: it does not come from pca")
        X = check_structure(X, "X") if is_sparse(X) else as_array(X, "X")
        if X.ndim != 2 or X.shape[1] != len(self.mean):
            raise ValueError(f"X has shape {X.shape}, the components are of {len(self.mean)} columns")
        V = self.Vt.conj().T / self.scale[:, None]
        return np.asarray(X @ V - self.mean @ V)
