"""What a suite says of chat templates and reasoning must fit the tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from evomerge.errors import EvaluationError, Fault
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.reasoning import Tags, unwritable
from evomerge.evaluation.suite import Suite

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["require_chat"]

_OF_PROMPTS = ("messages", "add_generation_prompt")  # arguments that tasks give


def require_chat(model: LanguageModel, suite: Suite) -> None:
    """Refuse what a tokenizer has no use for: nothing is left out silently.

    Raises:
        EvaluationError: There is no chat template, it does not read an argument, or a tag of
            reasoning cannot be said.
    """
    tokenizer = model.lm.tokenizer
    faults = [*_argument_faults(tokenizer, suite)] if suite.apply_chat_template else []
    if suite.reasoning not in ("auto", "keep"):
        for tag in unwritable(tokenizer, Tags(*suite.reasoning)):
            text = f"expected tags that {tokenizer.name_or_path} has tokens for, got {tag!r}"
            faults.append(Fault(("reasoning",), text))
    if faults:
        raise EvaluationError(*faults)


def _argument_faults(tokenizer: PreTrainedTokenizerBase, suite: Suite) -> Iterator[Fault]:
    try:
        template = str(tokenizer.get_chat_template())
    except ValueError:  # none at all, or several, none of them the default
        yield _without_template(tokenizer)
        return
    for name in suite.chat_template_args:
        if name in _OF_PROMPTS:
            text = f"expected other arguments than {name}, which comes from the task"
            yield Fault(("chat_template_args", name), text, "drop it")
        elif not re.search(rf"\b{re.escape(name)}\b", template):
            text = f"expected an argument that the chat template of {tokenizer.name_or_path} reads"
            yield Fault(("chat_template_args", name), f"{text}, got {name!r}", "drop it")


def _without_template(tokenizer: PreTrainedTokenizerBase) -> Fault:
    named = ", ".join(tokenizer.chat_template or ())
    text = (
        f"expected a chat template in the tokenizer of {tokenizer.name_or_path}, found "
        f"{f'only {named}' if named else 'none'}"
    )
    hint = "set it to false, or add a chat_template.jinja to a copy of that model's folder"
    return Fault(("apply_chat_template",), text, hint)
