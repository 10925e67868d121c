"""Real vLLM, where a GPU and its command `vllm` are: answers and losses near those of plain PEFT in fp32."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dataset.document import Document
from inference.scoring import Scoring
from tests.inference.running_loop import logprobs_of, plain_loss
from tests.inference.running_vllm import RunningVllm, running_vllm

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def base(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With heads of a size that vLLM's kernels have."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def real_vllm(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVllm]:
    options = ("--enforce-eager", "--gpu-memory-utilization", "0.3")
    with running_vllm(base, tmp_path_factory.mktemp("server"), *options, command=["vllm"]) as running:
        yield running


def test_real_vllm_answers_and_scores(real_vllm: RunningVllm, base: Path, make_adapter: Callable[..., Path]) -> None:
    adapter = make_adapter(base, 1, r=4, target_modules="all-linear", use_rslora=True)
    ids = torch.randint(3, 300, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    document = Document(ids, [index > 10 for index in range(60)])
    for each in (None, adapter):
        found = real_vllm.answer("Say hello.", each, n=2, logprobs=2, max_tokens=6)
        assert len(logprobs_of(found)) == len(logprobs_of(found, 1)) > 0
        scoring = Scoring(document, each)
        real_vllm.engine.score(scoring)
        assert scoring.result.get(timeout=60) == pytest.approx(plain_loss(base, each, document), rel=0.02)
