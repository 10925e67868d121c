from finetuned.cli import app

app(prog_name="finetuned")
