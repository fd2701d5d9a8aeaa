"""`linear`: a linear model of a case's text, fitted in a minute, which every tuned model must beat.

The sum of a support vector machine on TF-IDF and a logistic regression on log-count ratios (naive
Bayes weights; Wang and Manning, ACL 2012), one label against the rest, on words and on characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from scipy.special import expit
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from tasks.corpus.case import Case
from tasks.judging.point_metrics import Floats, Ints, confusion_cells, label_codes, macro_f1
from tasks.spec import LABELS

# Words, numbers (7/10, 38.5) and what may end a clause.
TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[./]\d+)*|[.;!?]")
NEGATION = re.compile(r"no|not|never|without|none|nor|neither|nil|denies|denied|cannot|.+n['’]t")
# Settings, of which `valid` chooses: inverse L2 strengths of the two machines, and how much more the
# cases of rare labels weigh, from not at all to labels that count alike.
STRENGTHS = ((0.3, 1.0), (1.0, 3.0))
BALANCE = (0.0, 0.5, 1.0)
SVM_SHARE = 2.0  # in the sum: its margins are about half as wide as the regression's log-odds
FIT: dict[str, Any] = {"random_state": 0, "tol": 0.01, "max_iter": 1000}


def words_and_pairs(text: str) -> list[str]:
    """Words and pairs of words, in lower case. Those that follow a negation begin with `not_`, to the
    end of the clause; a comma or a colon ends none: "no fever, rash or cough".
    """
    words = []
    negated = False
    for token in TOKEN.findall(text.lower()):
        if token in ".;!?" or token == "but":
            negated = False
        if token not in ".;!?":
            words.append(f"not_{token}" if negated else token)
        negated = negated or NEGATION.fullmatch(token) is not None

    return words + [f"{first} {second}" for first, second in pairwise(words)]


class LinearModel:
    """Fitted on `train`, with the settings of the highest macro-F1 on `valid`, and with probabilities
    that are fitted on `calibration`, where cases weigh as they do in train.

    Raises ValueError where train has one label only, or no word that counts.
    """

    def __init__(
        self, train: Sequence[Case], valid: Sequence[Case], calibration: Sequence[Case]
    ) -> None:
        truth = _codes(train)
        self.labels = np.unique(truth)
        self.counters = [
            CountVectorizer(analyzer=words_and_pairs, min_df=2, dtype=np.float32),
            CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, dtype=np.float32),
        ]
        counts = [counter.fit_transform(case.text for case in train) for counter in self.counters]
        self.tfidf = [TfidfTransformer(sublinear_tf=True).fit(block) for block in counts]
        self.ratios = [[_log_count_ratios(b, truth == k) for b in counts] for k in self.labels]

        tfidf, *weighted = self._views(counts)
        views_of_valid, views_of_calibration = map(self._views_of, (valid, calibration))
        best = -1.0
        for (a, b), balance in product(STRENGTHS, BALANCE):
            weights = _weights(truth, balance)
            machines = []
            for k, view in zip(self.labels, weighted, strict=True):
                svm = LinearSVC(C=a, **FIT).fit(tfidf, truth == k, weights)
                regression = LogisticRegression(C=b, solver="liblinear", dual=True, **FIT)
                machines.append((svm, regression.fit(view, truth == k, weights)))
            scores = _scores(machines, views_of_calibration)
            probabilities = _probabilities(scores, _codes(calibration), self.labels, balance)
            p = probabilities(_scores(machines, views_of_valid))
            cells = confusion_cells(_codes(valid), self.labels[p.argmax(axis=1)])
            if (reached := float(macro_f1(cells.sum(axis=0).reshape(3, 3)))) > best:
                best, self.machines, self.probabilities = reached, machines, probabilities

    def predict(self, cases: Sequence[Case]) -> Floats:
        """Label probabilities, shape (cases, 3) in the order LABELS; 0 for a label train lacks."""
        p = np.zeros((len(cases), len(LABELS)))
        p[:, self.labels] = self.probabilities(_scores(self.machines, self._views_of(cases)))
        return p

    def _views_of(self, cases: Sequence[Case]) -> list[csr_matrix]:
        return self._views([c.transform(case.text for case in cases) for c in self.counters])

    def _views(self, counts: list[csr_matrix]) -> list[csr_matrix]:
        """TF-IDF, then for each label its weighted counts, each of shape (cases, features). The words
        of a text are a vector of length 1, and so are its characters.
        """
        views = [[t.transform(b) for t, b in zip(self.tfidf, counts, strict=True)]]
        for ratios in self.ratios:
            pairs = zip(counts, ratios, strict=True)
            views.append([normalize((b > 0).multiply(ratio)) for b, ratio in pairs])
        return [hstack(view, format="csr") for view in views]


def _codes(cases: Sequence[Case]) -> Ints:
    return label_codes([case.label for case in cases])


def _weights(truth: Ints, balance: float) -> Floats:
    """Of each case: the number of cases with its label to the power of -balance, divided by the mean."""
    weights = np.bincount(truth)[truth] ** -balance
    return weights / weights.mean()


def _log_count_ratios(counts: csr_matrix, is_label: NDArray[np.bool_]) -> Floats:
    """Of each feature, log((1 + cases that have it) / (2 + cases)): of these minus of the others."""
    shares = [
        (1 + np.asarray((counts[cases] > 0).sum(axis=0)).ravel()) / (2 + cases.sum())
        for cases in (is_label, ~is_label)
    ]
    return np.asarray(np.log(shares[0] / shares[1]), dtype=np.float32)


def _scores(machines: list[tuple[Any, Any]], views: list[csr_matrix]) -> Floats:
    """The sum of each label's two machines, shape (cases, labels)."""
    columns = []
    for (svm, regression), weighted in zip(machines, views[1:], strict=True):
        margins = svm.decision_function(views[0])
        columns.append(SVM_SHARE * margins + regression.decision_function(weighted))
    return np.stack(columns, axis=1)


def _probabilities(
    scores: Floats, truth: Ints, labels: Ints, balance: float
) -> Callable[[Floats], Floats]:
    """Probabilities from scores, both (cases, labels), fitted on these: a logistic regression of all
    labels. Where these lack a label: the logistic function, divided by its sum over the labels.
    """
    known = np.isin(truth, labels)
    if set(truth[known]) != set(labels):
        return lambda x: expit(x) / expit(x).sum(axis=1, keepdims=True)
    weights = _weights(truth[known], balance)
    regression = LogisticRegression(max_iter=1000)
    return regression.fit(scores[known], truth[known], weights).predict_proba
