"""Answer normalisation and soft accuracy of TextVQA and the VQA challenges, under the names of LLaVA and M4C."""

from llava.eval.tasks.soft_accuracy import EvalAIAnswerProcessor, TextVQAAccuracyEvaluator

__all__ = ["EvalAIAnswerProcessor", "TextVQAAccuracyEvaluator"]
