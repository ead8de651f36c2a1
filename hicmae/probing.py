"""What frozen features are worth: nearest neighbours and linear models on them, their settings chosen on validation.

Shapes: N clips, D width of a feature, C classes, K dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hicmae.metrics import confusion_matrix, confusion_scores, dimensional_scores

Method = Literal["knn", "linear"]
Array = NDArray[np.float64]
NEIGHBOURS = (1, 5, 10, 20, 50)
"""Numbers of neighbours to choose among."""
INVERSE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of a logistic regression's L2 penalty, on standardised features; a ridge regression takes their inverses."""


@dataclass(frozen=True, kw_only=True)
class ProbeFit:
    """A method on a feature, with the setting that did best on validation."""

    method: Method
    setting: str
    """For instance 'k=10' or 'C=0.01'."""
    predict: Callable[[Array], Array]
    """(N, D) -> class probabilities (N, C), or values (N, K)."""


def probe_classes(
    train: tuple[Array, NDArray[np.int64]], val: tuple[Array, NDArray[np.int64]], *, classes: int, method: Method
) -> ProbeFit:
    """Fit a classifier for each setting and keep the one with the highest UAR on validation; of equals, the first.

    Args:
        train, val: features (N, D) and class numbers int (N,).
        classes: C.
        method: ``knn``: share of each class among the nearest by cosine; ``linear``: logistic regression.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    if len(np.unique(train[1])) < 2:
        raise ValueError("the training clips are all of one class: there is nothing to tell apart")
    models: dict[str, Any] = (
        {f"k={k}": KNeighborsClassifier(k, metric="cosine") for k in _possible(len(train[0]))}
        if method == "knn"
        else {f"C={c:g}": _standardised(LogisticRegression(C=c, max_iter=2000)) for c in INVERSE_STRENGTHS}
    )

    def predictor(model: Any) -> Callable[[Array], Array]:
        def predict(features: Array) -> Array:
            probabilities = np.zeros((len(features), classes))  # a class without training clips stays at 0
            probabilities[:, model.classes_] = model.predict_proba(features)
            return probabilities

        return predict

    def uar(probabilities: Array) -> float:
        return float(confusion_scores(confusion_matrix(val[1], probabilities.argmax(axis=1), classes))["uar"])

    return _best(models, train, val[0], predictor, uar, method)


def probe_dimensions(train: tuple[Array, Array], val: tuple[Array, Array], *, method: Method) -> ProbeFit:
    """Fit a regressor for each setting and keep the one with the highest mean CCC on validation; of equals, the first.

    Args:
        train, val: features (N, D) and values (N, K).
        method: ``knn``: mean of the nearest by cosine; ``linear``: ridge regression.
    """
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor

    models: dict[str, Any] = (
        {f"k={k}": KNeighborsRegressor(k, metric="cosine") for k in _possible(len(train[0]))}
        if method == "knn"
        else {f"alpha={1 / c:g}": _standardised(Ridge(alpha=1 / c)) for c in INVERSE_STRENGTHS}
    )

    def predictor(model: Any) -> Callable[[Array], Array]:
        return lambda features: model.predict(features).reshape(len(features), -1)

    def ccc(values: Array) -> float:
        each = [dimensional_scores(val[1][:, i], values[:, i]).ccc for i in range(values.shape[1])]
        return float(np.nan_to_num(each, nan=-1.0).mean())  # NaN: the target or the prediction does not vary

    return _best(models, train, val[0], predictor, ccc, method)


def _possible(clips: int) -> Sequence[int]:
    """Numbers of neighbours that so many clips have."""
    return [k for k in NEIGHBOURS if k <= clips] or [clips]


def _standardised(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def _best(
    models: Mapping[str, Any],
    train: tuple[Array, NDArray[Any]],
    val: Array,
    predictor: Callable[[Any], Callable[[Array], Array]],
    score: Callable[[Array], float],
    method: Method,
) -> ProbeFit:
    found: tuple[float, ProbeFit] | None = None
    for setting, model in models.items():
        with warnings.catch_warnings():
            # At the weakest penalties the solver may stop before its tolerance; validation decides what that is worth.
            warnings.filterwarnings("ignore", message=".*lbfgs failed to converge")
            model.fit(*train)
        fitted = ProbeFit(method=method, setting=setting, predict=predictor(model))
        value = score(fitted.predict(val))
        if found is None or value > found[0]:
            found = value, fitted
    assert found is not None
    return found[1]
