"""Measure the data path at Human3.6M's full size: conversion, store, loading, memory of training, scoring.

python tools/bench/data.py                # makes data/motion3d/fake_h36m.pkl first, 1.7 GB
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

import json
import os
import shutil
import subprocess
import time
from functools import partial
from statistics import median

import numpy as np
import torch

from lib.cli import Parser, run
from lib.config import Config
from lib.data.datasets.h36m import DataReaderH36M
from lib.eval.h36m import evaluate_h36m
from lib.model.registry import build_model
from lib.task.lifting import Lifting
from tools.bench import shared as benchmark

TOOLS = Path(__file__).resolve().parents[1]
BATCHES = 300
STEPS = 5
FLOATS = 17 * (2 + 1 + 3 + 3) + 1  # of a frame in the layout


def read(config):
    return DataReaderH36M.open(config)


def opening(config):
    start = time.perf_counter()
    reader = read(config)
    opened = time.perf_counter() - start
    train, test = reader.get_split_id()
    return {
        "open_seconds": opened,
        "open_and_cut_seconds": time.perf_counter() - start,
        "training_clips": len(train),
        "test_clips": len(test),
    }


def loading(config):
    """Return the time of a batch on one core, without reading ahead."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    else:
        print("this system does not keep a process on one core: the time of a batch is that of all cores")
    batches, seconds = Lifting(config.model_copy(update={"num_workers": 0}), read(config)).loaders("train"), []
    coming = iter(batches)
    for _ in range(min(BATCHES, len(batches))):
        start = time.perf_counter()
        next(coming)
        seconds.append(time.perf_counter() - start)
    return {"batch_seconds": median(seconds), "slowest_batch_seconds": max(seconds)}


def training(config):
    """Return the resident memory of some training steps of the S model; workers are threads of this process."""
    task = Lifting(config, read(config))
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters())
    before = benchmark.resident_peak()
    for _, batch in zip(range(STEPS), task.loaders("train")):
        optimizer.zero_grad()
        task.loss(model, batch)[0].backward()
        optimizer.step()
    return {
        "workers": config.num_workers,
        "resident_bytes": benchmark.resident_peak(),
        "before_first_step_bytes": before,
    }


def scoring(config):
    reader = read(config)
    predictions = reader.read_3d("test", reader.get_split_id()[1])
    predictions += np.random.default_rng(0).normal(0, 0.01, predictions.shape).astype(np.float32)
    start = time.perf_counter()
    evaluate_h36m(predictions, reader)
    return {"scoring_seconds": time.perf_counter() - start, "frames": predictions.shape[0] * predictions.shape[1]}


MEASURED = {function.__name__: function for function in (opening, loading, training, scoring)}


def apart(name, folder):
    """Return the figures of one of `MEASURED`, measured in a new process."""
    command = [sys.executable, __file__, "--folder", str(folder), "--only", name]
    return json.loads(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)


def conversion(folder):
    start = time.perf_counter()
    command = [sys.executable, TOOLS / "convert_h36m.py", "--dt-root", folder, "--dt-file", "fake_h36m.pkl"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError("convert_h36m.py failed")
    return {"convert_seconds": time.perf_counter() - start, "convert_peak_bytes": usage.ru_maxrss * 1024}


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/motion3d"), help="of the data (default: %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the full size (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/cpu"), help="default: %(default)s")
    parser.add_argument("--only", choices=MEASURED, help="this figure, as JSON (of a store that is there)")
    options = parser.parse()
    config = Config(dt_root=str(options.folder), dt_file="fake_h36m.store", data_root="-", num_workers=options.workers)
    if options.only:
        return print(json.dumps(MEASURED[options.only](config)))

    pickle, store = options.folder / "fake_h36m.pkl", options.folder / "fake_h36m.store"
    if not pickle.is_file():
        make = [sys.executable, TOOLS / "make_fake_h36m.py", "--out", pickle, "--share", str(options.share)]
        subprocess.run(make, check=True)
    shutil.rmtree(store, ignore_errors=True)
    found = conversion(options.folder)
    for name in benchmark.progress(MEASURED, "measuring"):
        found |= apart(name, options.folder)
    rows = sum(read(config).count(split) for split in ("train", "test"))
    found["store_bytes"] = sum(file.stat().st_size for file in store.iterdir())
    found["store_over_raw"] = found["store_bytes"] / (rows * FLOATS * 4)
    machine = benchmark.machine(torch.device("cpu"))
    benchmark.write_json(options.out / "data.json", {"machine": machine, "rows": rows, **found})
    line = partial("{:<44}{:>12}".format)
    print(f"{rows:,} frames, {machine['cpu']}, {machine['cores']} cores")
    print(line("conversion", f"{found['convert_seconds']:.1f} s"))
    print(line("memory of conversion", f"{found['convert_peak_bytes'] / 1e9:.2f} GB"))
    print(line("store, times the raw float32 size", f"{found['store_over_raw']:.3f}"))
    print(line("opening", f"{found['open_seconds'] * 1e3:.0f} ms"))
    print(line("a batch of 4 clips, one core", f"{found['batch_seconds'] * 1e3:.2f} ms"))
    print(line(f"memory of training S, {found['workers']} workers", f"{found['resident_bytes'] / 1e9:.2f} GB"))
    print(line(f"scoring {found['frames']:,} frames", f"{found['scoring_seconds']:.1f} s"))
    print(f"written: {options.out / 'data.json'}")


if __name__ == "__main__":
    run(main, when_memory_ends="lower --share")
