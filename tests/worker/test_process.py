from worker.process import trainer_environment


def test_a_trainer_gets_what_it_needs_to_run_and_to_reach_a_hub() -> None:
    given = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "HF_TOKEN": "t", "https_proxy": "p", "OMP_NUM_THREADS": "2"}
    assert given.items() <= trainer_environment(given).items()


def test_a_trainer_gets_nothing_else() -> None:
    given = {"FINETUNED_DATABASE_URL": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "PYTHONPATH": "/elsewhere"}
    assert trainer_environment(given).keys() == {"PYTHONUNBUFFERED"}
