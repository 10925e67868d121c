"""Our trainer, and what people would use instead, side by side: `python -m benchmarks.trainer --help`.

Makes the rivals' environments (.rivals) and the demo's model where they are missing, prepares the works, lets every arm
run each of them once a round, and writes runs.jsonl, table.md and speed.png into the folder --out. docs/speed.md says
what the figures mean.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.trainer import flops
from benchmarks.trainer.arms import ARMS, install, run_arm
from benchmarks.trainer.derived import operations_per_second
from benchmarks.trainer.models import RANDOM, SMALL_LLAMA, random_model
from benchmarks.trainer.plot import plot
from benchmarks.trainer.run import OURS, Run
from benchmarks.trainer.table import HEADER, MOST_APART, markdown, rows, spread
from benchmarks.trainer.work import (
    HELD_OUT,
    ROOT,
    Shape,
    Work,
    full_length_rows,
    half_padded_rows,
    prepare,
    threads,
)
from finetuned.stack.models import add_model
from trainer.device import describe, this_device
from trainer.precision import has_native_bf16

MODEL = "smollm2-135m-instruct"
REGIMES = ("half-padded", "full-length")
LONGEST_CONVERSATION = 1024
"""Tokens, in the half-padded work: none of its documents is cut."""


def main() -> None:
    options = read_options()
    out: Path = options.out.resolve()
    out.mkdir(parents=True)
    install(options.arms)
    print(machine(), flush=True)
    report_text, runs = [], []
    for work in works(options, out):
        done = measure(work, options, out / "runs" / work.folder.name)
        runs += done
        report_text.append(report(work, done))
        print(report_text[-1], flush=True)
        (out / "table.md").write_text("\n\n".join([machine(), *report_text]) + "\n")
        write_runs(out / "runs.jsonl", runs)
    plot(runs, out / "speed.png")
    print(f"\n{out / 'table.md'}, {out / 'speed.png'}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.trainer", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("trainer-benchmark"), help="a new folder (%(default)s)")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=arms_here(), help="all that run here, where not given"
    )
    parser.add_argument("--regimes", nargs="*", choices=REGIMES, default=REGIMES, help="both, where not given")
    parser.add_argument("--lengths", nargs="*", type=int, default=[], help="of text, on a small random llama")
    parser.add_argument("--vocabularies", nargs="*", type=int, default=[], help="of small random llamas: 49152 152064")
    parser.add_argument(
        "--ranks", nargs="+", type=int, default=[1], help="each work on so many processes (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of each run (%(default)s)")
    parser.add_argument("--warmup", type=int, default=2, help="of these, left out of the rates (%(default)s)")
    parser.add_argument("--documents", type=int, default=8, help="of an optimizer step (%(default)s)")
    parser.add_argument(
        "--micro-batch", type=int, help="documents at once on a rank; all of its step's, where not given"
    )
    parser.add_argument(
        "--length", type=int, default=512, help="tokens of a document of full-length text (%(default)s)"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="(%(default)s)")
    parser.add_argument("--examples", type=Path, help="prompts with answers, in any format; our own, where not given")
    parser.add_argument(
        "--model",
        default=MODEL,
        help=f"a folder, or random weights in the sizes of {', '.join(RANDOM)} (%(default)s)",
    )
    parser.add_argument("--tokenizer", type=Path, help=f"folder of that of a random model; {MODEL}'s, where not given")
    parser.add_argument("--limit", type=float, default=1800, help="seconds of one arm's run (%(default)s)")
    parser.add_argument("--no-evaluation", action="store_true", help="leave the losses of the adapters out")
    options = parser.parse_args()
    if not 1 <= options.warmup < options.steps:
        parser.error("--warmup: at least 1, and fewer than --steps")
    if "ours" not in options.arms:
        parser.error("--arms: ours is what the others are compared with")
    if options.out.exists():
        parser.error(f"--out: {options.out} is there; give a new folder")
    return options


def arms_here() -> list[str]:
    """A compiler's minute is spent only where its arm is named. So is the time of ours in other ways."""
    return [name for name, arm in ARMS.items() if not arm.change and (name != "trl-liger" or torch.cuda.is_available())]


def machine() -> str:
    device = this_device()
    cores = len(os.sched_getaffinity(0))
    name = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    report_text = f"{name.partition(': ')[2]}, {cores} cores, torch {torch.__version__}"
    return report_text if device.type == "cpu" else f"{describe(device)}, {report_text}"


def works(options: argparse.Namespace, out: Path) -> Iterator[Work]:
    """Each is prepared when it is its turn."""
    precision = "bf16" if has_native_bf16(this_device()) else "fp32"
    model = base_model(options.model, options.tokenizer, out)

    def shape(length: int, documents: int, ranks: int) -> Shape:
        documents = max(ranks, documents // ranks * ranks)
        micro_batch = options.micro_batch or documents // ranks
        return Shape(options.steps, documents, micro_batch, ranks, length, precision, options.learning_rate)

    for ranks in options.ranks:
        ending = f", {ranks} ranks" if ranks > 1 else ""
        if "half-padded" in options.regimes:
            given = half_padded_rows(options.examples)
            form = shape(LONGEST_CONVERSATION, options.documents, ranks)
            yield prepare(f"half-padded{ending}", out / f"half-padded-{ranks}", model, given, form)
        texts = [("full-length", options.length, model)] if "full-length" in options.regimes else []
        for length in options.lengths:
            texts.append((f"random llama, {length} tokens", length, llama(out, 49152, model)))
        for vocabulary in options.vocabularies:
            texts.append((f"random llama, vocabulary {vocabulary}", 512, llama(out, vocabulary, model)))
        for name, length, base in texts:
            # About as many tokens a step as the half-padded work has.
            form = shape(length, options.documents * 128 // length, ranks)
            given = full_length_rows(length, form.steps * form.documents + HELD_OUT)
            yield prepare(
                name + ending, out / f"{name} {ranks}".replace(", ", "-").replace(" ", "-"), base, given, form
            )


def base_model(given: str, tokenizer: Path | None, out: Path) -> Path:
    kept = ROOT / ".rivals" / "models"
    if given not in (MODEL, *RANDOM):
        return Path(given).resolve()
    if given == MODEL or tokenizer is None:
        tokenizer = kept / MODEL
        if not tokenizer.exists():
            add_model(MODEL, kept, out / "model.log")
    if given != MODEL and not (kept / given).exists():
        random_model(kept / given, RANDOM[given], tokenizer)
    return kept / given


def llama(out: Path, vocabulary: int, tokenizer_of: Path) -> Path:
    folder = out / "models" / f"llama-{vocabulary}"
    return folder if folder.exists() else random_model(folder, {**SMALL_LLAMA, "vocab_size": vocabulary}, tokenizer_of)


def measure(work: Work, options: argparse.Namespace, folder: Path) -> list[Run]:
    """In each round another arm begins, so that none is always the one to find the machine warm. Writes runs.jsonl into
    `folder` after every run."""
    runs: list[Run] = []
    for number in range(options.rounds):
        turn = number % len(options.arms)
        for name in [*options.arms[turn:], *options.arms[:turn]]:
            if name == "floor" and work.shape.ranks > 1:
                continue  # there is nothing to exchange
            run = run_arm(name, work, folder / f"{number}-{name}", number, options.warmup, options.limit)
            run = dataclasses.replace(run, operations_per_second=operations_per_second(work, run))
            rate = "failed" if run.real_rate is None else f"{run.real_rate:.1f} tok/s"
            print(
                f"{work.name}: round {number + 1} of {options.rounds}, {run.arm}: {rate}", file=sys.stderr, flush=True
            )
            runs.append(run)
            write_runs(folder / "runs.jsonl", runs)
    order = [ARMS[name].name for name in options.arms]
    runs.sort(key=lambda run: (order.index(run.arm), run.round))
    if not options.no_evaluation:
        runs = evaluated(work, runs)
        write_runs(folder / "runs.jsonl", runs)
    return runs


def write_runs(file: Path, runs: Sequence[Run]) -> None:
    file.write_text("".join(json.dumps(dataclasses.asdict(run)) + "\n" for run in runs))


def evaluated(work: Work, runs: Sequence[Run]) -> list[Run]:
    """With the loss of every adapter, by one judge. Those that are the same to the last bit are judged once."""
    digests = {run.adapter: _digest(Path(run.adapter)) for run in runs if run.adapter}
    folders = {digest: adapter for adapter, digest in digests.items()}
    command = [sys.executable, "-m", "benchmarks.trainer.evaluate", str(work.model), str(work.held_out)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, *folders.values()], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    base, *losses = json.loads(done.stdout.splitlines()[-1])
    print(f"{work.name}: evaluation loss of the base {base:.4f}", file=sys.stderr, flush=True)
    by_digest = dict(zip(folders, losses, strict=True))
    return [
        dataclasses.replace(run, eval_loss=by_digest[digests[run.adapter]] if run.adapter else None) for run in runs
    ]


def _digest(adapter: Path) -> str:
    return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def report(work: Work, runs: Sequence[Run]) -> str:
    shape = work.shape
    share = sum(work.supervised) / sum(work.real)
    lines = [
        f"### {work.name}",
        "",
        f"{work.model.name}, {shape.precision}; {shape.steps} steps of {shape.documents} documents, "
        f"{sum(work.real) // shape.steps} tokens a step, {share:.0%} supervised, {work.padding:.0%} padding where "
        f"micro-batches of {shape.micro_batch} are padded; {shape.ranks} rank(s) of {threads(shape.ranks)} thread(s). "
        "Median (least-most).",
        "",
        markdown(HEADER, rows(runs)),
        "",
        *(f"- {report_text}" for report_text in _used(runs)),
    ]
    if torch.cuda.is_available():
        lines += ["", *(f"- {report_text}" for report_text in _on_gpu(runs))]
    if any(run.arm == OURS for run in runs):
        lines += ["", f"VOID: an evaluation loss further than {MOST_APART:.1%} from ours."]
    return "\n".join(lines)


def _used(runs: Sequence[Run]) -> Iterator[str]:
    for arm in dict.fromkeys(run.arm for run in runs):
        report_text = next((run.used for run in runs if run.arm == arm and run.used), None)
        if report_text:
            kept = "kept" if not report_text["checkpointing"] else "made anew (gradient checkpointing)"
            formats = (
                f"base {report_text['base']}, adapter {report_text['adapter']}, autocast {report_text['autocast']}"
            )
            versions = ", ".join(f"{name} {version}" for name, version in report_text.get("versions", {}).items())
            yield f"{arm}: {formats}; activations {kept}" + (f"; {versions}" if versions else "")


def _on_gpu(runs: Sequence[Run]) -> Iterator[str]:
    peak = flops.peak_of(describe(this_device()))
    for arm in dict.fromkeys(run.arm for run in runs):
        mine = [run for run in runs if run.arm == arm]
        performed = spread(run.operations_per_second for run in mine)
        if performed is None:
            continue
        share = "" if peak is None else f", {performed.median / peak:.1%} of its peak in bf16"
        memory = [
            f"{name} {size.median / 2**30:.2f} GiB"
            for name, size in (
                ("allocated", spread(run.cuda_allocated for run in mine)),
                ("reserved", spread(run.cuda_reserved for run in mine)),
                ("planned", spread(run.planned_bytes for run in mine)),
            )
            if size is not None
        ]
        yield f"{arm}: {performed.median / 1e12:.1f} TFLOP/s on each GPU{share}; {', '.join(memory)}"


if __name__ == "__main__":
    main()
