"""Which checkpoint is the newest, which keys a resumed run keeps, and how damage is found, on small files."""

import os
import random
import re
import signal

import pytest
import torch

from lib.config import Config
from lib.data.loader import Loader
from lib.engine.checkpoint import BEST, LATEST, PREVIOUS, WITHIN, link, numbered_in, remove_unfinished, write_checkpoint
from lib.engine.interrupts import StopRequest
from lib.engine.resuming import newest_checkpoint, put_in_front, refuse_other_keys
from lib.errors import UserError
from lib.model.weights import Checkpoint, read_checkpoint


def save(path, epoch, score=None, best=None, task=0, batch=0, **more):
    """Write a small checkpoint; score: of its epoch, best: of all epochs so far."""
    history = [] if score is None else [{"epoch": epoch, "test/mpjpe": score}]
    torch.save(
        {
            "epoch": epoch,
            "optimizer": {},
            "model_pos": {"module.weight": torch.full((3,), float(epoch))},
            "min_loss": score if best is None else best,
            "history": history,
            "state": {"position": {"task": task, "batch": batch}},
            **more,
        },
        path,
    )
    return path


def damage(path):
    path.write_bytes(path.read_bytes()[:500])


def found(folder):
    checkpoint, damaged = newest_checkpoint(folder)
    return os.path.basename(checkpoint.path), [os.path.basename(text.split(":")[0]) for text in damaged]


def test_progress_decides_what_is_newest_and_no_time_of_a_file(tmp_path):
    for age, (name, *where) in enumerate(
        [(LATEST, 4), (WITHIN, 4, 1, 7), ("epoch_3.bin", 3), (PREVIOUS, 3), (BEST, 2)]
    ):
        path = save(tmp_path / name, where[0], task=sum(where[1:2]), batch=sum(where[2:]))
        os.utime(path, (1e9 + age, 1e9 + age))  # the newest has the oldest times, as copying leaves them
    assert found(tmp_path) == (WITHIN, [])
    save(tmp_path / WITHIN, 3, task=1, batch=9)
    assert found(tmp_path) == (LATEST, [])
    damage(tmp_path / LATEST)
    assert found(tmp_path) == (WITHIN, [LATEST])
    save(tmp_path / WITHIN, 2, task=1, batch=9)
    assert found(tmp_path) == (PREVIOUS, [LATEST])
    damage(tmp_path / WITHIN)
    damage(tmp_path / PREVIOUS)
    save(tmp_path / "epoch_12.bin", 12)
    (tmp_path / "epoch_best.bin").write_bytes(b"somebody's own")
    assert found(tmp_path) == ("epoch_12.bin", [LATEST, WITHIN, PREVIOUS])
    assert list(numbered_in(tmp_path)) == [12, 3]
    damage(tmp_path / "epoch_12.bin")
    damage(tmp_path / "epoch_3.bin")
    assert found(tmp_path)[0] == BEST
    save(tmp_path / BEST, 2, optimizer=None)
    with pytest.raises(
        UserError, match="holds no checkpoint that a run can be resumed from .*latest_epoch.bin: is trunc"
    ):
        newest_checkpoint(tmp_path)


def test_a_best_epoch_that_is_gone_with_abandoned_ones_is_replaced_by_the_resumed_one(tmp_path):
    """Epoch 1 was better than 2, which is resumed; epoch 3 had taken its file."""
    save(tmp_path / LATEST, 3, 40.0)
    link(tmp_path / LATEST, tmp_path / BEST)
    two = save(tmp_path / "epoch_2.bin", 2, 60.0, best=50.0)
    assert put_in_front(read_checkpoint(two), tmp_path, 30) == 60
    assert read_checkpoint(tmp_path / BEST).epoch == 2 and read_checkpoint(tmp_path / "abandoned" / BEST).epoch == 3
    assert (tmp_path / LATEST).samefile(two)


def test_a_best_epoch_before_the_resumed_one_stays(tmp_path):
    save(tmp_path / BEST, 1, 50.0)
    save(tmp_path / LATEST, 2, 60.0, best=50.0)
    within = save(tmp_path / WITHIN, 2, 60.0, best=50.0, batch=5)
    assert put_in_front(read_checkpoint(within), tmp_path, 1) == 50
    assert read_checkpoint(tmp_path / BEST).epoch == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, LATEST, WITHIN]
    (tmp_path / "other").mkdir()  # going on elsewhere takes it along
    assert put_in_front(read_checkpoint(within), tmp_path / "other", 1) == 50
    assert (tmp_path / "other" / BEST).samefile(tmp_path / BEST)


def test_an_earlier_file_that_is_asked_for_comes_before_later_ones(tmp_path):
    latest = save(tmp_path / LATEST, 2)
    save(tmp_path / WITHIN, 2, batch=5)
    put_in_front(read_checkpoint(latest), tmp_path, 1)
    assert found(tmp_path) == (LATEST, []) and (tmp_path / "abandoned" / WITHIN).is_file()


def test_a_file_system_without_hard_links_gets_copies(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_checkpoint(tmp_path / LATEST, {"model_pos": {"a": torch.ones(2)}}, [tmp_path / BEST])
    assert (tmp_path / BEST).read_bytes() == (tmp_path / LATEST).read_bytes()
    assert not (tmp_path / BEST).samefile(tmp_path / LATEST)


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
    for name in (f".{LATEST}.123.tmp", LATEST, ".run.lock"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LATEST, ".run.lock"}


def test_damage_is_found_wherever_it_matters(tmp_path):
    """Of the marks of a file as a folder, at whose tensors PyTorch gives what the memory held, too."""
    path = save(tmp_path / "whole.bin", 3, 50.0)
    whole, expected = path.read_bytes(), read_checkpoint(path)
    rng = random.Random(0)
    entries = [found.start() for found in re.finditer(b"PK\1\2", whole)]
    flips = [(place, 1 << rng.randrange(8)) for place in rng.sample(range(len(whole)), 200)]
    flips += [(place + 38, 0x10) for place in entries]
    refused = 0
    for place, bit in flips:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            refused += 1
            assert "whole.bin: is truncated or not a checkpoint" in str(error)
            continue
        assert torch.equal(checkpoint.model["weight"], expected.model["weight"]), (place, bit)
        assert (checkpoint.epoch, checkpoint.history) == (expected.epoch, expected.history), (place, bit)
    assert refused > len(flips) / 4  # the rest is padding and dates


def test_keys_that_a_resumed_run_may_change():
    recorded = Config().model_dump()
    resume = Checkpoint("run/latest_epoch.bin", {}, config=recorded)
    for change in (
        {"epochs": 500}, {"checkpoint_frequency": 1}, {"checkpoint_minutes": 1.0}, {"log_every": 1}, {"no_eval": True},
        {"num_workers": 0}, {"flip_test": False}, {"dt_root": "elsewhere"}, {"data_root_2d": "elsewhere"},
        {"profile": True}, {"batch_size": 8}, {"accumulate": 2},
    ):  # fmt: skip
        refuse_other_keys(Config(**recorded | change), resume)


def test_batches_may_change_only_between_epochs_without_warm_up():
    recorded = Config().model_dump()
    within = Checkpoint("a.bin", {}, config=recorded, state={"position": {"task": 0, "batch": 4}})
    warm = Checkpoint("a.bin", {}, config=recorded | {"warmup_steps": 5})
    for resume in (within, warm):
        for change in ({"batch_size": 8}, {"accumulate": 2}):
            with pytest.raises(
                UserError, match=f"{next(iter(change))}: the run of a.bin has [41], not [82]; a resumed"
            ):
                refuse_other_keys(Config(**resume.config | change), resume)


def test_a_key_that_an_older_file_lacks_had_its_default():
    recorded = Config().model_dump()
    del recorded["clip_grad"]
    resume = Checkpoint("old.bin", {}, config=recorded)
    refuse_other_keys(Config(**recorded), resume)
    with pytest.raises(UserError, match="clip_grad: the run of old.bin has 0.0, not 1.0"):
        refuse_other_keys(Config(**recorded, clip_grad=1.0), resume)
    refuse_other_keys(Config(seed=5), Checkpoint("published.bin", {}))  # which records nothing


def test_an_epoch_goes_on_from_any_batch():
    class Clips:
        def __len__(self):
            return 23

        def __getitem__(self, indices):
            return {"x": torch.tensor(indices, dtype=torch.float32)}

    def shake(batch):
        return batch | {"x": batch["x"] + torch.rand(len(batch["x"]))}

    for workers in (0, 1):
        loader, states, batches = Loader(Clips(), 4, [shake], workers=workers), [], []
        torch.manual_seed(0)
        for batch in loader.epoch(99):
            batches.append(batch)
            states.append(torch.get_rng_state())
        for done in range(1, 7):
            torch.set_rng_state(states[done - 1])
            rest = list(loader.epoch(99, done))
            assert len(rest) == 6 - done
            for again, before in zip(rest, batches[done:]):
                assert torch.equal(again["x"], before["x"]) and torch.equal(again["index"], before["index"])


def test_signals_are_noted_and_a_second_ctrl_c_interrupts():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    with StopRequest() as stop:
        stop.check()
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # a launcher hands Ctrl-C on like this
        assert stop.requested
    assert handlers == {number: signal.getsignal(number) for number in handlers}
