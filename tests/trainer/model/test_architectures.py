"""POST, plan, trainer, plain PEFT, merge and start_from have the same adapter, for every architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import transformers_weight_conversion
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from contract.model.earlier_adapter import check_earlier_adapter
from contract.model.folder import loaded_base
from contract.model.stacked_experts import expert_parameters
from contract.model.target_modules import TAKEN_NAMES, check_adapter
from contract.model.trained_modules import trained_modules
from contract.recipe import Recipe
from dataset.document import Document
from estimate.plan import adapted_base
from tests.support.files import write_tokenizer
from tests.trainer.architectures import KINDS, MIXTURES, VOCABULARY, save_architecture, skeleton
from trainer.data.packing import pack
from trainer.model.base_model import load_model
from trainer.model.trained_model import TrainedModel
from trainer.tools.merge import merge

CPU = torch.device("cpu")
SOME = {
    "deepseek_v3",
    "falcon_mamba",
    "gemma3",
    "gpt_oss",
    "granitemoe",
    "llama4_text",
    "mixtral",
    "nemotron_h",
    "phimoe",
    "qwen2_moe",
    "qwen3_moe",
}
ALL = [pytest.param(kind, marks=() if kind in SOME else pytest.mark.exhaustive) for kind in KINDS]
WITH_EXPERTS = {"gpt_oss", "llama4_text", "nemotron_h", "qwen3_moe"}
ADAPTED = [
    *(pytest.param(kind, {}, marks=() if kind in SOME else pytest.mark.exhaustive, id=kind) for kind in KINDS),
    *(
        pytest.param(
            kind,
            {"experts": True},
            marks=() if kind in WITH_EXPERTS else pytest.mark.exhaustive,
            id=f"{kind} with experts",
        )
        for kind in MIXTURES
    ),
]
IDS = torch.arange(3, 23)[None]


@pytest.fixture(scope="session")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            save_architecture(kind, made[kind])
            write_tokenizer(made[kind])
            # Not the architecture's own, which reads other files.
            (made[kind] / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        return made[kind]

    return make


def recipe(folder: Path, **adapter: Any) -> Recipe:
    shape = {} if "start_from" in adapter else {"r": 4}
    return Recipe.model_validate({"model": str(folder), "dataset": "none", "adapter": shape | adapter})


def trained(given: Recipe) -> TrainedModel:
    """By one step."""
    torch.manual_seed(1)
    module = load_model(given, torch.float32, CPU)
    optimizer = torch.optim.AdamW([each for each in module.parameters() if each.requires_grad], lr=1e-2)
    module.train()
    ids = torch.randint(3, VOCABULARY, (20,)).tolist()
    module(pack([Document(ids, [place >= 3 for place in range(20)])]))[0].backward()
    optimizer.step()
    return module.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS, use_cache=False).logits


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


# PEFT says so of a model whose head is loaded apart from its embeddings.
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")
@pytest.mark.parametrize(("kind", "adapter"), ADAPTED)
def test_architecture_has_one_adapter_everywhere(
    kind: str, adapter: dict[str, Any], architecture: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = architecture(kind)
    given = recipe(folder, **adapter)
    base = loaded_base(folder)
    targets = check_adapter(given.adapter, base.shapes, base.kind)
    plan = adapted_base(loaded_base(folder), given.adapter, None)

    module = trained(given)
    of_trainer = {name.partition(".lora_A")[0] for name, _ in module.model.named_parameters() if ".lora_A." in name}
    stacked = ("input_linear", "output_linear") if kind == "jetmoe" else ()
    experts = {name for name in of_trainer if adapter and (".experts" in name or name.endswith(stacked))}
    assert {name.removeprefix("base_model.model.") for name in of_trainer - experts} == targets.adapted
    assert len(experts) == len(targets.experts)
    assert bool(experts) == bool(adapter)
    sizes = {name: sum(of_module) for name, of_module in plan.trained.tensors.items()}
    listed = trained_modules(sizes, base.shapes)
    assert [each.model_copy(update={"fraction": 0}) for each in module.model.trained] == [
        each.model_copy(update={"fraction": 0}) for each in listed
    ]
    # A plan does not count tables that some architectures keep beside their weights, which are large in small models.
    assert [each.fraction for each in module.model.trained] == pytest.approx(
        [each.fraction for each in listed], rel=0.1
    )
    assert module.model.get_nb_trainable_parameters()[0] == plan.trained.parameters

    module.take_one_by_one("our attention needs documents")
    module.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    reloaded = logits(PeftModel.from_pretrained(plain(folder), tmp_path / "adapter"))
    torch.testing.assert_close(logits(module.model), reloaded, atol=1e-4, rtol=1e-4)
    assert (reloaded - logits(plain(folder))).abs().max() > 1e-3

    goes_on = recipe(folder, start_from=str(tmp_path / "adapter"))
    merge(goes_on, tmp_path / "merged")
    torch.testing.assert_close(logits(plain(tmp_path / "merged")), reloaded, atol=1e-3, rtol=1e-3)
    continued = trained(goes_on).model
    planned = adapted_base(loaded_base(folder), goes_on.adapter, tmp_path / "adapter")
    assert continued.get_nb_trainable_parameters()[0] == planned.trained.parameters == plan.trained.parameters
    assert continued.trained == module.model.trained
    assert {name: sum(of_module) for name, of_module in planned.trained.tensors.items()} == sizes


@pytest.mark.parametrize("kind", ALL)
def test_every_linear_module_is_adapted_or_excused(kind: str, architecture: Callable[[str], Path]) -> None:
    model = skeleton(folder := architecture(kind))
    head = model.get_output_embeddings()
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
    base = loaded_base(folder)
    targets = check_adapter(recipe(folder).adapter, base.shapes, base.kind)
    assert targets.adapted == linear - targets.skipped.keys()


@pytest.mark.parametrize("kind", ALL)
def test_expert_parameters_are_known_by_files(kind: str, architecture: Callable[[str], Path]) -> None:
    folder = architecture(kind)
    loaded = {name: list(each.shape) for name, each in skeleton(folder).named_parameters()}
    read = loaded_base(folder).shapes
    found = {name: read[name] for name in expert_parameters(read)}
    assert found == {name: loaded[name] for name in expert_parameters(loaded)} or kind == "longcat_flash"
    assert bool(found) == (kind in MIXTURES or kind == "longcat_flash")


def test_expert_names_match_those_of_peft() -> None:
    patterns = transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN
    names = transformers_weight_conversion._MOE_TARGET_MODULE_MAPPING
    taken = {kind: names[patterns[kind]].keys() for kind in KINDS if patterns.get(kind) in names}
    assert taken == TAKEN_NAMES


# PEFT sets ranks and alphas for names that this kind lacks.
@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning")
@pytest.mark.parametrize("kind", ["mixtral", pytest.param("qwen3_moe", marks=pytest.mark.exhaustive)])
def test_adapter_of_routed_experts_is_merged_and_continued(
    kind: str, architecture: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, adapter = architecture(kind), tmp_path / "adapter"
    model = get_peft_model(plain(folder), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    model.save_pretrained(adapter, save_embedding_layers=False)
    assert any(".experts." in name for name in load_file(adapter / "adapter_model.safetensors"))
    goes_on = recipe(folder, start_from=str(adapter))
    check_earlier_adapter(adapter, loaded_base(folder).shapes, "mixture")
    merge(goes_on, tmp_path / "merged")
    torch.testing.assert_close(logits(plain(tmp_path / "merged")), logits(model), atol=1e-4, rtol=1e-4)
    assert trained(goes_on).model.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()


@pytest.mark.parametrize(
    ("kind", "targets", "written"),
    [
        ("llama", ["q_proj", "mlp.up_proj"], {"q_proj", "mlp.up_proj"}),
        ("llama", r".*layers\.0\..*_proj", r".*layers\.0\..*_proj"),
        (
            "llama",
            r".*layers\.0\.mlp\..*|.*layers\.0\.mlp",
            {f"model.layers.0.mlp.{n}_proj" for n in ("gate", "up", "down")},
        ),
        ("llama", "all-linear", None),
        ("gemma3", ["q_proj"], {f"model.language_model.layers.{n}.self_attn.q_proj" for n in range(2)}),
        ("qwen3_moe", r".*layers\.0\..*_proj", {f"model.layers.0.self_attn.{n}_proj" for n in "qkvo"}),
    ],
)
def test_adapter_config_keeps_recipe_names(
    kind: str, targets: Any, written: Any, architecture: Callable[[str], Path]
) -> None:
    folder = architecture(kind)
    config = load_model(recipe(folder, target_modules=targets), torch.float32, CPU).model.peft_config["default"]
    if written is None:
        plainly = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
        written = get_peft_model(plain(folder), plainly).peft_config["default"].target_modules
    assert config.target_modules == written
    assert not config.target_parameters
