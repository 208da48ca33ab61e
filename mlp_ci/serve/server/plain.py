"""Which scikit-learn models may be given an array instead of a DataFrame: half of what a prediction costs.

scikit-learn's own numeric estimators turn a DataFrame into this very array before they do anything. Estimators that
look at columns (ColumnTransformer), call code of others (FunctionTransformer, meta-estimators) or are not
scikit-learn's go on getting DataFrames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_ci.serve.signature import Signature

_PLAIN = {
    "sklearn.linear_model": {
        "LinearRegression",
        "Ridge",
        "Lasso",
        "ElasticNet",
        "LogisticRegression",
        "SGDClassifier",
        "SGDRegressor",
        "PoissonRegressor",
        "HuberRegressor",
    },
    "sklearn.tree": {"DecisionTreeClassifier", "DecisionTreeRegressor"},
    "sklearn.ensemble": {
        "RandomForestClassifier",
        "RandomForestRegressor",
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "GradientBoostingClassifier",
        "GradientBoostingRegressor",
        "IsolationForest",
    },
    "sklearn.svm": {"SVC", "SVR", "LinearSVC", "LinearSVR"},
    "sklearn.neighbors": {"KNeighborsClassifier", "KNeighborsRegressor"},
    "sklearn.naive_bayes": {"GaussianNB"},
    "sklearn.neural_network": {"MLPClassifier", "MLPRegressor"},
    "sklearn.cluster": {"KMeans", "MiniBatchKMeans"},
    "sklearn.preprocessing": {
        "StandardScaler",
        "MinMaxScaler",
        "RobustScaler",
        "MaxAbsScaler",
        "PowerTransformer",
        "QuantileTransformer",
        "PolynomialFeatures",
    },
    "sklearn.impute": {"SimpleImputer"},
    "sklearn.decomposition": {"PCA"},
}


def reads_arrays(estimator: Any, signature: Signature) -> bool:
    """Whether ``estimator`` answers an array of the signature's columns as it answers a DataFrame of them.

    Makes it forget the names of its columns, which it would miss in an array with a warning per prediction: the
    signature has compared them already.
    """
    steps = _steps(estimator)
    names = list(signature.names)
    if signature.number_type != "float64" or not steps or not all(map(_is_plain, steps)):
        return False
    fitted = [list(s.feature_names_in_) for s in steps if hasattr(s, "feature_names_in_")]
    if any(known != names for known in fitted[:1]):  # it would refuse such a DataFrame itself
        return False
    for step in steps:
        step.__dict__.pop("feature_names_in_", None)
    return True


def _steps(estimator: Any) -> list[Any]:
    if type(estimator).__module__ == "sklearn.pipeline" and type(estimator).__name__ == "Pipeline":
        return [step for _, step in estimator.steps if step not in (None, "passthrough")]
    return [estimator]


def _is_plain(step: Any) -> bool:
    kind = type(step)
    package = ".".join(kind.__module__.split(".")[:2])
    returns_frames = getattr(step, "_sklearn_output_config", None)  # `set_output` asks for names between the steps
    return kind.__name__ in _PLAIN.get(package, ()) and not returns_frames
