"""What came out of a fit, and what a user asks of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfactor.ids import Ids, WithIds
from fastfactor.incremental import Incremental
from fastfactor.kernels.losses import LOSSES, Loss
from fastfactor.matrix.mapped import available_memory
from fastfactor.matrix.structure import as_array, as_index
from fastfactor.options import check_flag
from fastfactor.predicting import Predicting
from fastfactor.results import SVDResult


@dataclass(frozen=True)
class Factorization(Incremental, Predicting, WithIds):
    """A fitted low-rank model, X_rc ~ link(mean + row_bias_r + col_bias_c + sum_q U_rq conj(V_cq)).

    The link is the identity but for loss="logistic" (1 / (1 + exp(-p)), a probability) and "poisson" (exp(p), a mean).

    Attributes
    ----------
    U : (n_rows, rank) array
    V : (n_cols, rank) array
        The factors, C-contiguous, float32, float64, complex64 or complex128.
    mean : number
        Global offset, on the inner side of the link; 0 without biases for the losses that have none (squared, absolute,
        huber).
    row_bias, col_bias : (n_rows,), (n_cols,) arrays
        Offsets; zeros without biases.
    history : dict of arrays
        Per epoch: epoch, seconds, learning_rate, train_loss, validation_loss. Losses are means per entry, in the units
        of the squared values.
    selection : dict
        What "auto" tried and chose.
    loss : str or Loss
        What was minimised: a name, or the object for a loss of the user's own.
    row_labels, col_labels : Ids or None
        The ids that came with X, if any; `row_ids` and `col_ids` are the same as arrays.
    recipe : dict
        How the fit went about it, for `transform`, `fold_in` and `partial_fit`; in the fit's own units.
    posterior : dict
        With posterior_samples: n_samples; std, the unit of what follows; row_draws (n_rows, n_draws, K + 2), the
        numbers of a row, its offset and its scale, and col_draws (n_cols, n_draws, K + 1), both float16; row_noise and
        col_noise, whose product is the variance of an entry's noise; quantiles of standardised errors (199,). Else
        empty.
    """

    U: NDArray[Any]
    V: NDArray[Any]
    mean: Any
    row_bias: NDArray[Any]
    col_bias: NDArray[Any]
    history: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    selection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    loss: str | Loss = field(default="squared", repr=False)
    row_labels: Ids | None = field(default=None, repr=False)
    col_labels: Ids | None = field(default=None, repr=False)
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)
    posterior: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def rank(self) -> int:
        """Number of columns of U and of V."""
        return self.U.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix that U V^H approximates."""
        return len(self.U), len(self.V)

    def rows_of(self, ids: Iterable[Any]) -> NDArray[np.int64]:
        """Return the position of each of the given row ids, for the methods that take positions.

        Parameters
        ----------
        ids : sequence of str, UUID, int or bytes
            Of the type that the ids were read as: 7 is not "7". The first call makes a table of all ids, some 100 bytes
            for each.

        Returns
        -------
        (len(ids),) int64 array

        Raises
        ------
        KeyError
            If one is not in the model; the message names it.
        TypeError, ValueError
            If ids are of another type, or the model has none.
        """
        return _find(self.row_labels, ids, "row ids")

    def cols_of(self, ids: Iterable[Any]) -> NDArray[np.int64]:
        """Return the position of each of the given column ids.

        Parameters
        ----------
        ids : sequence of str, UUID, int or bytes
            As for `rows_of`.

        Returns
        -------
        (len(ids),) int64 array

        Raises
        ------
        KeyError, TypeError, ValueError
            As for `rows_of`.
        """
        return _find(self.col_labels, ids, "column ids")

    def __repr__(self) -> str:
        n_rows, n_cols = self.shape
        return f"Factorization({n_rows} x {n_cols}, rank={self.rank}, dtype={self.U.dtype})"

    def _broadcast(self, rows: ArrayLike, cols: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], tuple[int, ...]]:
        rows, cols = as_array(rows, "rows"), as_array(cols, "cols")
        try:
            rows, cols = np.broadcast_arrays(rows, cols)
        except ValueError:
            raise ValueError(f"rows {rows.shape} and cols {cols.shape} do not broadcast") from None
        return self._positions(rows, 0, "rows"), self._positions(cols, 1, "cols"), rows.shape

    def _link(self, predictions: NDArray[Any]) -> NDArray[Any]:
        loss = LOSSES[self.loss] if isinstance(self.loss, str) else self.loss
        return np.asarray(loss.link(predictions))

    def _positions(self, index: ArrayLike, axis: int, name: str) -> NDArray[np.int64]:
        positions = as_index(np.ravel(as_array(index, name)), name).astype(np.int64)
        outside = (positions < 0) | (positions >= self.shape[axis])
        if outside.any():
            raise IndexError(f"{name} holds {positions[outside][0]}, outside 0..{self.shape[axis] - 1}")
        return positions

    def reconstruct(self, rows: ArrayLike | None = None) -> NDArray[Any]:
        """Return the model's value at every entry of some rows, as a dense block.

        Parameters
        ----------
        rows : integers, optional
            Positions of the wanted rows; all by default.

        Returns
        -------
        (len(rows), n_cols) array

        Raises
        ------
        MemoryError
            If the block needs more memory than is available; the message says how much.
        IndexError
            If a row is outside the matrix.
        """
        positions = np.arange(self.shape[0]) if rows is None else self._positions(rows, 0, "rows")
        needed = len(positions) * self.shape[1] * self.U.dtype.itemsize
        if needed > available_memory():
            raise MemoryError(
                f"a dense block of {len(positions)} x {self.shape[1]} needs {needed / 2**30:.1f} GiB, "
                f"{available_memory() / 2**30:.1f} GiB are available; reconstruct fewer rows at a time"
            )
        block: NDArray[Any] = self.U[positions] @ self.V.conj().T
        block += self.row_bias[positions, None]
        block += self.col_bias + self.mean
        return self._link(block)

    def svd(self, include_biases: bool = False) -> SVDResult:
        """Return the singular value decomposition of the fitted U V^H (for completion that is not the SVD of X).

        Thin QR of both factors, then the SVD of the small core: the product itself is never formed.

        Parameters
        ----------
        include_biases : bool
            Decompose mean + row_bias + col_bias + U V^H instead, which has rank up to rank + 2.

        Returns
        -------
        SVDResult
            Singular values descending, signs deterministic.
        """
        if not check_flag(include_biases, "include_biases"):
            return SVDResult.from_factors(self.U, self.V)
        ones_rows, ones_cols = np.ones((self.shape[0], 1), self.U.dtype), np.ones((self.shape[1], 1), self.U.dtype)
        left = np.hstack([self.U, self.row_bias[:, None], ones_rows])
        right = np.hstack([self.V, ones_cols, np.conj(self.col_bias + self.mean)[:, None].astype(self.U.dtype)])
        return SVDResult.from_factors(left, right)

    def plot_history(self, ax: Any = None) -> Any:
        """Draw the losses over the epochs (extra `plot`); a grey line is where the step was halved.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default in a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ValueError
            If the model has no history.
        ImportError
            If matplotlib is not installed.
        """
        from fastfactor.plotting import plot_history

        return plot_history(self.history, ax)

    def plot_spectrum(self, ax: Any = None) -> Any:
        """Draw the singular values of the fitted U V^H (extra `plot`).

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default in a new figure.

        Returns
        -------
        matplotlib Axes
        """
        return self.svd().plot_spectrum(ax)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a folder, for `fastfactor.load`: a JSON manifest and plain .npy arrays, never pickles.

        A model that is there already is replaced at once: readers see the old one or the new one, never half of either.

        Parameters
        ----------
        path : str or path
            A folder; made if it does not exist.

        Raises
        ------
        OSError
            If the folder cannot be written, or the disk is full; what was there before is then still there.
        TypeError
            If the loss is one of the user's own: the folder would have to hold code.
        """
        from fastfactor.storage import save_model

        save_model(self, path)

    def recommend(
        self, rows: ArrayLike, n: int = 10, exclude: Any = None, *, n_threads: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return the n columns with the highest predictions for each row: exact, in parallel, in bounded memory.

        Parameters
        ----------
        rows : integers
            Positions of the rows to recommend to.
        n : int
            How many columns.
        exclude : scipy.sparse matrix or array of the model's shape, or what fastfactor.io reads, optional
            Columns that a row has stored here, explicit zeros too, are not recommended to it.
        n_threads : int, optional
            At most this many; by default all that the process may use. The result does not depend on it.

        Returns
        -------
        cols : (len(rows), n) int64 array
            Best first; of equal predictions the lower column comes first. Padded with -1 where there are fewer.
        scores : (len(rows), n) array
            Their predictions, the link applied, padded with NaN. What is NaN or -inf before that is not recommended;
            the order too is that before it, which the links of all losses that have a name keep.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or the model is complex.
        IndexError
            If a row is outside the matrix.

        Examples
        --------
        >>> import numpy as np, fastfactor as ff
        >>> model = ff.fit(np.outer([1.0, -1.0], [1.0, 2.0, 3.0]), rank=1, unobserved="zero", max_epochs=200)
        >>> cols, scores = model.recommend([0, 1], n=2)
        >>> cols.tolist()
        [[2, 1], [0, 1]]
        """
        from fastfactor.ranking import recommend

        return recommend(self, rows, n, exclude, n_threads)

    def similar_rows(
        self, rows: ArrayLike, n: int = 10, *, n_threads: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return the n rows whose factors have the highest cosine with those of each given row, itself left out.

        Parameters
        ----------
        rows : integers
            Positions.
        n : int
            How many.
        n_threads : int, optional
            At most this many; by default all that the process may use. The result does not depend on it.

        Returns
        -------
        neighbours : (len(rows), n) int64 array
            Best first, the lower position first among equals, padded with -1.
        cosines : (len(rows), n) array
            In [-1, 1], 0 for factors of zero, padded with NaN. For complex factors that of their real and imaginary
            parts, side by side.

        Raises
        ------
        TypeError, ValueError, IndexError
            As for `recommend`.
        """
        from fastfactor.ranking import find_similar

        return find_similar(self.U, self._positions(rows, 0, "rows"), n, n_threads)

    def similar_cols(
        self, cols: ArrayLike, n: int = 10, *, n_threads: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return the n columns whose factors have the highest cosine with those of each given column.

        Parameters
        ----------
        cols : integers
            Positions.
        n, n_threads
            As for `similar_rows`.

        Returns
        -------
        neighbours, cosines : (len(cols), n) arrays
            As for `similar_rows`.

        Raises
        ------
        TypeError, ValueError, IndexError
            As for `recommend`.
        """
        from fastfactor.ranking import find_similar

        return find_similar(self.V, self._positions(cols, 1, "cols"), n, n_threads)


def _find(labels: Ids | None, ids: Iterable[Any], name: str) -> NDArray[np.int64]:
    if labels is None:
        raise ValueError(f"the model has no {name}: it was fitted to a matrix without; use positions")
    return labels.find(ids, name)
