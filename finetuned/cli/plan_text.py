"""A plan as text for a terminal."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from finetuned.cli.job_text import format_bytes, format_seconds, one_line

_PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "communication_buffers", "overhead")
_FITS = {True: "fits", False: "does not fit", None: "fits perhaps"}


def show_plan(plan: dict[str, Any], console: Console) -> None:
    facts = _facts(plan)
    for device in plan["devices"]:
        facts += [("", ""), *_on_device(device)]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    console.print(table, markup=False, highlight=False)
    for warning in plan["warnings"]:
        console.print(f"warning: {one_line(warning)}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    for part, why in plan["unknown"].items():
        console.print(f"{part}: {one_line(why)}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _facts(plan: dict[str, Any]) -> list[tuple[str, str]]:
    work, found, disk = plan["work"], plan["parameters"], plan["disk"]
    facts = []
    if found:
        share = 100 * found["trainable"] / found["total"]
        facts.append(("trains", f"{found['trainable']:,} of {found['total']:,} parameters ({share:.2f}%)"))
        facts += [(f"  {each['name']}", _trained(each)) for each in found["by_module"]]
        facts += [("  left out", f"{', '.join(each['names'])}: {each['reason']}") for each in found["left_out"]]
    if base := plan["base"]:
        loaded = "loaded as it is stored" if base["loaded_as"] == "as_stored" else "dequantised"
        sizes = f"{format_bytes(base['file_bytes'])} on disk, {format_bytes(base['loaded_bytes'])} loaded"
        facts.append(("base", f"{base['stored_as']}, {loaded}: {sizes}"))
    of_them = f"{work['effective_batch_size']:,} examples each, of {work['train_examples']:,}"
    facts.append(("steps", f"{work['steps']:,}, {of_them}"))
    if work["tokens"] is not None:
        before = f", and {work['reference_tokens']:,} before the first step" if work.get("reference_tokens") else ""
        facts.append(("tokens", f"{work['tokens']:,}{before}"))
    if plan["packing"]:
        facts.append(("documents", f"{'packed' if plan['packed'] else 'one by one'}: {plan['packing']}"))
    if disk:
        facts.append(("disk", f"{format_bytes(disk['total'])}, {format_bytes(disk['adapters'])} of it for good"))
    return facts


def _trained(module: dict[str, Any]) -> str:
    return f"{module['parameters']:,} in {module['modules']}, on {module['fraction']:.1%} of the weights"


def _on_device(device: dict[str, Any]) -> list[tuple[str, str]]:
    memory = device["memory"]
    available = "" if device["available"] is None else f" of {format_bytes(device['available'])}"
    facts = [
        (f"{device['devices']} x {device['device']}", f"{device['precision']}; {_FITS[device['fits']]}"),
        ("memory", f"{format_bytes(memory['total'])}{available}"),
        *[(f"  {part.replace('_', ' ')}", format_bytes(memory[part])) for part in _PARTS if memory[part]],
    ]
    if device["eta_seconds"] is not None:
        speed = f"{device['tokens_per_second']:,.0f} tokens/s, measured on {_jobs(device['measured_jobs'])}"
        facts.append(("time", f"{format_seconds(device['eta_seconds'])} at {speed}"))
        facts.append(("  cold start", f"{format_seconds(device['cold_start_seconds'])} of it, in the first step"))
    facts += [("fits with", json.dumps(change)) for change in device["suggestions"]]
    return facts


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
