"""Functions that the benchmarks share."""

from lib.cli import count, whole
from tools.bench.shared.floors import measure_rates, scan_floor
from tools.bench.shared.implementations import REFERENCE, SLOW, chosen, implementations
from tools.bench.shared.measuring import measure_memory, peak_growth, progress, resident_peak, seconds_of, time_in_turn
from tools.bench.shared.options import add_options, add_sizes, device_of, options_of
from tools.bench.shared.report import (
    PASSES,
    conditions,
    figures,
    machine,
    missing_lines,
    panel,
    summary,
    table,
    write_chart,
    write_json,
)
from tools.bench.shared.sizes import JOINTS, SIZES

__all__ = [
    "JOINTS", "PASSES", "REFERENCE", "SIZES", "SLOW", "add_options", "add_sizes", "chosen", "conditions", "count",
    "device_of", "figures", "implementations", "machine", "measure_memory", "measure_rates", "missing_lines",
    "options_of", "panel", "peak_growth", "progress", "resident_peak", "scan_floor", "seconds_of", "summary", "table",
    "time_in_turn", "whole", "write_chart", "write_json",
]  # fmt: skip
