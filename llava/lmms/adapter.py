"""The two classes that lmms-eval runs; the only module here that imports it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm

from llava.asking.batch import positive
from llava.asking.losses import told
from llava.asking.processes import join
from llava.asking.questions import Question, in_batches
from llava.lmms.loading import load_llava_pruned, load_vlm_pruned
from llava.lmms.requests import cut, decoding, ignored, question_of, stops
from llava.model.devices import check_device


class PrunedModel(lmms):
    """What lmms-eval asks of a model, in terms of the ``llava.asking.model.Model`` that ``load`` returns.

    Args:
        pretrained: folder or hub id of the checkpoint.
        batch_size: questions per forward pass, on each device.
        device: ``cuda``, ``cuda:1``, ``cpu``; a launcher gives every process its own.
        options: what the backend takes; ``max_batch_size``, which lmms-eval may pass, bounds ``batch_size``.

    Raises:
        TypeError, ValueError: an argument that nobody reads, or an unusable value; before the model is loaded.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | str | None = None,
        **options: Any,
    ):
        super().__init__()
        self.batch_size = positive("batch_size", batch_size)
        if max_batch_size is not None:
            self.batch_size = min(self.batch_size, positive("max_batch_size", max_batch_size))
        if device is not None:
            check_device(device)
        processes = join(device)
        self.backend = self.load(str(pretrained), processes, **options)
        self.device = torch.device(self.backend.model.device)
        self._rank, self._world_size = processes.rank, processes.count
        self._reported: set[str] = set()

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer every request, in batches of like requests; the answers come in the requests' order."""
        self._report_ignored(requests)
        return self._run(requests, self._answer)

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Score the continuation of every request: the pair of its loss and whether greedy decoding says it.

        The loss is the mean negative log-likelihood of the tokens: lmms-eval's metrics take the smallest, as its own
        wrappers return it. A pair that stands alone would reach the metrics as the text of its ``repr``.
        """
        return self._run(requests, self._score)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported.

        Raises:
            NotImplementedError: always.
        """
        tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
        raise NotImplementedError(f"{type(self).__name__} answers single rounds; these tasks have several: {tasks}")

    def clean(self) -> None:
        """Free the model, which lmms-eval asks for before a local judge may be loaded."""
        del self.backend
        super().clean()

    def _run(
        self, requests: list[Instance], respond: Callable[[Sequence[Question]], list[GenerationResult]]
    ) -> list[GenerationResult]:
        questions = [question_of(request.args, self.task_dict) for request in requests]
        start, seen, lost = time.perf_counter(), self.backend.visual_tokens.copy(), self.backend.lost.copy()
        with tqdm(total=len(questions), desc="Model Responding", disable=self.rank != 0) as progress:
            results = in_batches(questions, self.batch_size, respond, progress.update)
        self._log(results, time.perf_counter() - start, self.backend.visual_tokens - seen, self.backend.lost - lost)
        return results

    def _answer(self, questions: Sequence[Question]) -> list[GenerationResult]:
        generation = questions[0].generation  # the same for all of a batch
        replies = self.backend.answer_items([*map(self.backend.item, questions)], decoding(generation))
        ends = stops(generation)
        return [
            GenerationResult(
                cut(reply.text, ends),
                TokenCounts(input_tokens=reply.prompt_tokens, output_tokens=reply.new_tokens),
            )
            for reply in replies
        ]

    def _score(self, questions: Sequence[Question]) -> list[GenerationResult]:
        return [GenerationResult(score) for score in self.backend.score(questions)]

    def _log(self, results: list[GenerationResult], seconds: float, seen: Any, lost: Any) -> None:
        """Put what was measured and lost where lmms-eval keeps it: under ``throughput`` in the results."""
        if lost:
            logger.warning(f"of {len(results)} questions {told(lost)}")
        tokens = sum(result.token_counts.output_tokens for result in results if result.token_counts)
        images = seen["images"]
        per_image = {"visual_tokens": seen["kept"] / images, "visual_tokens_before": seen["before"] / images}
        counts = {"num_requests": len(results)} | {f"lost_{name}": count for name, count in lost.items()}
        log_metrics(seconds, tokens, tokens / seconds, (per_image if images else {}) | counts)

    def _report_ignored(self, requests: list[Instance]) -> None:
        unread = {key for request in requests for key in ignored(request.args[1])} - self._reported
        if unread:
            logger.warning(f"generation settings that nothing here reads: {', '.join(sorted(unread))}")
        self._reported |= unread


class LlavaPruned(PrunedModel):
    """``--model llava_pruned``: checkpoints in LLaVA's format; see ``llava.lmms.loading.load_llava_pruned``."""

    load = staticmethod(load_llava_pruned)


class VlmPruned(PrunedModel):
    """``--model vlm_pruned``: Transformers' own models; see ``llava.lmms.loading.load_vlm_pruned``."""

    load = staticmethod(load_vlm_pruned)
