"""How many estimates a second one core makes of parsed architectures: planning asks freely, the turned-round figures
ask dozens of times each.

    python -m benchmarks.estimate_rate --configs DIR
    python -m benchmarks.estimate_rate --configs DIR -o json

Every configuration of the folder that can be read is parsed once, with the weights that its shapes imply; then the
estimate is asked over and over, each time for another load. Those that can't be read or estimated are listed.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from vrampack.errors import VrampackError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.estimate import estimate
from vrampack.memory.vllm.dtypes import AUTO
from vrampack.memory.weights import laid_out
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of

_LOADS = tuple((context, concurrency) for context in (4096, 8192, 16384, 32768) for concurrency in (1, 4, 16, 64, 200))
_PARAMETERS = 8_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Of one configuration."""

    name: str
    per_second: float


def parsed(folder: Path) -> tuple[list[tuple[str, Architecture, Weights]], dict[str, str]]:
    """Models of the folder, and why others are left out."""
    models, left_out = [], {}
    for path in sorted(folder.glob("*.json")):
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            architecture = architecture_of(config, quant_config=config.pop("_hf_quant_config", None))
            weights = laid_out(architecture, Weights(total=2 * _PARAMETERS, parameters=_PARAMETERS, precision="bf16"))
            estimate(architecture=architecture, weights=weights, workload=_workload(architecture, 4096, 4))
        except (VrampackError, ValueError, OSError) as problem:
            left_out[path.name] = str(problem)
            continue
        models.append((path.name, architecture, weights))
    return models, left_out


def _workload(architecture: Architecture, context: int, concurrency: int) -> Workload:
    length = min(context, architecture.max_context or context)
    return Workload(
        context_length=length,
        concurrency=concurrency,
        tokens_per_sequence=max(1, length // 2),
        max_batched_tokens=8192,
        kv_cache_precision=AUTO,
    )


def measured(models: list[tuple[str, Architecture, Weights]], *, each: int) -> list[Rate]:
    """``each`` estimates of every model, in CPU time, slowest first."""
    rates = []
    for name, architecture, weights in models:
        loads = [_workload(architecture, *load) for load in islice(cycle(_LOADS), each)]
        began = time.process_time()
        for load in loads:
            estimate(architecture=architecture, weights=weights, workload=load)
        rates.append(Rate(name=name, per_second=each / (time.process_time() - began)))
    return sorted(rates, key=lambda rate: rate.per_second)


def overall(rates: list[Rate]) -> float:
    """Estimates a second over all models together: as many of each, so the slow ones count for what they take."""
    return len(rates) / sum(1 / rate.per_second for rate in rates)


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 2: there was nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, required=True, help="folder with config.json files under any name")
    parser.add_argument("--each", type=int, default=200, help="estimates of each model")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    models, left_out = parsed(options.configs)
    if not models:
        print(f"{options.configs}: no configuration that can be estimated", file=sys.stderr)
        return 2
    rates = measured(models, each=options.each)
    middle = rates[len(rates) // 2].per_second
    if options.output == "json":
        figures = {
            "models": len(rates),
            "per_second": round(overall(rates)),
            "median_per_second": round(middle),
            "slowest": {rate.name: round(rate.per_second) for rate in rates[:5]},
            "left_out": left_out,
        }
        print(json.dumps(figures, indent=2))
        return 0
    print(f"{len(rates)} models, {overall(rates):,.0f} estimates a second on one core (median model {middle:,.0f})")
    for rate in rates[:5]:
        print(f"  {rate.per_second:10,.0f}  {rate.name}")
    for name, reason in left_out.items():
        print(f"  left out: {name}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
