"""The store of Human3.6M's layout: `tools/convert_h36m.py` as people type it, on the small file of that layout."""

import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands_here import run_here
from conftest import PARITY, ROOT, Trap

from lib.data.datasets.h36m import MADE_BY, DataReaderH36M
from lib.data.loader import Loader
from lib.data.pickles import load_arrays
from lib.data.store import check_store, open_store, writing
from lib.data.training_clips import FrameClips
from lib.errors import UserError
from lib.eval.h36m import evaluate_h36m
from lib.files import atomic_path, only_one

NAME = "h36m_schema.pkl"


def convert(folder, *arguments, name=NAME, code=0, **options):
    arguments = list(map(str, ["--dt-root", folder, "--dt-file", name, *arguments]))
    if options:  # a process of its own
        command = [sys.executable, ROOT / "tools/convert_h36m.py", *arguments]
        result = subprocess.run(command, text=True, capture_output=True, **options)
    else:
        result = run_here("tools.convert_h36m", *arguments)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout if code == 0 else result.stderr


def read(folder, name=NAME, stride=1):
    reader = DataReaderH36M(27, stride, 9, 27, dt_root=folder, dt_file=name)
    np.random.seed(0)
    reader.get_split_id()
    return reader


@pytest.fixture
def folder(tmp_path):
    """Holds the pickle."""
    shutil.copy(PARITY / NAME, tmp_path)
    return tmp_path


@pytest.fixture
def store(folder):
    assert convert(folder) == f"{folder / 'h36m_schema.store'}: written\n"
    return folder / "h36m_schema.store"


def content(store):
    return {path.name: path.read_bytes() for path in store.iterdir()}


def shown(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("stride", [1, 3])
def test_a_store_gives_the_clips_and_scores_of_its_pickle(folder, store, stride):
    stored = read(folder, stride=stride)
    assert stored.path == store
    store.rename(folder / "apart.store")
    pickled = read(folder, stride=stride)
    assert pickled.path == folder / NAME
    for split in ("train", "test"):
        for key in ("source", "action", "camera_name", "2.5d_factor"):
            np.testing.assert_array_equal(
                pickled.array(split, key), read(folder, "apart.store", stride).array(split, key)
            )
    store.parent.joinpath("apart.store").rename(store)
    for a, b in zip(stored.get_split_id(), pickled.get_split_id()):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(stored.get_sliced_data(), pickled.get_sliced_data()):
        np.testing.assert_array_equal(a, b)
    poses = pickled.get_sliced_data()[3] + 0.01
    for a, b in zip(evaluate_h36m(poses, stored)[:2], evaluate_h36m(poses, pickled)[:2]):
        assert a == pytest.approx(b, rel=1e-6)


def test_the_index_says_what_is_there(store):
    index = json.loads((store / "index.json").read_text())
    assert index["format"] == "pose-store" and index["version"] == 1
    assert index["cameras"]["54138969"] == [1000, 1002]
    assert index["provenance"]["of"] == NAME and len(index["provenance"]["sha256"]) == 64
    pickled = load_arrays(PARITY / NAME)
    for split, part in index["parts"].items():
        assert part["rows"] == len(pickled[split]["source"])
        sources = part["sources"]
        assert set(sources["source"]) == set(np.asarray(pickled[split]["source"]).tolist())
        assert sources["start"][0] == 0 and sorted(sources["start"]) == sources["start"]
        for key, entry in part["arrays"].items():
            array = np.load(store / entry["file"], mmap_mode="r", allow_pickle=False)
            assert list(array.shape) == entry["shape"] and array.dtype == entry["dtype"]
            np.testing.assert_allclose(array, np.reshape(pickled[split][key], array.shape), rtol=1e-6)
    check_store(store)


def test_the_second_time_there_is_nothing_to_do_and_the_pickle_is_not_needed_any_more(folder, store):
    before = (store / "train.joint_2d.npy").stat().st_ino
    assert convert(folder) == f"{store}: is up to date\n"
    assert (store / "train.joint_2d.npy").stat().st_ino == before
    (folder / NAME).unlink()
    assert read(folder).path == read(folder, "h36m_schema.store").path == store


def test_a_store_of_an_earlier_pickle_is_not_read(folder, store, caplog):
    later = time.time() + 10
    os.utime(folder / NAME, (later, later))
    assert read(folder).path == folder / NAME
    assert "is not made from the present h36m_schema.pkl" in caplog.text
    assert convert(folder) == f"{store}: is up to date\n"  # the same content, so that it is only marked newer
    os.utime(folder / NAME, (later - 100, later - 100))
    assert read(folder).path == store


def test_damage_to_a_store_is_named(folder, store):
    file = store / "train.joint_2d.npy"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    open_store(store)
    error = convert(folder, "--check", code=2)
    assert (
        error
        == f"error: {file}: its content has changed since it was written; remove {store} and convert the data again\n"
    )
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="train.joint_2d.npy: is truncated"):
        read(folder)
    file.unlink()
    with pytest.raises(UserError, match="train.joint_2d.npy: no such file"):
        read(folder)
    index = store / "index.json"
    for text, message in (
        (index.read_text().replace('"version": 1', '"version": 2'), "has version 2, this project reads 1"),
        ("{}", "is not the index of a store"),
        ('{"format": "pose-store", "version": 1, "parts": 3}', "is damaged"),
    ):
        index.write_text(text)
        with pytest.raises(UserError, match=message):
            read(folder)


def unfinished(store):
    return store.with_name(f".{store.name}.unfinished")


def test_a_killed_conversion_goes_on_and_leaves_the_earlier_store_until_it_is_done(folder, store):
    before = content(store)
    dataset = load_arrays(folder / NAME)
    dataset["train"]["joint_2d"] = dataset["train"]["joint_2d"] + 1
    with open(folder / NAME, "wb") as handle:
        pickle.dump(dataset, handle)
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib.data.convert.h36m import convert\n"
        "def kill(items):\n"
        "    for number, item in enumerate(items):\n"
        "        if number == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield item\n"
        "convert(sys.argv[2], progress=kill)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(ROOT), str(folder / NAME)])
    assert killed.returncode == -signal.SIGKILL
    assert content(store) == before
    left = {path.name: path.stat().st_ino for path in unfinished(store).glob("*.npy")}
    assert len(left) == 3
    assert convert(folder) == f"{store}: written\n"
    assert {name: (store / name).stat().st_ino for name in left} == left
    assert content(store)["train.joint_2d.npy"] != before["train.joint_2d.npy"]
    check_store(store)
    assert shown(folder) == [NAME, store.name]


@pytest.mark.weekly
def test_two_conversions_at_once_do_not_meet(folder):
    command = [sys.executable, ROOT / "tools/convert_h36m.py", "--dt-root", folder, "--dt-file", NAME]
    both = [subprocess.Popen(list(map(str, command)), text=True, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    for process, error in zip(both, errors):
        assert process.returncode == 0 or "another process is writing it; wait until that is done" in error, error
    check_store(folder / "h36m_schema.store")
    assert shown(folder) == [NAME, "h36m_schema.store"]


def test_a_store_that_is_being_written_is_left_alone(folder, store):
    with only_one(store):
        with pytest.raises(UserError, match="h36m_schema.store: another process is writing it"):
            with writing(store, {"made_by": MADE_BY, "of": "another"}, {}):
                pass
    check_store(store)


def test_a_store_of_other_data_is_not_replaced(store):
    with pytest.raises(UserError, match="is a store of other data, made by tools/convert_h36m.py"):
        with writing(store, {"made_by": "tools/convert_3dhp.py"}, {}):
            pass
    check_store(store)


def test_without_the_pickle_a_store_is_checked_and_cut_into_clips(folder, store):
    (folder / NAME).unlink()
    assert convert(folder) == f"{store}: is up to date (its pickle is not there)\n"
    assert "every checksum is right" in convert(folder, "--check")
    arguments = ("--clips", "--clips-out", folder / "clips", "--clip-len", 27, "--data-stride", 9)
    assert "clips in train" in convert(folder, *arguments, name=store.name)


def test_a_full_disk_leaves_nothing_half_written(folder, store):
    before = content(store)
    with open(folder / NAME, "ab") as handle:
        handle.write(b"\n")  # another file, so that it is converted again

    def little_space():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    error = convert(folder, code=2, preexec_fn=little_space)
    assert error.splitlines()[-1] == f"error: {store}: cannot be written (File too large)"
    assert content(store) == before
    assert shown(folder) == [NAME, store.name]


def test_a_place_that_cannot_be_written_is_named_once(folder, store):
    for out in (folder / NAME / "made.store", folder / NAME / "clips"):
        options = ("--out", out) if out.suffix else ("--clips", "--clips-out", out)
        error = convert(folder, *options, code=2)
        assert error.splitlines()[-1] == f"error: {out}: cannot be written (File exists: {folder / NAME})"
    with pytest.raises(UserError) as error:
        with atomic_path(folder / "file") as temporary:
            temporary.write_text("")
            (folder / "file").mkdir()
    assert str(error.value) == f"{folder / 'file'}: cannot be written (Is a directory)"


def test_an_input_that_cannot_be_read_while_a_store_is_written_is_named(folder):
    with pytest.raises(UserError, match=r"s.store: cannot be written \(No such file or directory: .*/absent\)$"):
        with writing(folder / "s.store", {"made_by": MADE_BY}, {}):
            open(folder / "absent")


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda d: d["test"]["joint3d_image"].__setitem__((7, 3, 1), np.nan), r"test\['joint3d_image'\] is not finite in frame 7"),
        (lambda d: d["train"]["camera_name"].__setitem__(5, "999"), r"train\['camera_name'\] has '999' in frame 5"),
        (lambda d: d["train"].pop("source"), "'train' lacks 'source'"),
        (lambda d: d["train"].update({key: rows[:0] for key, rows in d["train"].items()}), "'train' has no frames"),
        (lambda d: d["test"]["source"].__setitem__(9, ""), r"test\['source'\] is empty in frame 9"),
        (lambda d: d["train"].update(joint_2d=Trap("/tmp/never-made-by-a-pickle")), "refused: only NumPy arrays"),
        (lambda d: d["train"].update(joint_2d=d["train"]["joint_2d"][:5]), r"train\['joint_2d'\] has shape \(5, 17, 2\)"),
    ],
)  # fmt: skip
def test_bad_data_are_named_and_the_earlier_store_is_untouched(folder, store, damage, message):
    before, dataset = content(store), load_arrays(folder / NAME)
    damage(dataset)
    with open(folder / NAME, "wb") as handle:
        pickle.dump(dataset, handle)
    error = convert(folder, code=2)
    assert re.match(f"error: {folder / NAME}: .*{message}", error) and len(error.splitlines()) == 1
    assert content(store) == before and shown(folder) == [NAME, store.name]
    assert not os.path.exists("/tmp/never-made-by-a-pickle")


def test_keypoints_with_a_third_channel_are_stored_without_it(folder, store):
    before, dataset = content(store), load_arrays(folder / NAME)
    for split in ("train", "test"):
        keypoints = dataset[split]["joint_2d"]
        dataset[split]["joint_2d"] = np.concatenate([keypoints, np.ones_like(keypoints[..., :1])], -1)
    with open(folder / NAME, "wb") as handle:
        pickle.dump(dataset, handle)
    assert "written" in convert(folder)
    assert {**content(store), "index.json": b""} == {**before, "index.json": b""}


def test_a_truncated_pickle_is_named(folder):
    data = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(data[: len(data) // 2])
    assert "is truncated or not a pickle" in convert(folder, code=2)
    error = convert(folder, name="h36m_schemo.pkl", code=2)
    assert "h36m_schemo.pkl: no such file (did you mean" in error
    assert "give --dt-root and --dt-file" in error and "dt_" not in error
    assert shown(folder) == [NAME]


def test_published_clips(folder, store):
    out = folder / "MB3D_f27s9" / "H36M-SH"
    arguments = ("--clips", "--clips-out", out, "--clip-len", 27, "--data-stride", 9)
    said = convert(folder, *arguments)
    reader = read(folder)
    inputs = dict(zip(("train", "test"), reader.get_sliced_data()[:2]))
    labels = dict(zip(("train", "test"), reader.get_sliced_data()[2:]))
    for split in ("train", "test"):
        files = sorted((out / split).iterdir())
        assert [file.name for file in files] == [f"{i:08d}.pkl" for i in range(len(inputs[split]))]
        assert f"{len(files)} clips in {split}" in said
        for number in (0, len(files) - 1):
            clip = load_arrays(files[number])
            np.testing.assert_array_equal(clip["data_input"], inputs[split][number])
            np.testing.assert_array_equal(clip["data_label"], labels[split][number])
    assert "is there already" in convert(folder, *arguments, code=2)


def test_the_folder_of_clips_is_named_for_their_numbers(folder, store):
    out = folder / "MB3D_f27s81" / "H36M-SH"
    assert f"{out}: " in convert(folder, "--clips", "--clip-len", 27)
    assert (out / "train" / "00000000.pkl").is_file() and (out / "test" / "00000000.pkl").is_file()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--clip-len", 27], "--clip-len: only with --clips"),
        (["--data-stride", 9], "--data-stride: only with --clips"),
        (["--clips-out", "clips"], "--clips-out: only with --clips"),
        (["--clips", "--clip-len", 0], "--clip-len: at least 1, not 0"),
    ],
)
def test_wrong_options_of_clips_are_one_line(folder, arguments, message):
    assert convert(folder, *arguments, code=2) == f"error: {message}\n"
    assert shown(folder) == [NAME]


def test_clips_that_are_being_written_are_left_alone(folder, store):
    out = folder / "clips"
    with only_one(out):
        error = convert(folder, "--clips", "--clips-out", out, "--clip-len", 27, "--data-stride", 9, code=2)
    assert f"error: {out}: another process is writing it; wait until that is done" in error
    assert shown(folder) == [NAME, store.name]


def test_threads_do_not_change_the_batches(folder, store):
    reader = read(folder)
    dataset = FrameClips(reader, reader.get_split_id()[0])
    seen = []
    for workers in (0, 1, 4):
        torch.manual_seed(0)
        batches = Loader(dataset, 5, workers=workers)
        epochs = [list(batches), list(batches)]
        assert [len(epoch) for epoch in epochs] == [len(batches)] * 2
        assert not torch.equal(epochs[0][0]["index"], epochs[1][0]["index"])
        seen.append([batch[key] for epoch in epochs for batch in epoch for key in ("keypoints", "pose", "index")])
    for others in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], others, strict=True))


def test_an_abandoned_epoch_leaves_no_thread(folder, store):
    import threading

    reader = read(folder)
    before = threading.active_count()
    for _ in Loader(FrameClips(reader, reader.get_split_id()[0]), 2, workers=4):
        break
    assert threading.active_count() == before


@pytest.mark.parametrize("share", ["abc", "0", "inf"])
def test_a_wrong_number_of_an_option_is_one_line(tmp_path, share):
    command = [sys.executable, ROOT / "tools/make_fake_h36m.py", tmp_path / "a.pkl", "--share", share]
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True)
    assert done.returncode == 2 and done.stderr == "error: argument --share: expected a number above 0; see --help\n"


def test_a_made_up_file_needs_the_name_of_a_file(tmp_path):
    for out in ("", tmp_path):
        command = [sys.executable, ROOT / "tools/make_fake_h36m.py", "--out", out]
        result = subprocess.run(list(map(str, command)), text=True, capture_output=True, cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr == f"error: --out: {str(out)!r} is a folder; give the file to write\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.weekly
def test_a_full_size_file_is_made_and_measured(tmp_path):
    options = "--folder", tmp_path, "--share", 0.02, "--out", tmp_path
    command = [sys.executable, ROOT / "tools/bench/data.py", *options]
    result = subprocess.run(list(map(str, command)), text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "data.json").read_text())
    assert found["rows"] == int(1559752 * 0.02) + int(566920 * 0.02)
    assert 1 < found["store_over_raw"] < 1.1
    assert all(found[key] > 0 for key in ("convert_seconds", "batch_seconds", "scoring_seconds", "resident_bytes"))
