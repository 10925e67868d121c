"""What every part of finetuned shares: pydantic and the standard library, nothing else."""
