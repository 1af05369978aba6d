"""Evaluation on your own pages: metrics with intervals, configurations side by side, and a report of the misses."""

from colpali_integrations._public import publish
from colpali_integrations.evaluation.compare import evaluate
from colpali_integrations.evaluation.configurations import Configuration
from colpali_integrations.evaluation.evaluated import Evaluation
from colpali_integrations.evaluation.metrics import Mean, bootstrap, hit, mrr, ndcg, recall
from colpali_integrations.evaluation.questions import Answer, Question, Questions, write_questions
from colpali_integrations.evaluation.reading import read_questions
from colpali_integrations.evaluation.results import Outcome, Result
from colpali_integrations.evaluation.targets import wanted_ids

__all__ = [
    "Answer",
    "Configuration",
    "Evaluation",
    "Mean",
    "Outcome",
    "Question",
    "Questions",
    "Result",
    "bootstrap",
    "evaluate",
    "hit",
    "mrr",
    "ndcg",
    "read_questions",
    "recall",
    "wanted_ids",
    "write_questions",
]

publish(globals())
