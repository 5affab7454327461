"""The reader of a config's data set."""

from lib.data.datasets.h36m import DataReaderH36M
from lib.data.datasets.mpi_inf_3dhp import DataReader3DHP
from lib.data.datasets.random_views import ViewReader
from lib.errors import UserError


def _shared(config):
    """Arguments that every reader has."""
    return {
        "n_frames": config.clip_len,
        "data_stride_train": config.data_stride,
        "dt_root": config.dt_root,
        "dt_file": config.dt_file,
        "sample_stride": config.sample_stride,
    }


def _h36m(config):
    return DataReaderH36M(**_shared(config), data_stride_test=config.clip_len)


def _mpi3dhp(config):
    return DataReader3DHP(**_shared(config), middle_frame=config.middle_frame)


def _views(config):
    return ViewReader(config.clip_len, config.data_stride, config.dt_root, config.motion_files, config.held_back)


DATASETS = {"h36m": _h36m, "3dhp": _mpi3dhp, "views": _views}


def open_reader(config):
    """The reader of `config.dataset`: Human3.6M's layout, MPI-INF-3DHP, or motion capture in views drawn anew.

    Raises:
        UserError: the data are missing or damaged, or no test source gives a clip.
    """
    reader = DATASETS[config.dataset](config)
    _, clips = reader.get_split_id()
    if not len(clips):
        raise UserError(f"{reader.path}: no test source gives a clip of {config.clip_len} frames; set clip_len")
    return reader
