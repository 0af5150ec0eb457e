from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from facekit.reference import judge, voted_expressions
from facekit.schema import EXPRESSIONS, FERPLUS


def test_pluralities_of_votes():
    votes = np.zeros((6, 10), np.uint8)
    votes[0, FERPLUS.index("happy")] = 6
    votes[0, FERPLUS.index("neutral")] = 4
    votes[1, :2] = 5  # a tie
    votes[2, FERPLUS.index("contempt")] = 9
    votes[3, 8] = 9  # unknown
    votes[4, 9] = 9  # not a face
    votes[5, FERPLUS.index("angry")] = 1
    expected = [EXPRESSIONS.index("happy"), -1, -1, -1, -1, EXPRESSIONS.index("angry")]
    np.testing.assert_array_equal(voted_expressions(votes), expected)


def test_scores_are_judged_within_classes():
    random = np.random.default_rng(0)
    labels = random.integers(-1, 7, 900)
    voted = np.where(random.random(900) < labels / 20, (labels + 1) % 7, labels)
    voted[::50] = -1
    scores = random.random(900) + (labels != voted) + labels
    found = judge(labels, scores, voted)
    rows = (labels >= 0) & (voted >= 0)
    wrong = labels != voted
    assert found.n == rows.sum()
    within = {c: rows & (labels == c) for c in range(1, 7)}  # no label of class 0 is rejected
    areas = [roc_auc_score(wrong[of_class], scores[of_class]) for of_class in within.values()]
    assert found.per_class_auroc["angry"] is None
    assert found.macro_within_class_auroc == pytest.approx(np.mean(areas))
    assert found.pooled_auroc == pytest.approx(roc_auc_score(wrong[rows], scores[rows]))
    rates = np.array([0.0] + [wrong[of_class].mean() for of_class in within.values()])
    assert found.class_prior_auroc == pytest.approx(roc_auc_score(wrong[rows], rates[labels[rows]]))
    happy = within[EXPRESSIONS.index("happy")]
    first = np.flatnonzero(happy)[np.argsort(-scores[happy], kind="stable")[:10]]
    assert found.precision_at_k["happy"]["10"] == pytest.approx(wrong[first].mean())
    assert found.precision_at_k["happy"]["base_rate"] == pytest.approx(wrong[happy].mean())
    assert found.precision_at_k["happy"]["200"] is None


def test_nothing_to_judge_by_gives_null():
    found = judge(np.array([0, 1]), np.array([0.1, 0.2]), np.array([-1, -1]))
    assert (found.n, found.macro_within_class_auroc, found.pooled_auroc) == (0, None, None)
