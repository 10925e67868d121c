"""The groups of routes in the API's description. A generated client has a module for each."""

TAGS: list[dict[str, str]] = [
    {"name": name, "description": description}
    for name, description in {
        "jobs": "Create, list, cancel, pause, resume, retry and delete fine-tuning jobs.",
        "sweeps": "Groups of jobs that try values of the recipe's fields, with the best of them.",
        "plans": "What a recipe needs, before it is a job: memory, time and disk.",
        "metrics": "Loss, speed and memory of a job, step by step.",
        "events": "What happens to a job, as a list or as a stream.",
        "samples": "Answers of the model during training, for people to read.",
        "held-out": "Examples that a job does not learn from, to ask its model.",
        "ratings": "What people think of a model's answers, stored as rows of a dataset.",
        "artifacts": "Adapters, checkpoints and other files of a job, to download.",
        "exports": "Adapters in other formats: merged into the base model, portable, or GGUF.",
        "evaluations": "A dataset run through a job's base model and its adapter: scores, and answers side by side.",
        "pushes": "Upload a job's artifacts to a model hub.",
        "datasets": "Upload files of examples, check them, and see them as the model will.",
        "webhooks": "Addresses of yours that receive a message when a job starts or ends.",
        "workers": "The machines, their devices, and the jobs that have them.",
        "session": "Sign a browser in with a key, and out.",
        "keys": "API keys of owners. For administrators.",
        "secrets": "Keys of trackers and hubs, stored encrypted, which recipes and requests name.",
        "quotas": "Limits of an owner, and how much of them is used.",
        "clean": "Delete what the retention settings no longer keep. For administrators.",
        "audit": "Who did what, and when.",
        "health": "Whether the service works, for load balancers and Prometheus.",
        "openai": "The OpenAI-compatible API: files, fine-tuning jobs and models.",
    }.items()
]
