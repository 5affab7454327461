"""The published place of the scores of Human3.6M, which lib/eval/h36m.py defines."""

from lib.eval.h36m import Errors, Scores, evaluate_h36m, mpjpe, p_mpjpe

__all__ = ["Errors", "Scores", "evaluate_h36m", "mpjpe", "p_mpjpe"]
