"""scikit-learn's estimators: its own checks, sequences in all their forms, reproducibility, pipelines, pickles."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import numbarnn.random
from numbarnn import jit, optimizers
from numbarnn.sklearn import SequenceClassifier, SequenceRegressor
from numbarnn.utils import Ragged

SMALL = {"units": 4, "epochs": 3, "batch_size": 8, "learning_rate": 0.02, "random_state": 0}

NOT_EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "a sample twice as heavy comes once in an epoch, a repeated one "
    "twice, in other batches: stochastic gradients see the same loss in other steps",
}


# sklearn casts values that float32 does not hold, on purpose.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parity  # a hundred checks, half a minute
@parametrize_with_checks(
    [
        SequenceClassifier(units=8, epochs=20, learning_rate=0.03, batch_size=16, random_state=0),
        SequenceRegressor(units=8, epochs=60, learning_rate=0.03, batch_size=16, random_state=0),
    ],
    expected_failed_checks=lambda estimator: NOT_EXPECTED,
    xfail_strict=True,
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def series(rng, samples=24, lengths=(3, 9), features=2):
    return [rng.normal(size=(int(length), features)) for length in rng.integers(*lengths, size=samples)]


def test_sequences_of_different_lengths_are_classified_by_what_is_in_them(rng):
    X = series(rng, 96)
    y = np.array(["low", "high"])[[int(x[:, 0].sum() > 0) for x in X]]
    classifier = SequenceClassifier(
        "gru", units=8, epochs=25, learning_rate=0.03, bidirectional=True, layers=2, random_state=0
    )
    assert classifier.fit(X, y) is classifier
    assert classifier.score(X, y) > 0.9
    assert classifier.classes_.tolist() == ["high", "low"] and classifier.n_features_in_ == 2
    probabilities = classifier.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    # Padding is masked: each sequence alone, and without any mask, gives the same.
    for x, row in zip(X[:5], probabilities, strict=False):
        np.testing.assert_array_equal(classifier.predict_proba(x[None])[0], row)
        np.testing.assert_array_equal(classifier.model_.predict(x[None].astype("float32"), verbose=0)[0], row)


def test_all_forms_of_the_same_sequences_give_the_same(rng):
    table, y = rng.normal(size=(20, 6)), rng.integers(0, 3, 20)
    forms = {
        "table": table,
        "float32": table.astype("float32"),
        "array": table[:, :, None],
        "list": list(table),
        "lists": table.tolist(),
        "frame": pd.DataFrame(table, columns=list("abcdef")),
        "ragged": Ragged(table[:, :, None]),
        "list of frames": [pd.DataFrame({"a": row}) for row in table],
        "array of objects": _objects(table),
    }
    expected = None
    for name, X in forms.items():
        fitted = SequenceClassifier(**SMALL).fit(X, y)
        found = fitted.predict_proba(X)
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected, err_msg=name)
        whole_table = name in ("table", "float32", "list", "lists", "frame", "array of objects")
        assert fitted.n_features_in_ == (6 if whole_table else 1), name
        assert hasattr(fitted, "feature_names_in_") == (name == "frame")


def _objects(rows):
    objects = np.empty(len(rows), object)
    objects[:] = list(rows)
    return objects


@pytest.mark.parametrize("learned", ["lengths", "one length", "array"])
@pytest.mark.parametrize("form", [list, _objects, lambda rows: [row.tolist() for row in rows]])
def test_sequences_of_single_numbers_may_all_have_another_length(learned, form, rng):
    """As a single one that is predicted always has, or those of one fold."""
    rows = [rng.normal(size=length) for length in rng.integers(3, 9, size=24)]
    rows = rows if learned == "lengths" else [row[:3] for row in rows]
    X = np.stack(rows)[:, :, None] if learned == "array" else form(rows)
    fitted = SequenceClassifier(**SMALL).fit(X, np.arange(24) % 2)
    asked = rng.normal(size=(2, 7))
    expected = fitted.model_.predict(asked[:, :, None].astype("float32"), verbose=0)
    np.testing.assert_array_equal(fitted.predict_proba(form(list(asked))), expected)
    if learned != "one length":  # that is a table
        np.testing.assert_array_equal(fitted.predict_proba(asked), expected)
        assert fitted.n_features_in_ == 1
    else:
        with pytest.raises(ValueError, match="expecting 3 features"):
            fitted.predict_proba(asked)


def test_folds_of_a_ragged(rng):
    rows, y = series(rng), np.arange(24) % 2
    found = cross_val_score(SequenceClassifier(**SMALL), Ragged(rows), y, cv=3, error_score="raise")
    np.testing.assert_array_equal(found, cross_val_score(SequenceClassifier(**SMALL), rows, y, cv=3))
    search = GridSearchCV(SequenceClassifier(**SMALL), {"units": [2, 3]}, cv=2, error_score="raise")
    assert search.fit(Ragged(rows), y).predict(Ragged(rows)).shape == (24,)


def test_fits_repeat_and_leave_other_generators_alone(rng):
    X, y = rng.normal(size=(20, 5, 2)), rng.integers(0, 2, 20)
    options = {**SMALL, "dropout": 0.3}
    np.random.seed(7)
    numbarnn.random.set_seed(7)
    before = np.random.get_state()[1].copy()
    first = SequenceClassifier(**options).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    after = numbarnn.random.make_default_seed()
    numbarnn.random.set_seed(7)
    assert after == numbarnn.random.make_default_seed()
    jit.set_num_threads(1)
    np.testing.assert_array_equal(SequenceClassifier(**options).fit(X, y).predict_proba(X), first)
    other = SequenceClassifier(**{**options, "random_state": 1}).fit(X, y).predict_proba(X)
    assert np.abs(other - first).max() > 1e-3


@pytest.mark.parametrize("copy", [lambda e: pickle.loads(pickle.dumps(e)), None])
def test_pickle_and_joblib(copy, tmp_path, rng):
    X, y = rng.normal(size=(20, 5, 2)), rng.normal(size=20)
    fitted = SequenceRegressor(**SMALL, warm_start=True).fit(X, y)
    if copy is None:
        joblib.dump(fitted, tmp_path / "regressor.joblib")
        again = joblib.load(tmp_path / "regressor.joblib")
    else:
        again = copy(fitted)
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    # Training goes on from where it was, the optimizer's moments included.
    np.testing.assert_array_equal(again.fit(X, y).predict(X), fitted.fit(X, y).predict(X))


def test_pipelines_searches_and_clones(rng):
    X = 50 + 10 * rng.normal(size=(40, 4))
    y = (X[:, -1] > 50).astype(int)
    pipeline = make_pipeline(StandardScaler(), SequenceClassifier(**SMALL))
    search = GridSearchCV(pipeline, {"sequenceclassifier__epochs": [1, 30]}, cv=2).fit(X, y)
    assert search.best_params_ == {"sequenceclassifier__epochs": 30}
    assert cross_val_score(search.best_estimator_, X, y, cv=2).mean() > 0.7
    fresh = clone(search.best_estimator_[-1])
    assert not hasattr(fresh, "model_") and fresh.get_params() == search.best_estimator_[-1].get_params()
    target = TransformedTargetRegressor(SequenceRegressor(**{**SMALL, "epochs": 60}), transformer=StandardScaler())
    assert (
        target.fit(StandardScaler().fit_transform(X), 1000 * X[:, -1]).score(
            StandardScaler().fit_transform(X), 1000 * X[:, -1]
        )
        > 0.5
    )


def test_weights_of_classes_are_weights_of_samples(rng):
    X, y = rng.normal(size=(20, 5, 1)), np.array([0] * 15 + [1] * 5)
    balanced = SequenceClassifier(**SMALL, class_weight="balanced").fit(X, y).predict_proba(X)
    weights = np.where(y == 0, 20 / (2 * 15), 20 / (2 * 5))
    np.testing.assert_array_equal(SequenceClassifier(**SMALL).fit(X, y, weights).predict_proba(X), balanced)
    plain = SequenceClassifier(**SMALL).fit(X, y).predict_proba(X)
    assert (balanced[:, 1] > plain[:, 1]).all()
    both = SequenceClassifier(**SMALL, class_weight={0: 2.0, 1: 3.0}).fit(X, y, weights).predict_proba(X)
    np.testing.assert_array_equal(
        SequenceClassifier(**SMALL).fit(X, y, weights * np.where(y == 0, 2, 3)).predict_proba(X), both
    )


def test_early_stopping_keeps_the_best_weights(rng):
    X, y = rng.normal(size=(60, 5, 1)), rng.integers(0, 2, 60)  # nothing to be learned
    options = {**SMALL, "epochs": 200, "learning_rate": 0.05, "validation_fraction": 0.25, "n_iter_no_change": 4}
    fitted = SequenceClassifier(**options, early_stopping=True).fit(X, y)
    losses = fitted.history_["val_loss"]
    assert fitted.n_iter_ == len(losses) == int(np.argmin(losses)) + 1 + 4 < 200
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    _, held_out = train_test_split(np.arange(60), test_size=0.25, random_state=seed, stratify=y)
    probabilities = fitted.predict_proba(X[held_out])[np.arange(15), y[held_out]]
    assert -np.log(probabilities).mean() == pytest.approx(min(losses), rel=1e-5)
    weighted = SequenceRegressor(**{**SMALL, "epochs": 5}, early_stopping=True)
    weighted.fit(series(rng, 30), rng.normal(size=30), sample_weight=np.ones(30))  # in all forms
    assert len(weighted.history_["val_loss"]) == weighted.n_iter_


def test_warm_start_trains_further(rng):
    X, y = rng.normal(size=(32, 5, 1)), rng.integers(0, 2, 32)
    fitted = SequenceClassifier(**SMALL, warm_start=True).fit(X, y)
    model, before = fitted.model_, fitted.history_["loss"][-1]
    fitted.fit(X, y)
    assert fitted.model_ is model and fitted.n_iter_ == 6 and len(fitted.history_["loss"]) == 6
    assert fitted.history_["loss"][3] == pytest.approx(before, abs=0.05)
    with pytest.raises(ValueError, match="classes must stay"):
        fitted.fit(X, y + 1)
    with pytest.raises(ValueError, match="expecting 1 features"):
        fitted.fit(np.concatenate([X, X], -1), y)
    cold = SequenceClassifier(**SMALL).fit(X, y)
    assert cold.fit(X, y).n_iter_ == 3


@pytest.mark.parametrize("targets", [None, 2])
def test_a_target_at_every_timestep(targets, rng):
    def running_mean(x):
        mean = np.cumsum(x[:, 0]) / np.arange(1, len(x) + 1)
        return mean if targets is None else np.stack([mean, -mean], -1)

    options = {"units": 12, "epochs": 30, "learning_rate": 0.03, "random_state": 0, "return_sequences": True}
    X = series(rng, 64)
    y = [running_mean(x) for x in X]
    fitted = SequenceRegressor(**options).fit(X, y)
    found = fitted.predict(X)
    assert [row.shape for row in found] == [row.shape for row in y]
    score = fitted.score(X, y)
    assert score > 0.8 and score == pytest.approx(r2_score(np.concatenate(y), np.concatenate(found)))
    array = np.stack([x[:3] for x in X])
    targets_of_array = np.stack([row[:3] for row in y])
    assert SequenceRegressor(**options).fit(array, targets_of_array).predict(array).shape == targets_of_array.shape
    with pytest.raises(ValueError, match="target at every timestep"):
        SequenceRegressor(**options).fit(array, targets_of_array[:, :2])


def test_several_targets_and_types(rng):
    X, y = rng.normal(size=(20, 5, 2)), rng.normal(size=(20, 3))
    fitted = SequenceRegressor("simple_rnn", **SMALL, loss="mean_absolute_error").fit(X, y)
    assert fitted.predict(X).shape == (20, 3) and fitted.predict(X).dtype == np.float64
    assert fitted.predict(X.astype("float32")).dtype == np.float32
    np.testing.assert_array_equal(fitted.predict(X), fitted.model_.predict(X, verbose=0))


def test_an_optimizer_of_ones_own(rng):
    X, y = rng.normal(size=(20, 5, 2)), rng.normal(size=20)
    given = optimizers.SGD(learning_rate=0.5, momentum=0.9)
    fitted = clone(SequenceRegressor(**SMALL, optimizer=given)).fit(X, y)
    used = fitted.model_.optimizer
    assert used is not given and (float(used.learning_rate), used.momentum) == (0.5, 0.9)
    named = SequenceRegressor(**SMALL, optimizer="rmsprop", clipnorm=None).fit(X, y).model_.optimizer
    assert type(named).__name__ == "RMSprop" and named.global_clipnorm is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cell": "transformer"}, "`cell` must be one of"),
        ({"units": 0}, "`units` must be a positive integer"),
        ({"layers": 1.5}, "`layers` must be a positive integer"),
        ({"dropout": 1.0}, "`dropout` must be a number in"),
        ({"learning_rate": -1}, "`learning_rate` must be a positive number"),
        ({"clipnorm": 0}, "`clipnorm` must be a positive number or None"),
        ({"validation_fraction": 1.0}, "`validation_fraction` must be"),
        ({"optimizer": "none"}, "optimizer"),
    ],
)
def test_arguments_out_of_range(wrong, words, rng):
    with pytest.raises(ValueError, match=words):
        SequenceRegressor(**{**SMALL, **wrong}).fit(rng.normal(size=(8, 4)), rng.normal(size=8))


def test_data_out_of_form(rng):
    X, y = series(rng, 8), np.arange(8) % 2
    fitted = SequenceClassifier(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match="3 features, but SequenceClassifier is expecting 2"):
        fitted.predict(series(rng, 4, features=3))
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict([*X[:-1], np.full((3, 2), np.nan)])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.fit(X, y[:-1])
    with pytest.raises(ValueError, match="trailing shape"):
        fitted.predict([np.ones((2, 2)), np.ones((3, 1))])
    with pytest.raises(ValueError, match="at least one timestep"):
        fitted.predict(np.ones((4, 0, 2)))
    with pytest.raises(ValueError, match="axes"):
        SequenceRegressor(**SMALL).fit(X, np.ones((8, 2, 2)))
