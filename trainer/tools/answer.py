"""Asks the base model and the adapter the same questions.

`python -m trainer.tools.answer BASE [--adapter DIR] QUESTION...`

Prints one JSON object for each question: {"question": ..., "base": ..., "adapter": ...}, the last only with --adapter.
"""

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dataset.rendering.folder_tokenizer import FolderTokenizer, read_tokenizer
from trainer.data.end_tokens import add_ends, read_ends
from trainer.data.tokenizer import tokenizer_folder
from trainer.model.adapter import check_saved

_MOST_NEW_TOKENS = 80


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer questions with a base model, and with an adapter on it.")
    parser.add_argument("base", help="a model's folder or hub id")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("questions", nargs="+", metavar="QUESTION")
    arguments = parser.parse_args()

    # An adapter that was trained through a template of its own has it beside it.
    own = arguments.adapter and (arguments.adapter / "tokenizer_config.json").is_file()
    model = AutoModelForCausalLM.from_pretrained(arguments.base, use_safetensors=True, trust_remote_code=False)
    tokenizer = read_tokenizer(arguments.adapter if own else tokenizer_folder(arguments.base))
    if arguments.adapter:
        check_saved(arguments.adapter, model)
        add_ends(model.generation_config, read_ends(arguments.adapter))
        model = PeftModel.from_pretrained(model, arguments.adapter)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    for question in arguments.questions:
        answers = {"question": question}
        with model.disable_adapter() if arguments.adapter else contextlib.nullcontext():
            answers["base"] = answer(model, tokenizer, question)
        if arguments.adapter:
            answers["adapter"] = answer(model, tokenizer, question)
        print(json.dumps(answers, ensure_ascii=False), flush=True)


@torch.inference_mode()
def answer(model: Any, tokenizer: FolderTokenizer, question: str) -> str:
    """The most likely answer, token by token; at most 80 tokens."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    prompt = torch.tensor(tokenizer([text], add_special_tokens=False)["input_ids"], device=model.device)
    output = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=_MOST_NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,  # one prompt needs no padding
    )
    return tokenizer.decode(output[0, prompt.shape[1] :].tolist(), skip_special_tokens=True).strip()


if __name__ == "__main__":
    main()
