"""What a model card says about loading what it lies beside, with the commands of each engine."""

import json
from dataclasses import dataclass
from pathlib import Path

from contract.export import ExportFormat
from contract.model.earlier_adapter import CONFIG

_TEMPLATE = "chat_template.jinja"
_LM_STUDIO = "LM Studio loads no adapters; export the job with format `merged`."
_CONVERTER = "`convert_hf_to_gguf.py` is in llama.cpp's repository."


@dataclass(frozen=True)
class Loading:
    what: str
    """Description of the files, before "for BASE"."""
    library: str
    """The hub's library_name."""
    relation: str
    """The hub's base_model_relation."""
    text: str
    """Markdown."""


def load_adapter(base: str, tokenizer: str) -> Loading:
    """The adapter as PEFT saves it; `tokenizer` is the folder or the model with its tokenizer."""
    text = f"With these files in a folder `adapter`:\n\n{_peft(base, 'adapter', tokenizer)}"
    return Loading("A LoRA adapter", "peft", "adapter", text)


def load_export(wanted: ExportFormat, base: str, folder: Path) -> Loading:
    """An export whose files are complete in `folder`."""
    if wanted == "portable":
        rank = json.loads((folder / CONFIG).read_bytes())["r"]
        return Loading("A LoRA adapter in portable form", "peft", "adapter", _portable(base, rank))
    if wanted == "gguf":
        return Loading("A LoRA adapter as GGUF", "gguf", "adapter", _gguf(base, (folder / _TEMPLATE).is_file()))
    if wanted == "merged":
        return Loading("A merged model: base and LoRA adapter in one", "transformers", "finetune", _merged())
    what = "A merged model as GGUF: base and LoRA adapter in one"
    return Loading(what, "gguf", "finetune", _merged_gguf(wanted, (folder / _TEMPLATE).is_file()))


def _portable(base: str, rank: int) -> str:
    return "\n\n".join(
        [
            f"One rank ({rank}) with alpha = r for all modules, no rsLoRA, no patterns: engines read it alike. With "
            "these files in a folder `portable`:",
            "vLLM; the model's name in requests is `tuned`:",
            _shell(
                f"vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules tuned=./portable "
                "--tokenizer ./portable --generation-config ./portable"
            ),
            f"SGLang; the model's name in requests is `{base}:tuned`:",
            _shell(
                f"python -m sglang.launch_server --model-path {base} --enable-lora --lora-paths tuned=./portable "
                "--tokenizer-path ./portable"
            ),
            "transformers with PEFT:",
            _peft(base, "portable", "portable"),
            "llama.cpp and Ollama read GGUF; export the job with format `gguf`. " + _LM_STUDIO,
        ]
    )


def _gguf(base: str, has_template: bool) -> str:
    template = f" --chat-template-file gguf/{_TEMPLATE}" if has_template else ""
    return "\n\n".join(
        [
            f"With these files in a folder `gguf`. llama.cpp and Ollama need the base as GGUF too. {_CONVERTER}",
            _shell(f"python convert_hf_to_gguf.py --outtype f16 --outfile gguf/base.gguf FOLDER_OF_{_last(base)}"),
            "llama.cpp:",
            _shell(f"llama-server --model gguf/base.gguf --lora gguf/adapter.gguf --jinja{template}"),
            "Ollama, with the `Modelfile` in this folder. It takes the chat template from `base.gguf`; if the recipe "
            "below has a `dataset.chat_template` of its own, add that as `TEMPLATE`, in Ollama's form:",
            _shell("ollama create tuned --file gguf/Modelfile\nollama run tuned"),
            f"vLLM, SGLang and transformers read PEFT's files; export the job with format `portable`. {_LM_STUDIO}",
        ]
    )


def _merged() -> str:
    return "\n\n".join(
        [
            "With these files in a folder `merged`. transformers:",
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("merged")\n'
            'tokenizer = AutoTokenizer.from_pretrained("merged")\n```',
            "vLLM, or SGLang:",
            _shell("vllm serve ./merged\npython -m sglang.launch_server --model-path ./merged"),
            "llama.cpp, Ollama and LM Studio read GGUF: export the job with format `merged-gguf-q8_0`, or "
            f"`merged-gguf-f16`. For a model that has no such export: {_CONVERTER}",
            _shell("python convert_hf_to_gguf.py --outtype q8_0 --outfile merged.gguf ./merged"),
        ]
    )


def _merged_gguf(wanted: ExportFormat, has_template: bool) -> str:
    template = f" --chat-template-file {wanted}/{_TEMPLATE}" if has_template else ""
    return "\n\n".join(
        [
            f"With these files in a folder `{wanted}`. llama.cpp:",
            _shell(f"llama-server --model {wanted}/model.gguf --jinja{template}"),
            "Ollama, with the `Modelfile` in this folder:",
            _shell(f"ollama create tuned --file {wanted}/Modelfile\nollama run tuned"),
            "LM Studio:",
            _shell(f"lms import {wanted}/model.gguf"),
            "transformers, vLLM and SGLang read safetensors; export the job with format `merged`.",
        ]
    )


def _peft(base: str, folder: str, tokenizer: str) -> str:
    return (
        "```python\nfrom peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)})\n"
        f"model = PeftModel.from_pretrained(base, {json.dumps(folder)})\n"
        f"tokenizer = PreTrainedTokenizerFast.from_pretrained({json.dumps(tokenizer)})\n```"
    )


def _shell(commands: str) -> str:
    return f"```sh\n{commands}\n```"


def _last(base: str) -> str:
    return base.rpartition("/")[2]
