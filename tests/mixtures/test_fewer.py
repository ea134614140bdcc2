"""Merged experts of a mixture: the published formulas in float64, and what has to stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM, PreTrainedModel
from typer.testing import CliRunner

from evomerge.api.shrinking import fewer_experts
from evomerge.cli.main import app
from evomerge.errors import EvomergeError
from evomerge.mixtures.groups import expert_groups
from evomerge.models.checkpoint import Checkpoint
from tests.architectures import tiny_model
from tests.tiny import WORDS, save_tiny_llama

PROMPTS = ("w1 w2 w3 w4 w19 w7", "w9 w3 w20", "w7 w11 w12 w28 w4 w3", "w13 w21 w22 w5")
TOKENS = torch.tensor([[3, 9, 4, 11, 5, 7, 21, 8, 30, 12]])
_SIZES = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 5},
    "olmoe": {"num_experts": 5, **_SIZES},
    "qwen2_moe": {"num_experts": 5, "shared_expert_intermediate_size": 12, **_SIZES},
    "qwen3_moe": {"num_experts": 5, "mlp_only_layers": [1], **_SIZES},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of each family in float32, and prompts."""
    root = tmp_path_factory.mktemp("fewer")
    for family, settings in FAMILIES.items():
        tiny_model(family, root / family, 1, torch.float32, **settings)
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    return root


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    both: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=dtype)
    model: PreTrainedModel = both[0].eval()
    assert not any(both[1].values()), both[1]
    return model


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loaded(folder)(TOKENS).logits
    return found


def published(folder: Path, n: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Merge experts as the paper says: what replaces tensors of the model, and what was done."""
    model = loaded(folder)
    # As for its likelihood: after the end of another text, and nothing follows the last word.
    texts = [[WORDS.index(word) for word in ("<eos>", *text.split()[:-1])] for text in PROMPTS]
    with torch.no_grad():
        read = [model(torch.tensor([t]), output_router_logits=True).router_logits for t in texts]
    model = model.double()  # which fused experts do not run in
    layers = [i for i, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "experts")]
    replaced, done = {}, []
    for position, layer in enumerate(layers):
        scores = torch.cat([own[position] for own in read]).double()  # (tokens, experts)
        usage = [0] * scores.shape[1]
        for token in scores:
            for expert in token.argsort(descending=True)[:2]:
                usage[expert] += 1
        by_usage = sorted(range(len(usage)), key=lambda i: -usage[i])
        groups: dict[int, list[int]] = {one: [one] for one in by_usage[:n]}
        for other in by_usage[n:]:
            alike = {one: cosine_similarity(scores[:, other], scores[:, one], 0) for one in groups}
            groups[max(alike, key=lambda one: float(alike[one]))].append(other)
        mlp = model.model.layers[layer].mlp
        both, down = mlp.experts.gate_up_proj.detach(), mlp.experts.down_proj.detach()
        width = down.shape[-1]
        merged_both, merged_down = [], []
        for one in sorted(groups):
            total = sum(usage[i] for i in groups[one])
            sums = torch.zeros_like(both[0]), torch.zeros_like(down[0])
            for i in groups[one]:
                gate, up = both[i].split(width)
                own_gate, own_up = both[one].split(width)
                inner = own_gate @ gate.T + own_up @ up.T + down[one].T @ down[i]
                order = linear_sum_assignment(inner.numpy(), maximize=True)[1]
                share = usage[i] / total
                sums[0].add_(share * torch.cat([gate[order], up[order]]))
                sums[1].add_(share * down[i][:, order])
                if 0 < share < 1 and list(order) != list(range(width)):
                    done.append(f"{i} into {one} of layer {layer}")
            merged_both.append(sums[0])
            merged_down.append(sums[1])
        at = f"model.layers.{layer}.mlp."
        replaced[f"{at}gate.weight"] = mlp.gate.weight.detach()[sorted(groups)]
        replaced[f"{at}experts.gate_up_proj"] = torch.stack(merged_both)
        replaced[f"{at}experts.down_proj"] = torch.stack(merged_down)
    return replaced, done


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_are_grouped_aligned_and_averaged_as_published(
    family: str, root: Path, tmp_path: Path
) -> None:
    original = loaded(root / family, torch.float64)
    replaced, done = published(root / family, 2)
    written = fewer_experts(
        str(root / family), tmp_path / "out", experts=2, prompts=root / "prompts.txt"
    )
    assert len(done) >= 3, "experts that count and whose neurons move"
    found = loaded(tmp_path / "out", torch.float64)
    assert (found.config.num_local_experts, found.config.num_experts_per_tok) == (2, 2)
    for name, tensor in found.state_dict().items():
        wanted = replaced.pop(name, None)
        if wanted is None:
            assert torch.equal(tensor, original.state_dict()[name])
        else:
            torch.testing.assert_close(tensor, wanted, rtol=1e-5, atol=1e-6)
    assert not replaced
    assert written.n_before == sum(p.numel() for p in original.parameters())
    assert written.n_parameters == sum(p.numel() for p in found.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_with_all_experts_kept_it_is_the_same_model(
    family: str, root: Path, tmp_path: Path
) -> None:
    prompts = root / "prompts.txt"
    same = fewer_experts(str(root / family), tmp_path / "out", experts=5, prompts=prompts)
    assert not same.is_louder
    assert torch.equal(logits(tmp_path / "out"), logits(root / family))
    fewer = fewer_experts(str(root / family), tmp_path / "three", experts=3, prompts=prompts)
    assert fewer.is_louder == (family != "mixtral")
    assert not torch.allclose(logits(tmp_path / "three"), logits(root / family), atol=1e-3)


def test_experts_alike_but_for_the_order_of_neurons_merge_without_change(
    root: Path, tmp_path: Path
) -> None:
    """Routers differ, and the chosen experts' weights add up to 1."""
    model = loaded(root / "mixtral")
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            both, down = layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj
            for i in range(1, 5):
                order = torch.randperm(40, generator=draws)
                both[i] = both[0].view(2, 40, 16)[:, order].reshape(80, 16)
                down[i] = down[0][:, order]
    model.save_pretrained(tmp_path / "alike")
    for file in (root / "mixtral").glob("tokenizer*"):
        (tmp_path / "alike" / file.name).write_bytes(file.read_bytes())
    written = fewer_experts(
        str(tmp_path / "alike"), tmp_path / "out", experts=2, prompts=root / "prompts.txt"
    )
    assert any(0 < s < 1 for own in written.groups for g in own for s in g.shares.values())
    torch.testing.assert_close(
        logits(tmp_path / "out"), logits(tmp_path / "alike"), rtol=1e-4, atol=1e-5
    )


def test_experts_that_are_fused_in_the_files_stay_so(root: Path, tmp_path: Path) -> None:
    fused, one_by_one = tmp_path / "fused", root / "qwen3_moe"
    fused.mkdir()
    for file in one_by_one.glob("*.json"):
        (fused / file.name).write_bytes(file.read_bytes())
    state = loaded(one_by_one).state_dict()
    save_file({name: t.contiguous() for name, t in state.items()}, fused / "model.safetensors")
    for folder, out in ((fused, "a"), (one_by_one, "b")):
        fewer_experts(str(folder), tmp_path / out, experts=3, prompts=root / "prompts.txt")
    stored = Checkpoint(tmp_path / "a")
    assert stored.shape("model.layers.2.mlp.experts.down_proj") == (3, 16, 8)
    a, b = (loaded(tmp_path / out).state_dict() for out in "ab")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_most_used_are_dominant_and_others_join_their_like() -> None:
    likeness = torch.eye(5)
    likeness[0, 3], likeness[0, 1] = 0.2, 0.5
    likeness[2, 4], likeness[2, 3], likeness[2, 1] = 0.9, -0.5, -0.1  # 4 is not dominant
    groups = expert_groups(torch.tensor([1.0, 6.0, 2.0, 3.0, 0.0]), likeness, 2)
    assert [(g.dominant, g.shares) for g in groups] == [
        (1, {0: 1 / 9, 1: 6 / 9, 2: 2 / 9, 4: 0.0}),
        (3, {3: 1.0}),
    ]
    (unused,) = expert_groups(torch.zeros(2), torch.eye(2), 1)
    assert unused.shares == {0: 1.0, 1: 0.0}


def test_the_command_says_what_is_left_and_the_file_what_was_merged(
    root: Path, tmp_path: Path
) -> None:
    given = [str(root / "mixtral"), "--experts", "3", "--prompts", str(root / "prompts.txt")]
    done = CliRunner().invoke(app, ["fewer-experts", *given, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "3 experts in 3 layers" in done.stdout
    assert "norm_topk_prob" not in done.stdout
    text = (tmp_path / "out" / "recipe.yaml").read_text()
    assert text.count("dominant:") == 9
    assert str(root) not in text


@pytest.mark.parametrize(
    ("model", "experts", "wanted"),
    [
        ("llama", 2, "model: expected a mixture of experts of type mixtral, olmoe, qwen2_moe"),
        ("mixtral", 1, "experts: expected from 2, to which each token is sent, to the 5 that"),
        ("mixtral", 6, "experts: expected from 2, to which each token is sent, to the 5 that"),
        ("nowhere", 2, "model: "),
    ],
)
def test_faults_are_told_before_a_model_is_loaded(
    model: str, experts: int, wanted: str, root: Path, tmp_path: Path
) -> None:
    if model == "llama":
        save_tiny_llama(root / "llama", seed=0)
    with pytest.raises(EvomergeError) as error:
        fewer_experts(
            str(root / model), tmp_path / "out", experts=experts, prompts=tmp_path / "gone.txt"
        )
    prompts, other = error.value.faults
    assert str(prompts).startswith("prompts: expected a file of prompts at")
    assert str(other).startswith(wanted)
    assert not (tmp_path / "out").exists()
