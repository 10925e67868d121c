"""Whether an adapter can answer beside others on one base model."""

from contract.failure import FailureCode, InputError


def check_can_be_mixed(bias: str, target_parameters: object) -> None:
    """Raises InputError for an adapter that would change the base for all others; both are fields of its
    adapter_config.json."""
    what = "trains biases of the base" if bias != "none" else "adapts routed experts"
    if bias != "none" or target_parameters:
        message = f"model: its adapter {what}, which is not answered with beside others; export it as a merged model"
        raise InputError(FailureCode.MODEL_UNSUPPORTED, message, "model")
