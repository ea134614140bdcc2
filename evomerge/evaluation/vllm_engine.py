"""The vLLM engine: a second copy of the candidate, inside vLLM, answers in place of transformers.

Its answers equal those of transformers up to rounding on vLLM's CPU build, where the tests run it.
It has not been run on a GPU; there, too, both are compared before anything is scored.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.errors import EvaluationError
from evomerge.evaluation.batches import Pair
from evomerge.evaluation.choosing import Draws
from evomerge.evaluation.decoding import decodes_plainly
from evomerge.evaluation.engine import Answer, device_name
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.kinds import Asked, Part, Requests, prepare_requests, through_lm_eval
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.reasoning import Tags
from evomerge.evaluation.suite import BatchSize

if TYPE_CHECKING:
    from vllm import RequestOutput

__all__ = ["VllmEngine", "VllmModel", "known_arguments"]

_LOGITS_BYTES = 1 << 30  # of a step that scores prompts, in float32; vLLM does not plan for them
_TOLERANCE = 0.25  # mean nats per token; two roundings of one model in bfloat16 stay below 0.1


def known_arguments() -> frozenset[str]:
    """Name what the installed vLLM can be told; imports it."""
    import vllm

    named = inspect.signature(vllm.LLM.__init__).parameters.values()
    own = (p.name for p in named if p.kind is not p.VAR_KEYWORD and p.name != "self")
    return frozenset((*own, *(field.name for field in dataclasses.fields(vllm.EngineArgs))))


class VllmModel:
    """A model inside vLLM, in this process, that takes over the parameters of a live model.

    Args:
        folder: Config and tokenizer; parameters are not read from it.
        model: The live model.
        tensors: All its parameters by checkpoint name, as views.
        memory_share: Which part of the device's memory vLLM may take.
        arguments: What else vLLM is told.

    Raises:
        EvaluationError: vLLM does not say what the live model says.
    """

    def __init__(
        self,
        folder: Path,
        model: PreTrainedModel,
        tensors: Mapping[str, torch.Tensor],
        memory_share: float,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # tensors are handed over as they are
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # it reports to its makers otherwise
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        import vllm

        self.version: str = vllm.__version__
        self._model, self._tensors = model, tensors
        self._vocabulary = model.config.get_text_config().vocab_size
        is_untied = getattr(model.config, "tie_word_embeddings", None) is False
        told: dict[str, Any] = {
            "enforce_eager": model.device.type == "cpu",
            "gpu_memory_utilization": memory_share,
            "max_num_batched_tokens": max(1024, _LOGITS_BYTES // (4 * self._vocabulary)),
            **(arguments or {}),
        }
        self._llm = vllm.LLM(
            model=str(folder),
            dtype=str(model.dtype).removeprefix("torch."),
            load_format="dummy",
            hf_overrides={"tie_word_embeddings": False} if is_untied else {},
            seed=0,
            **told,
        )
        self._longest = self._llm.model_config.max_model_len - 1  # it must say one token
        self.update()
        self._compare()

    def update(self) -> None:
        """Take over the parameters as they are now."""
        tensors = iter(self._tensors.items())
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": tensors})
        self._llm.reset_prefix_cache()

    def fit(self, tokens: list[int]) -> list[int]:
        """Make room for the token that vLLM must say: a full context loses its first tokens.

        Raises:
            EvaluationError: vLLM's context is shorter than the model's.
        """
        if len(tokens) > self._longest + 2:
            raise EvaluationError(
                f"engine vllm: expected at most {self._longest + 2} tokens, got {len(tokens)}: "
                "vLLM found too little memory for the model's context; set engine: transformers"
            )
        return tokens[-self._longest :]

    def answer(
        self,
        prompts: Sequence[list[int]],
        draws: Draws | None = None,
        seeds: Sequence[int] = (),
        **sampling: Any,
    ) -> list[RequestOutput]:
        """Run prompts of tokens; vLLM batches them.

        Args:
            prompts: Of tokens.
            draws: How tokens are drawn; ``None`` takes the likeliest.
            seeds: Of the draws of each answer.
            sampling: What else vLLM is told of all of them.
        """
        from vllm import SamplingParams

        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        if draws is None:
            parameters = [SamplingParams(temperature=0.0, **sampling)] * len(prompts)
        else:
            drawing = {**asdict(draws), **sampling}
            parameters = [SamplingParams(seed=seed, **drawing) for seed in seeds]
        outputs: list[RequestOutput] = self._llm.generate(inputs, parameters, use_tqdm=False)
        return outputs

    def read(self, sequences: Sequence[list[int]]) -> list[list[tuple[float, bool]]]:
        """Score every token but the first: its log-likelihood, and whether it is the likeliest."""
        outputs = self.answer(sequences, max_tokens=1, prompt_logprobs=0, detokenize=False)
        return [
            [(found[t].logprob, found[t].rank == 1) for t, found in zip(tokens, read, strict=True)]
            for sequence, output in zip(sequences, outputs, strict=True)
            for tokens, read in [(sequence[1:], output.prompt_logprobs[1:])]
        ]

    @torch.no_grad()
    def _compare(self) -> None:
        """Let both read a few tokens: vLLM does not complain of parameters it cannot replace."""
        tokens = torch.arange(min(64, self._longest)) % self._vocabulary
        logits = self._model(tokens[None].to(self._model.device)).logits[0, :-1]
        theirs = logits.float().log_softmax(-1).cpu().gather(-1, tokens[1:, None])[:, 0]
        ours = torch.tensor([value for value, _ in self.read([tokens.tolist()])[0]])
        difference = (ours - theirs).abs().mean().item()
        if not difference < _TOLERANCE:
            raise EvaluationError(
                f"engine vllm: expected log-likelihoods within {_TOLERANCE} nats of those of "
                f"transformers, got {difference:.2g} off: vLLM {self.version} does not take over "
                f"all parameters of {type(self._model).__name__}; set engine: transformers"
            )


class VllmEngine:
    """See ``Engine``. Answers that need more than draws come from the live model, through lm-eval.

    Args:
        vllm: Kept equal to the live model by its owner.
        model: The live model.
        tokenizer: Copied.
        batch_size: Without effect: vLLM batches as it sees fit.
        tags: See ``MakeEngine``.
    """

    def __init__(
        self,
        vllm: VllmModel,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: BatchSize = "auto",
        tags: Tags | None = None,
    ) -> None:
        self._vllm = vllm
        self._lm = LanguageModel(model, tokenizer, 1, tags)
        self.can_decode = decodes_plainly(model)

    @property
    def language_model(self) -> LanguageModel:
        """See ``Engine``."""
        return self._lm

    @property
    def sloped_model(self) -> None:
        """See ``Engine``; vLLM keeps no graph."""
        return None

    @property
    def arithmetic(self) -> tuple[str]:
        """See ``Engine``; how vLLM batches is its own affair."""
        return (device_name(self._lm.lm.device),)

    def prepare(self, instances: Sequence[Instance]) -> Requests:
        """See ``Engine``."""
        return prepare_requests(instances, self._lm, self)

    def likelihoods(self, pairs: Sequence[Pair], tasks: Sequence[str] = ()) -> Part:
        """See ``Runner``; vLLM itself finds what prompts share."""
        sequences = [self._vllm.fit(context + scored) for context, scored in pairs]

        def answer() -> list[Answer]:
            start = time.perf_counter()
            read = self._vllm.read(sequences)
            seconds = (time.perf_counter() - start) / len(pairs)
            found = [
                values[-len(scored) :] for values, (_, scored) in zip(read, pairs, strict=True)
            ]
            return [
                Answer((sum(v for v, _ in of_one), all(g for _, g in of_one)), len(of_one), seconds)
                for of_one in found
            ]

        return answer

    def windows(self, pairs: Sequence[Pair]) -> Part:
        """See ``Runner``."""
        return self.likelihoods(pairs)

    def texts(self, asked: Asked) -> Part:
        """See ``Runner``. Stop strings that must not end reasoning are looked for afterwards."""
        n, stops = self._lm.longest_answer(asked.settings), asked.stops
        own = self._lm.lm.model.generation_config
        draws = Draws.of(asked.settings, own) if asked.seeds else None
        prompts = [self._lm.padded([text], room=n)[0][0].tolist() for text in asked.prompts]
        sampling = {
            "max_tokens": n,
            "stop": stops.strings if self._lm.thinking is None else [],
            "stop_token_ids": sorted(stops.end_tokens),
        }

        def answer() -> list[Answer]:
            start = time.perf_counter()
            outputs = self._vllm.answer(prompts, draws, asked.seeds, **sampling)
            seconds = (time.perf_counter() - start) / len(prompts)
            answers = [stops.until_finished(output.outputs[0].token_ids) for output in outputs]
            return [stops.answer(tokens, seconds) for tokens in answers]

        return answer

    def images(self, asked: Asked) -> Part:
        """See ``Runner``; the live model answers."""
        return through_lm_eval(asked, self._lm)
