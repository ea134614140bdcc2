"""What is observed equals a plain loop over the examples in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from evomerge.evaluation.teacher_forcing import Reading
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.writer import TensorForm
from evomerge.observation.blocks import blocks, in_blocks, largest_block
from evomerge.observation.kinds import OBSERVATIONS
from evomerge.observation.observer import Observer
from evomerge.observation.routers import routing
from tests.architectures import tiny_model

READINGS = (
    Reading((3, 4, 5), (6, 7)),
    Reading((9,), (10,)),
    Reading((2, 12, 11, 8, 3), (17, 4, 21)),
)


def observed_model(
    family: str, folder: Path, dtype: torch.dtype = torch.float64
) -> tuple[PreTrainedModel, Observer]:
    model = tiny_model(family, folder, seed=1, dtype=torch.float32).to(dtype)
    names = Checkpoint(folder).names
    return model, Observer(model, names, READINGS, max_length=64, labels="gold")


def log_p(model: PreTrainedModel, reading: Reading) -> torch.Tensor:
    """(answer tokens, vocabulary)."""
    tokens = torch.tensor([[*reading.context, *reading.continuation]])
    return model(tokens).logits[0, len(reading.context) - 1 : -1].log_softmax(-1)


def gold(model: PreTrainedModel, reading: Reading) -> torch.Tensor:
    return log_p(model, reading).gather(1, torch.tensor(reading.continuation)[:, None]).sum()


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2"])
def test_fisher_is_the_mean_of_squared_gradients_of_single_examples(
    family: str, tmp_path: Path
) -> None:
    model, observer = observed_model(family, tmp_path)
    found = OBSERVATIONS["fisher"].observe(observer, list(observer.views))
    named = dict(model.named_parameters())
    for name, view in observer.views.items():
        wanted = [
            torch.autograd.grad(gold(model, r), named[view.parameter])[0].square() for r in READINGS
        ]
        torch.testing.assert_close(found[name], torch.stack(wanted).mean(0), rtol=1e-9, atol=1e-14)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_fisher_of_parts_of_a_fused_parameter_are_those_parts(tmp_path: Path) -> None:
    model, observer = observed_model("mixtral", tmp_path, torch.float32)
    name = "model.layers.1.block_sparse_moe.experts.2.w1.weight"
    name = name if name in observer.views else next(n for n in observer.views if "experts.2" in n)
    found = OBSERVATIONS["fisher"].observe(observer, [name])[name]
    view = observer.views[name]
    parameter = dict(model.named_parameters())[view.parameter]
    wanted = torch.stack(
        [torch.autograd.grad(gold(model, r), parameter)[0].square() for r in READINGS]
    ).mean(0)
    assert view.tensor.numel() < parameter.numel()
    offset = view.tensor.storage_offset() - parameter.storage_offset()
    part = wanted.as_strided(view.tensor.shape, view.tensor.stride(), offset)
    assert part.any()
    torch.testing.assert_close(found, part)


def test_fisher_of_sampled_labels_is_on_average_that_of_the_predictions(tmp_path: Path) -> None:
    """With one token as answer, the exact Fisher is a sum over all labels."""
    model, _ = observed_model("llama", tmp_path)
    reading = Reading((3, 4, 5), (6,))
    name, n = "model.norm.weight", 1000
    observer = Observer(model, Checkpoint(tmp_path).names, (reading,) * n, 64, "sampled")
    found = OBSERVATIONS["fisher"].observe(observer, [name])[name]
    predicted = log_p(model, reading)[0]
    parameter = dict(model.named_parameters())[name]
    gradients = torch.stack(
        [torch.autograd.grad(one, parameter, retain_graph=True)[0] for one in predicted]
    )
    wanted = (predicted.exp()[:, None] * gradients.square()).sum(0).detach()
    error = (wanted * 0 + (predicted.exp()[:, None] * gradients**4).sum(0) - wanted**2).sqrt()
    assert ((found - wanted).abs() < 5 * error / n**0.5).all()
    assert ((found - gradients[6].square()).abs() > 5 * error / n**0.5).any()


def recorded_inputs(model: PreTrainedModel, layer: nn.Module) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0][0].detach()))
    for reading in READINGS:
        model(torch.tensor([[*reading.context, *reading.continuation[:-1]]]))
    handle.remove()
    return seen


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen3_moe"])
def test_input_grams_and_moments_are_those_of_all_tokens(family: str, tmp_path: Path) -> None:
    dtype = torch.float32 if "moe" in family else torch.float64
    model, observer = observed_model(family, tmp_path, dtype)
    grams = OBSERVATIONS["input_gram"].observe(observer, list(observer.layers))
    moments = OBSERVATIONS["input_moments"].observe(observer, list(observer.layers))
    assert len(grams) >= 7
    for name, layer in observer.layers.items():
        x = torch.cat(recorded_inputs(model, layer))
        assert len(x) == 4 + 1 + 7
        torch.testing.assert_close(grams[name], x.T @ x / len(x))
        wanted = torch.stack([x.mean(0), x.square().mean(0).sqrt()])
        torch.testing.assert_close(moments[name], wanted)


def test_gradient_grams_are_those_of_all_tokens(tmp_path: Path) -> None:
    model, observer = observed_model("llama", tmp_path)
    names = list(OBSERVATIONS["gradient_gram"].forms(model, observer.names))
    assert names == [name for name in observer.layers if name != "lm_head.weight"]
    found = OBSERVATIONS["gradient_gram"].observe(observer, names)
    seen: list[torch.Tensor] = []
    for name in names:
        handle = observer.layers[name].register_forward_hook(lambda m, i, out: seen.append(out))
        rows = []
        for reading in READINGS:
            seen.clear()
            likelihood = gold(model, reading)  # reads the last token, too, which changes nothing
            rows.append(torch.autograd.grad(likelihood, seen[0])[0][0, :-1])
        handle.remove()
        g = torch.cat(rows)
        torch.testing.assert_close(found[name], g.T @ g / len(g), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_router_usage_counts_tokens_by_expert(family: str, tmp_path: Path) -> None:
    model, observer = observed_model(family, tmp_path, torch.float32)
    (form,) = OBSERVATIONS["router_usage"].forms(model, observer.names).values()
    (found,) = OBSERVATIONS["router_usage"].observe(observer, ["routers"]).values()
    wanted = torch.zeros(3, 3)
    for reading in READINGS:
        tokens = torch.tensor([[*reading.context, *reading.continuation[:-1]]])
        for layer, scores in enumerate(model(tokens, output_router_logits=True).router_logits):
            for token in scores:
                for expert in token.argsort(descending=True)[:2]:
                    wanted[layer, expert] += 1
    assert form.shape == found.shape
    assert torch.equal(found, wanted)
    assert OBSERVATIONS["router_usage"].forms(tiny_model("llama", tmp_path, 0), ["a"]) == {}


def test_experts_are_alike_by_the_cosine_of_what_the_router_scores_them(tmp_path: Path) -> None:
    model, observer = observed_model("qwen3_moe", tmp_path, torch.float32)
    found = routing(observer).likeness
    tokens = [torch.tensor([[*r.context, *r.continuation[:-1]]]) for r in READINGS]
    with torch.no_grad():
        read = [model(t, output_router_logits=True).router_logits for t in tokens]
    for layer, alike in enumerate(found):
        scores = torch.cat([own[layer] for own in read])
        for i, j in ((0, 1), (2, 0), (1, 1)):
            wanted = nn.functional.cosine_similarity(scores[:, i], scores[:, j], 0)
            torch.testing.assert_close(alike[i, j], wanted)


def test_layers_stored_the_other_way_round_and_tied_heads_have_no_gram(tmp_path: Path) -> None:
    for family, wanted in {"gpt2": 0, "llama_tied": 21, "llama": 22}.items():
        _, observer = observed_model(family, tmp_path / family)
        assert len(observer.layers) == wanted
        assert not any("embed" in name for name in observer.layers)


def test_blocks_bound_memory_and_change_nothing(tmp_path: Path) -> None:
    model, observer = observed_model("llama", tmp_path, torch.float32)
    kind = OBSERVATIONS["input_gram"]
    forms = kind.forms(model, observer.names)
    whole = kind.observe(observer, list(forms))
    passes: list[tuple[int, int]] = []
    tensor_of = in_blocks(
        lambda: observer, kind, forms, n_bytes=4000, progress=lambda *done: passes.append(done)
    )
    assert all(torch.equal(tensor_of(name), whole[name]) for name in sorted(whole))
    assert len(passes) == passes[-1][1] == len(list(blocks(forms, 4000))) > 3
    assert largest_block(forms, 4000) == 40 * 40 * 4  # one that is alone


def test_blocks_keep_all_names_once() -> None:
    sizes = {"d": 1, "b": 2, "c": 3, "a": 9}
    forms = {name: TensorForm(torch.float32, (size,)) for name, size in sizes.items()}
    assert list(blocks(forms, 20)) == [("a",), ("b", "c"), ("d",)]
