"""LoRA on routed experts, beside PEFT's own forward pass: `python -m benchmarks.experts`.

A random Qwen3-MoE with 32 experts in fp32 takes optimizer steps on one document of --tokens tokens: with this trainer's
grouped products, and with the forward pass of PEFT's target_parameters in the same trainer, which is all that differs.
Each way runs in a process of its own, in turn with the other. Memory is the peak beyond the loaded model, which both
have. The losses of all steps must agree. Seconds are those of the clock, and of the processor, which other work on the
machine hardly changes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = ("ours", "peft")
ROUNDS = 3
STEPS = 6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experts", description="LoRA on experts, beside PEFT's.")
    parser.add_argument("--short", action="store_true", help="a small model, once each way")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of a step")
    parser.add_argument("--way", nargs=2, metavar=("WAY", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        way, model = options.way
        print(json.dumps(take_steps(way, Path(model), options.tokens)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        save_model(Path(scratch), *((2, 128, 64) if options.short else (4, 512, 192)))
        rounds = [
            {way: run(way, Path(scratch), options.tokens) for way in WAYS}
            for _ in range(1 if options.short else ROUNDS)
        ]
    report(rounds, options.tokens)


def save_model(folder: Path, layers: int, hidden: int, intermediate: int) -> None:
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=4096,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        moe_intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        num_experts=32,
        num_experts_per_tok=4,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(folder)


def run(way: str, model: Path, tokens: int) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "benchmarks.experts", "--way", way, str(model), "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def take_steps(way: str, model: Path, tokens: int) -> dict[str, list[float]]:
    """Seconds and losses of each step, and the peak of its memory in bytes."""
    import torch
    from peft.tuners.lora.layer import ParamWrapper

    from contract.recipe import Recipe
    from dataset.document import Document
    from trainer.data.packing import pack
    from trainer.engines.optim import make_optimizer
    from trainer.model.base_model import load_model
    from trainer.model.expert_lora import FusedExperts

    torch.manual_seed(0)
    recipe = Recipe.model_validate({"model": str(model), "dataset": "none", "adapter": {"experts": True}})
    module = load_model(recipe, torch.float32, torch.device("cpu")).train()
    if way == "peft":
        for each in [part for part in module.modules() if isinstance(part, FusedExperts)]:
            each.__class__ = ParamWrapper
    ids = torch.randint(3, 4096, (tokens + 1,)).tolist()
    batch = pack([Document(ids, [False] + [True] * tokens)])
    optimizer = make_optimizer(module.parameters(), recipe.optimizer)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of loading
    loaded = _kilobytes("VmRSS")
    seconds, processor, losses = [], [], []
    for _ in range(STEPS):
        began, taken = time.perf_counter(), time.process_time()
        loss = module(batch)[0] / tokens
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - taken)
        losses.append(loss.item())
    memory = [1024 * (_kilobytes("VmHWM") - loaded)]
    return {"seconds": seconds[1:], "processor": processor[1:], "losses": losses, "memory": memory}


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def report(rounds: list[dict[str, dict[str, list[float]]]], tokens: int) -> None:
    print(f"a step of {tokens} tokens; median of {len(rounds)} runs (range)")
    seconds = {way: sorted(statistics.median(each[way]["seconds"]) for each in rounds) for way in WAYS}
    processor = {way: sorted(statistics.median(each[way]["processor"]) for each in rounds) for way in WAYS}
    memory = {way: sorted(each[way]["memory"][0] / 2**20 for each in rounds) for way in WAYS}
    for name, unit, found in (
        ("seconds", ".3f", seconds),
        ("of the CPU", ".3f", processor),
        ("MiB beyond the model", ".0f", memory),
    ):
        for way in WAYS:
            values = found[way]
            print(
                f"    {name:22} {way:6} {statistics.median(values):{unit}}  ({values[0]:{unit}} to {values[-1]:{unit}})"
            )
        print(
            f"    {'ours / peft':22}        {statistics.median(found['ours']) / statistics.median(found['peft']):.2f}"
        )
    farthest = max(
        abs(one - other) / other
        for each in rounds
        for one, other in zip(each["ours"]["losses"], each["peft"]["losses"], strict=True)
    )
    print(f"    losses differ by at most {farthest:.1e}")
    if farthest > 1e-4:
        sys.exit("the losses differ")


if __name__ == "__main__":
    main()
