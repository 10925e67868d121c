"""Models for images and text, of which the text part is trained: what is planned, trained, saved and merged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from contract.model.folder import loaded_base
from contract.model.model_types import IMAGE_TEXT_TYPES
from contract.model.target_modules import check_adapter
from contract.recipe import Recipe
from dataset.document import Document
from estimate.plan import adapted_base
from tests.support.files import write_tokenizer
from tests.trainer.adapters import losses_of
from tests.trainer.image_text_models import save_image_text
from trainer.data.packing import pack
from trainer.model.base_model import load_model
from trainer.tools.merge import merge

CPU = torch.device("cpu")
IDS = torch.arange(3, 23)[None]
TEXT_ONLY = {"llama4", "qwen3_5"}
"""Of which AutoModelForCausalLM loads the text part by itself."""
SOME = {"mistral3", "qwen3_5"}
KINDS = [
    pytest.param(kind, marks=() if kind in SOME else pytest.mark.exhaustive)
    for kind in sorted({"gemma3", *TEXT_ONLY, *IMAGE_TEXT_TYPES})
]


@pytest.fixture(scope="session")
def image_text(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            save_image_text(kind, made[kind])
            write_tokenizer(made[kind])
            (made[kind] / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
            (made[kind] / "preprocessor_config.json").write_text("{}")
        return made[kind]

    return make


def recipe(folder: Path, **adapter: Any) -> Recipe:
    shape = {} if "start_from" in adapter else {"r": 4}
    return Recipe.model_validate({"model": str(folder), "dataset": "none", "adapter": shape | adapter})


def plain(folder: Path, kind: str) -> Any:
    """As docs/models.md says that people load it."""
    auto = AutoModelForImageTextToText if kind in IMAGE_TEXT_TYPES else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_text_part_alone_has_the_adapter(kind: str, image_text: Callable[[str], Path], tmp_path: Path) -> None:
    folder = image_text(kind)
    given = recipe(folder)
    base = loaded_base(folder)
    targets = check_adapter(given.adapter, base.shapes, base.kind)
    assert targets.adapted
    assert not {part for name in targets.adapted for part in name.split(".")} & {"visual", "vision_tower", "connector"}

    torch.manual_seed(1)
    module = load_model(given, torch.float32, CPU).train()
    loaded = module.model.get_base_model()
    assert {
        name.partition(".lora_A")[0] for name, _ in loaded.named_parameters() if ".lora_A." in name
    } == targets.adapted
    plan = adapted_base(base, given.adapter, None)
    assert module.model.get_nb_trainable_parameters() == (plan.trained.parameters, plan.parameters)

    optimizer = torch.optim.AdamW([each for each in module.parameters() if each.requires_grad], lr=1e-2)
    ids = torch.randint(3, 99, (20,)).tolist()
    batch = pack([Document(ids, [place >= 3 for place in range(20)])])
    losses = losses_of(module, optimizer, batch, steps=3)
    assert losses[-1] < losses[0]

    module.take_one_by_one("to call the model itself")
    module.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    reloaded = PeftModel.from_pretrained(plain(folder, kind), tmp_path / "adapter")
    torch.testing.assert_close(logits(reloaded), logits(module.model), atol=1e-4, rtol=1e-4)

    merge(recipe(folder, start_from=str(tmp_path / "adapter")), tmp_path / "merged")
    merged = AutoModelForCausalLM if kind in TEXT_ONLY else AutoModelForImageTextToText
    found = logits(merged.from_pretrained(tmp_path / "merged", dtype=torch.float32))
    torch.testing.assert_close(found, logits(reloaded), atol=1e-3, rtol=1e-3)
    assert (tmp_path / "merged" / "preprocessor_config.json").is_file() == (kind not in TEXT_ONLY)


@pytest.mark.parametrize("kind", ["mistral3", pytest.param("qwen3_5", marks=pytest.mark.exhaustive)])
def test_quantised_model_for_images_and_text_is_read(
    kind: str, image_text: Callable[[str], Path], tmp_path: Path
) -> None:
    """In FP8 with one scale for each matrix, as Mistral's own models are."""
    folder = image_text(kind)
    weights = load_file(folder / "model.safetensors")
    stored = dict(weights)
    for name, weight in weights.items():
        if name.endswith("proj.weight") and "language_model" in name:
            stored[name] = weight.to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = torch.tensor(1.0)
            stored[f"{name.removesuffix('.weight')}.activation_scale"] = torch.tensor(1.0)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = (tmp_path / "config.json").read_text()
    settings = '{"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}, '
    (tmp_path / "config.json").write_text(settings + config.lstrip()[1:])
    assert loaded_base(tmp_path).shapes == loaded_base(folder).shapes
    module = load_model(recipe(tmp_path), torch.float32, CPU)
    module.take_one_by_one("to call the model itself")
    found = logits(module.model)
    torch.testing.assert_close(found, logits(plain(folder, kind)), atol=0.1, rtol=0.1)
