from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters

from contract.events import EvaluationEvent, MetricEvent
from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from tests.trainer.adapters import load, loss_and_gradients, some_rows
from tests.trainer.trainer_process import Outcome, at_once
from trainer.data.examples import load_data
from trainer.data.packing import pack
from trainer.failures import failure_from
from trainer.model.compiling import compile_layers
from trainer.model.trained_model import TrainedModel
from trainer.stop import Stop

# torch's own, as it imports its compiler; and what it hides from everyone whose warnings are no errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


@pytest.fixture(autouse=True)
def nothing_is_compiled_yet() -> None:
    torch.compiler.reset()
    counters.clear()


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one test for the next: headers take longer to compile than layers."""
    return tmp_path_factory.mktemp("compiled")


def with_adapter(recipe: dict[str, Any], folder: Path, adapter: dict[str, Any]) -> TrainedModel:
    """One that changes something."""
    module = load(recipe, folder, adapter)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return module


def check_alike(ours: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert ours[0] == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(ours[1], expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        ("llama", {"rslora": True}),
        ("gpt2 with dropout", {}),
        ("gemma", {"dora": True}),
        ("mistral", {"target_modules": ["q_proj", "down_proj"]}),
        ("qwen2", {"bias": "all"}),
        ("qwen3", {}),
    ],
)
def test_compiled_layers_have_equal_loss_and_gradients(
    kind: str, adapter: dict[str, Any], make_model: Callable[[str], Path], recipe: dict[str, Any], kept: Path
) -> None:
    module, rows = with_adapter(recipe, make_model(kind), adapter).eval(), some_rows(recipe)
    expected = loss_and_gradients(module, rows)
    compile_layers(module.model.get_base_model(), module.packed, kept)
    check_alike(loss_and_gradients(module, rows), expected)
    files = [path.read_bytes() for path in kept.rglob("*") if path.is_file()]
    assert files
    assert not any(content.startswith(b"\x80") for content in files), "a pickle, of a protocol since 2"


@pytest.mark.exhaustive
def test_layers_and_rows_share_one_compilation(
    make_model: Callable[[str], Path], recipe: dict[str, Any], kept: Path
) -> None:
    """Traced and differentiated as always; then the graphs run as they are, for C++ takes a minute to compile."""
    module, rows = with_adapter(recipe, make_model("llama of 4 layers"), {}), some_rows(recipe)
    expected = loss_and_gradients(module, rows)
    compile_layers(module.model.get_base_model(), module.packed, kept)
    with torch.compiler.set_stance("default", force_backend="aot_eager"):
        check_alike(loss_and_gradients(module, rows), expected)
        # A layer's, and its attention's: each up to where the documents are attended to, and from there on.
        assert counters["stats"]["unique_graphs"] == 4
        for document in load_data(Recipe.model_validate(recipe), kept).train[:2]:
            loss_and_gradients(module, pack([document]))
        module.generate([5, 6, 7], 3, [], Stop())
    assert counters["stats"]["unique_graphs"] == 4


@pytest.mark.exhaustive
@pytest.mark.parametrize("ranks", [1, 2])
def test_compiled_run_has_equal_losses(
    ranks: int, recipe: dict[str, Any], make_model: Callable[[str], Path], run_trainer: Callable[..., Outcome]
) -> None:
    recipe |= {"model": str(make_model("llama of 4 layers")), "evaluation": {"fraction": 0.25, "samples": 1}}
    plain, compiled = at_once(
        lambda: run_trainer(recipe, ranks=ranks, name="plain"),
        lambda: run_trainer(recipe | {"torch_compile": True}, ranks=ranks, name="compiled", timeout=600),
    )
    assert (plain.exit_code, compiled.exit_code) == (0, 0), compiled.output
    for kind, field in ((MetricEvent, "loss"), (EvaluationEvent, "eval_loss")):
        losses = [[getattr(e, field) for e in each.events if isinstance(e, kind)] for each in (plain, compiled)]
        assert losses[0]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_uncompilable_model_is_refused(
    make_model: Callable[[str], Path], recipe: dict[str, Any], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bloom = load(recipe, make_model("bloom"), {})
    with pytest.raises(InputError, match="of this bloom"):
        compile_layers(bloom.model.get_base_model(), bloom.packed, kept)
    monkeypatch.setenv("CXX", "no-such-compiler")
    llama = load(recipe, make_model("llama"), {})
    with pytest.raises(InputError, match="no C\\+\\+ compiler") as caught:
        compile_layers(llama.model.get_base_model(), llama.packed, kept)
    assert caught.value.failure.param == "torch_compile"


def test_failing_compiler_is_reported_by_its_field() -> None:
    error = BackendCompilerFailed("inductor", RuntimeError("g++: no room"), None)
    failure = failure_from(error)
    assert (failure.code, failure.param) == (FailureCode.RECIPE_INVALID, "torch_compile")
