"""Asks the base model and the adapter the same questions.

`python -m trainer.tools.answer BASE [--adapter DIR] QUESTION...`

Prints one JSON object per question: {"question": ..., "base": ..., "adapter": ...}, the last only with --adapter.
"""

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

from dataset.rendering.folder_tokenizer import FolderTokenizer, read_tokenizer
from trainer.environment import lasting_imports, prepare_process

_MAX_NEW_TOKENS = 80


def main() -> None:
    prepare_process()
    parser = argparse.ArgumentParser(description="Answer questions with a base model, and with an adapter on it.")
    parser.add_argument("base", help="a model's folder or hub id")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("questions", nargs="+", metavar="QUESTION")
    arguments = parser.parse_args()
    model, tokenizer = _load(arguments.base, arguments.adapter)
    for question in arguments.questions:
        answers = {"question": question}
        with model.disable_adapter() if arguments.adapter else contextlib.nullcontext():
            answers["base"] = answer(model, tokenizer, question)
        if arguments.adapter:
            answers["adapter"] = answer(model, tokenizer, question)
        print(json.dumps(answers, ensure_ascii=False), flush=True)


def _load(base: str, adapter: Path | None) -> tuple[Any, FolderTokenizer]:
    with lasting_imports():
        import torch
        from peft import PeftModel

        from trainer.data.end_tokens import add_end_tokens, read_end_tokens
        from trainer.data.tokenizer import tokenizer_folder
        from trainer.model.adapter import check_saved_adapter
        from trainer.model.pretrained import load_pretrained

    # An adapter that was trained with its own chat template has a tokenizer beside it.
    has_tokenizer = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    model = load_pretrained(base)
    tokenizer = read_tokenizer(adapter if adapter and has_tokenizer else tokenizer_folder(base))
    if adapter:
        check_saved_adapter(adapter, model)
        add_end_tokens(model.generation_config, read_end_tokens(adapter))
        model = PeftModel.from_pretrained(model, adapter)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def answer(model: Any, tokenizer: FolderTokenizer, question: str) -> str:
    """The most likely answer, token by token; at most 80 tokens."""
    import torch

    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    prompt = torch.tensor(tokenizer([text], add_special_tokens=False)["input_ids"], device=model.device)
    with torch.inference_mode():
        output = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=_MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,  # one prompt needs no padding
        )
    return tokenizer.decode(output[0, prompt.shape[1] :].tolist(), skip_special_tokens=True).strip()


if __name__ == "__main__":
    main()
