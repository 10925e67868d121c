"""Events as a trainer reports them."""

from contract.events import MetricEvent


def metric(step: int, time: float, loss: float = 1, tokens: int = 100, speed: float = 250) -> MetricEvent:
    """`speed` is in tokens per second."""
    return MetricEvent(
        time=time,
        step=step,
        epoch=step / 10,
        loss=loss,
        learning_rate=1e-4,
        grad_norm=0.5,
        tokens=tokens,
        supervised_tokens=40,
        tokens_per_second=speed,
        memory_bytes=2**33,
        progress=0,
        eta_seconds=9,
    )
