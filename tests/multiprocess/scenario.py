"""One known run: 32 environments, 20 iterations, and what its rows must be, by NumPy alone."""

import numpy as np

ENVIRONMENTS = 32
ITERATIONS = 20
STEPS = 16
ALPHA = 0.7
NEVER_DONE = 5
METRICS = ("loss", "entropy", "kl", "clipped", "value")

_rng = np.random.default_rng(2026)
# (iteration, step, environment)
REWARDS = _rng.normal(1.0, 0.5, (ITERATIONS, STEPS, ENVIRONMENTS)).astype(np.float32)
DONES = _rng.random((ITERATIONS, STEPS, ENVIRONMENTS)) < 0.1
DONES[:, :, NEVER_DONE] = False
# Some environments end their first episode late, so that early rows have few of them.
DONES[:8, :, ENVIRONMENTS // 2 :] = False
# (iteration, metric, environment): every device sees other values.
LOGS = _rng.normal(0.0, 3.0, (ITERATIONS, len(METRICS), ENVIRONMENTS)).astype(np.float32)
LEARNING_RATES = np.linspace(1e-3, 1e-5, ITERATIONS).astype(np.float32)


def expected_rows() -> list[tuple[int, dict[str, float]]]:
    """Step and metrics of every iteration, in float64."""
    returns = np.zeros(ENVIRONMENTS)
    lengths = np.zeros(ENVIRONMENTS)
    average_return = np.zeros(ENVIRONMENTS)
    average_length = np.zeros(ENVIRONMENTS)
    ended = np.zeros(ENVIRONMENTS, bool)
    before = np.zeros(ENVIRONMENTS, bool)
    rows = []
    for iteration in range(ITERATIONS):
        for step in range(STEPS):
            done = DONES[iteration, step]
            returns = np.where(before, 0, returns) + REWARDS[iteration, step].astype(np.float64)
            lengths = np.where(before, 0, lengths) + 1
            average_return[done] = (ALPHA * returns + (1 - ALPHA) * average_return)[done]
            average_length[done] = (ALPHA * lengths + (1 - ALPHA) * average_length)[done]
            ended |= done
            before = done
        logs = LOGS[iteration].astype(np.float64)
        metrics = {f"train/{name}": logs[place].mean() for place, name in enumerate(METRICS)}
        metrics["train/learning_rate"] = float(LEARNING_RATES[iteration])
        metrics["episode/count"] = float(ended.sum())
        if ended.any():
            metrics |= {
                "episode/return": average_return[ended].mean(),
                "episode/return_min": average_return[ended].min(),
                "episode/return_max": average_return[ended].max(),
                "episode/return_std": average_return[ended].std(),
                "episode/length": average_length[ended].mean(),
            }
        rows.append(((iteration + 1) * STEPS * ENVIRONMENTS, metrics))
    return rows
