"""scikit-learn's estimators over sequences: `SequenceClassifier` and `SequenceRegressor`.

They go wherever scikit-learn's own go: `clone`, `Pipeline`, `GridSearchCV`, `cross_val_score`, pickle and joblib. Needs
scikit-learn; nothing else in numbarnn imports this module.
"""

from __future__ import annotations

import contextlib
import numbers

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
except ImportError as error:
    raise ImportError(
        "numbarnn.sklearn needs scikit-learn, which is not installed. Install it with: pip install 'numbarnn[sklearn]'"
    ) from error
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from . import layers, optimizers, random
from .callbacks import EarlyStopping
from .models import Sequential
from .utils import Ragged

__all__ = ["SequenceClassifier", "SequenceRegressor"]

_CELLS = {"lstm": layers.LSTM, "gru": layers.GRU, "simple_rnn": layers.SimpleRNN}
_DTYPES = (np.float64, np.float32)
_PREDICTED_AT_ONCE = 256


class _SequenceEstimator(BaseEstimator):
    """What both estimators share: their arguments, the network, its training, the forms in which sequences come."""

    def _keep(self, given):
        """Set the attributes that scikit-learn reads a constructor's arguments from, by its ``locals()``."""
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # -- data ---------------------------------------------------------------------------------------------------

    def _sequences(self, X, reset):
        """Return sequences as an array (samples, timesteps, features) or a `Ragged` of (length, features)."""
        listed = isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype == object)
        if listed:
            X = _as_one_array(X)
        if not reset and self._features == 1 and getattr(X, "ndim", 0) == 2 and (listed or not self._is_table):
            # Single numbers, here of as many timesteps in each sequence; those that were learned from may have others.
            X = np.asarray(X)[:, :, None]
        table = False
        if isinstance(X, Ragged):
            X = _checked_ragged(X)
            features = X.shape[2]
        elif getattr(X, "ndim", 2) == 3:
            X = check_array(X, dtype=_DTYPES, allow_nd=True, estimator=self, input_name="X")
            if not X.shape[1]:
                raise ValueError(f"Sequences need at least one timestep. Received: X of shape {X.shape}")
            features = X.shape[2]
        else:  # each row is a sequence of single numbers
            X, features = validate_data(self, X, dtype=_DTYPES, reset=reset)[:, :, None], 1
            table = True
        if reset:
            self._features, self._is_table = features, table
            if not table:
                self.n_features_in_ = features
                vars(self).pop("feature_names_in_", None)
        elif features != self._features:
            raise ValueError(
                f"X has {features} features, but {type(self).__name__} is expecting {self._features} features as input"
            )
        return X

    def _weights_of(self, sample_weight, X):
        return None if sample_weight is None else _check_sample_weight(sample_weight, np.empty((len(X), 1)))

    # -- training -----------------------------------------------------------------------------------------------

    def _check_parameters(self):
        def refuse(name, wanted):
            raise ValueError(f"`{name}` must be {wanted}. Received: {name}={getattr(self, name)!r}")

        if self.cell not in _CELLS:
            refuse("cell", f"one of {list(_CELLS)}")
        for name in ("units", "layers", "epochs", "batch_size", "n_iter_no_change"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                refuse(name, "a positive integer")
        for name in ("dropout", "recurrent_dropout"):
            if not isinstance(getattr(self, name), numbers.Real) or not 0 <= getattr(self, name) < 1:
                refuse(name, "a number in [0, 1)")
        if not isinstance(self.learning_rate, numbers.Real) or not self.learning_rate > 0:
            refuse("learning_rate", "a positive number")
        if self.clipnorm is not None and (not isinstance(self.clipnorm, numbers.Real) or not self.clipnorm > 0):
            refuse("clipnorm", "a positive number or None")
        if not isinstance(self.validation_fraction, numbers.Real) or not 0 < self.validation_fraction < 1:
            refuse("validation_fraction", "a number between 0 and 1")

    def _network(self, features, outputs, activation, sequences):
        stack = [layers.Input((None, features))]
        for level in range(self.layers):
            layer = _CELLS[self.cell](
                int(self.units),
                return_sequences=sequences or level < self.layers - 1,
                dropout=self.dropout,
                recurrent_dropout=self.recurrent_dropout,
            )
            stack.append(layers.Bidirectional(layer) if self.bidirectional else layer)
        return Sequential([*stack, layers.Dense(outputs, activation=activation)])

    def _new_optimizer(self):
        if isinstance(self.optimizer, optimizers.Optimizer):
            return type(self.optimizer).from_config(self.optimizer.get_config())
        kind = type(optimizers.get(self.optimizer))
        return kind(learning_rate=float(self.learning_rate), global_clipnorm=self.clipnorm)

    def _train(self, X, y, sample_weight, outputs, loss, activation=None, sequences=False, stratify=None):
        """Make the network, unless it is to be trained further, and train it."""
        random_state = check_random_state(self.random_state)
        seed = int(random_state.randint(np.iinfo(np.int32).max))
        with _seeded(seed):
            if not (self.warm_start and hasattr(self, "model_")):
                self.model_ = self._network(self._features, outputs, activation, sequences)
                self.model_.compile(self._new_optimizer(), loss)
                self.history_, self.n_iter_ = {}, 0
            validation, callbacks = None, []
            if self.early_stopping:
                train, held_out = train_test_split(
                    np.arange(len(X)), test_size=self.validation_fraction, random_state=seed, stratify=stratify
                )
                weights = (None, None) if sample_weight is None else (sample_weight[train], sample_weight[held_out])
                validation = tuple(part for part in (X[held_out], y[held_out], weights[1]) if part is not None)
                X, y, sample_weight = X[train], y[train], weights[0]
                callbacks.append(EarlyStopping(patience=int(self.n_iter_no_change), restore_best_weights=True))
            history = self.model_.fit(
                X,
                y,
                batch_size=int(self.batch_size),
                epochs=int(self.epochs),
                verbose=int(self.verbose),
                callbacks=callbacks,
                validation_data=validation,
                sample_weight=sample_weight,
            ).history
        for name, values in history.items():
            self.history_.setdefault(name, []).extend(values)
        self.n_iter_ += len(history["loss"])
        return self

    def _predicted(self, X):
        """Return what the network gives, and the sequences as they were checked."""
        check_is_fitted(self, "model_")
        X = self._sequences(X, reset=False)
        return self.model_.predict(X, batch_size=_PREDICTED_AT_ONCE, verbose=0), X


class SequenceClassifier(ClassifierMixin, _SequenceEstimator):
    """A recurrent network that gives each sequence a class.

    Parameters
    ----------
    cell : {"lstm", "gru", "simple_rnn"}
    units : int
        Of each layer.
    layers : int
        How many recurrent layers there are, one upon the other.
    bidirectional : bool
        Whether each reads the sequences from both ends.
    dropout, recurrent_dropout : float
        See `numbarnn.layers.LSTM`; in [0, 1).
    optimizer : {"adam", "rmsprop", "sgd", ...} or numbarnn.optimizers.Optimizer
        Of one that is given as an object the configuration is used; `learning_rate` and `clipnorm` are not.
    learning_rate : float
    clipnorm : float or None
        The largest norm of all gradients together; larger ones are scaled down.
    epochs : int
        How often `fit` goes through the data.
    batch_size : int
    early_stopping : bool
        Whether to hold back a part of the data, stop when its loss has not become less for some epochs, and keep the
        weights of the best one.
    validation_fraction : float
        Which part that is; every class has its share in it.
    n_iter_no_change : int
        How many epochs these are.
    warm_start : bool
        Whether a second `fit` trains the network further, not a new one.
    random_state : int, RandomState or None
        Of the first weights, the order of the samples and dropout. An int makes `fit` repeat bit for bit, for any
        number of threads and jobs of joblib; several fits at once in threads of one process disturb each other.
    class_weight : dict, "balanced" or None
        Weights of the classes, as elsewhere in scikit-learn.
    verbose : {0, 1, 2}
        Nothing, a progress bar, or a line per epoch.

    Attributes
    ----------
    model_ : numbarnn.Sequential
    classes_ : ndarray
    history_ : dict of list
        The loss after each epoch, and "val_loss".
    n_iter_ : int
        Epochs so far.
    n_features_in_ : int
        Features of each timestep; for a plain table, its columns.
    feature_names_in_ : ndarray
        Names of the columns, if X was a table with such names.

    Notes
    -----
    X comes as an array (samples, timesteps, features); as a list of arrays (length, features) or (length,), of
    different lengths, or as a `numbarnn.utils.Ragged`, whose padding is masked; or as a table (array, data frame) with
    a sequence of single numbers in each row. Recurrent networks want features of about size 1: scale them before.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn.sklearn import SequenceClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(length, 1)) + length % 2 for length in rng.integers(3, 9, size=64)]
    >>> y = np.array(["even", "odd"])[[len(x) % 2 for x in X]]
    >>> classifier = SequenceClassifier("gru", units=8, epochs=20, learning_rate=0.02, random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        cell="lstm",
        units=32,
        layers=1,
        bidirectional=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        optimizer="adam",
        learning_rate=1e-3,
        clipnorm=1.0,
        epochs=50,
        batch_size=32,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        random_state=None,
        class_weight=None,
        verbose=0,
    ):
        self._keep(locals())

    def fit(self, X, y, sample_weight=None):
        """Train.

        Parameters
        ----------
        X : sequences
            See the class.
        y : array_like, shape (samples,)
            Classes, of any type that sorts.
        sample_weight : array_like, shape (samples,), optional

        Returns
        -------
        SequenceClassifier
            The estimator itself.

        Raises
        ------
        ValueError
            For an argument of the estimator out of its range, data of other forms, or NaN and infinities in them.
        """
        self._check_parameters()
        _check_given(self, y)
        further = self.warm_start and hasattr(self, "model_")
        X = self._sequences(X, reset=not further)
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        if further and not np.array_equal(classes, self.classes_):
            raise ValueError(f"With `warm_start` the classes must stay {self.classes_}. Received: {classes}")
        self.classes_ = classes
        sample_weight = self._weights_of(sample_weight, X)
        if self.class_weight is not None:
            weights = compute_sample_weight(self.class_weight, y)
            sample_weight = weights if sample_weight is None else weights * sample_weight
        return self._train(
            X, codes, sample_weight, len(classes), "sparse_categorical_crossentropy", "softmax", stratify=codes
        )

    def predict_proba(self, X):
        """Return the probabilities of the classes, shape (samples, classes), in the order of `classes_`."""
        return self._predicted(X)[0]

    def predict(self, X):
        """Return the most probable class of each sequence, shape (samples,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, axis=1)]


class SequenceRegressor(RegressorMixin, _SequenceEstimator):
    """A recurrent network that gives each sequence, or each timestep, a number or several.

    Parameters
    ----------
    cell, units, layers, bidirectional, dropout, recurrent_dropout, optimizer, learning_rate, clipnorm, epochs, \
batch_size, early_stopping, validation_fraction, n_iter_no_change, warm_start, random_state
        See `SequenceClassifier`.
    loss : str or numbarnn.losses.Loss
        "mean_squared_error", "mean_absolute_error", ...
    return_sequences : bool
        Whether there is a target at every timestep.
    verbose
        See `SequenceClassifier`.

    Attributes
    ----------
    model_, history_, n_iter_, n_features_in_, feature_names_in_
        See `SequenceClassifier`.

    Notes
    -----
    X as for `SequenceClassifier`. Targets are learned as they are: scale large ones before, or wrap the estimator in
    ``sklearn.compose.TransformedTargetRegressor``.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn.sklearn import SequenceRegressor
    >>> X = np.random.default_rng(0).normal(size=(64, 5, 2))
    >>> regressor = SequenceRegressor(units=16, epochs=40, learning_rate=0.02, random_state=0)
    >>> regressor.fit(X, X.mean(axis=(1, 2))).score(X, X.mean(axis=(1, 2))) > 0.9
    True
    """

    def __init__(
        self,
        cell="lstm",
        units=32,
        layers=1,
        bidirectional=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        optimizer="adam",
        learning_rate=1e-3,
        clipnorm=1.0,
        epochs=50,
        batch_size=32,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        random_state=None,
        loss="mean_squared_error",
        return_sequences=False,
        verbose=0,
    ):
        self._keep(locals())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X, y, sample_weight=None):
        """Train.

        Parameters
        ----------
        X : sequences
            See the class.
        y : array_like, shape (samples,) or (samples, targets)
            With `return_sequences`, shape (samples, timesteps) or (samples, timesteps, targets), or a list of arrays of
            the lengths of the sequences.
        sample_weight : array_like, shape (samples,), optional

        Returns
        -------
        SequenceRegressor
            The estimator itself.

        Raises
        ------
        ValueError
            For an argument of the estimator out of its range, data of other forms, or NaN and infinities in them.
        """
        self._check_parameters()
        _check_given(self, y)
        further = self.warm_start and hasattr(self, "model_")
        X = self._sequences(X, reset=not further)
        y = self._targets(y)
        check_consistent_length(X, y)
        if self.return_sequences and (isinstance(X, Ragged) != isinstance(y, Ragged) or X.shape[1] != y.shape[1]):
            raise ValueError(
                "With `return_sequences` there must be a target at every timestep. "
                f"Received: X of shape {X.shape}, y of shape {y.shape}"
            )
        single = len(y.shape) == (2 if self.return_sequences else 1)
        outputs = 1 if single else y.shape[-1]
        if further and (single, outputs) != (self._single, self.model_.output_shape[-1]):
            raise ValueError(
                f"With `warm_start` the number of targets must stay {self.model_.output_shape[-1]}. "
                f"Received: y of shape {y.shape}"
            )
        self._single = single
        if single:
            y = Ragged([row[:, None] for row in y]) if isinstance(y, Ragged) else y[..., None]
        sample_weight = self._weights_of(sample_weight, X)
        return self._train(X, y, sample_weight, outputs, self.loss, sequences=bool(self.return_sequences))

    def _targets(self, y):
        if self.return_sequences and isinstance(y, (list, tuple)):
            y = _as_one_array(y)
        if isinstance(y, Ragged):
            return _checked_ragged(y, "y", flat=True)
        ranks = (2, 3) if self.return_sequences else (1, 2)
        y = check_array(y, dtype=_DTYPES, ensure_2d=False, allow_nd=True, estimator=self, input_name="y")
        if y.ndim not in ranks:
            raise ValueError(
                f"`y` must have {ranks[0]} or {ranks[1]} axes with return_sequences={self.return_sequences!r}. "
                f"Received: shape {y.shape}"
            )
        return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 and not self.return_sequences else y

    def predict(self, X):
        """Return the predictions, in the shape of the targets and the type of X.

        With `return_sequences`, those of sequences of different lengths are a list of arrays.
        """
        outputs, X = self._predicted(X)
        outputs = outputs.astype(X.dtype) if X.dtype.kind == "f" else outputs
        if isinstance(outputs, Ragged):
            return [row[:, 0] if self._single else row for row in outputs]
        return outputs[..., 0] if self._single else outputs

    def score(self, X, y, sample_weight=None):
        """Return R2: 1 for perfect predictions, 0 for those of the mean; over all timesteps with `return_sequences`."""
        if not self.return_sequences:
            return super().score(X, y, sample_weight)
        found, y = self.predict(X), self._targets(y)
        lengths = [len(row) for row in y]
        weights = None if sample_weight is None else np.repeat(self._weights_of(sample_weight, y), lengths)
        return r2_score(np.concatenate(list(y)), np.concatenate(list(found)), sample_weight=weights)


@contextlib.contextmanager
def _seeded(seed):
    """Within the block, the global seed is this one; afterwards what was before goes on."""
    before = random.global_state()
    random.set_seed(seed)
    try:
        yield
    finally:
        random.restore_global_state(before)


def _check_given(estimator, y):
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )


def _as_one_array(sequences):
    """Return a list of sequences of equal lengths as an array, of others as a `Ragged`."""
    arrays = [np.asarray(sequence) for sequence in sequences]
    if len({array.shape for array in arrays}) > 1 and all(array.ndim for array in arrays):
        return Ragged(arrays)
    return np.asarray(arrays if len(arrays) and arrays[0].ndim else sequences)


def _checked_ragged(sequences, name="X", flat=False):
    """Return sequences of (length, features); refuse what is not finite."""
    if not len(sequences):
        raise ValueError(f"`{name}` holds no sequences")
    if not flat and sequences.ndim == 2:
        sequences = Ragged([sequence[:, None] for sequence in sequences])
    if sequences.ndim > 3:
        raise ValueError(
            f"`{name}` must hold sequences of shape (length, features) or (length,). Received: {sequences!r}"
        )
    if not all(np.isfinite(sequence).all() for sequence in sequences):
        raise ValueError(f"Input {name} contains NaN or infinity.")
    return sequences
