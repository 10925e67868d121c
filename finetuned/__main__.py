from finetuned.cli.main import app

app(prog_name="finetuned")
