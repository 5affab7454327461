"""Convert a preprocessed Human3.6M pickle to a store of memory-mapped arrays, which is read in its place from then on.

python tools/convert_h36m.py              # data/motion3d/h36m_sh_conf_cam_source_final.{pkl -> store}
python tools/convert_h36m.py --clips      # also the published folder of pickles, one per clip
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from lib.cli import Parser, progress_bar, run
from lib.data.convert.clip_files import write_clip_files
from lib.data.convert.h36m import convert
from lib.data.datasets.h36m import DataReaderH36M
from lib.data.store import INDEX, SUFFIX, check_store
from lib.errors import UserError


def bar(doing, unit):
    return partial(progress_bar, doing=doing, unit=unit)


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dt-root", metavar="DIR", default="data/motion3d", help="default: %(default)s")
    parser.add_argument(
        "--dt-file", metavar="FILE", default="h36m_sh_conf_cam_source_final.pkl", help="default: %(default)s"
    )
    parser.add_argument("--out", metavar="DIR", help="the store's folder (default: beside the pickle, *.store)")
    parser.add_argument("--check", action="store_true", help="compare the store with its checksums")
    parser.add_argument("--clips", action="store_true", help="write the published folder of clips as well")
    parser.add_argument(
        "--clips-out", metavar="DIR", help="their folder (default: DT_ROOT/MB3D_fLENGTHsSTRIDE/H36M-SH)"
    )
    parser.add_argument("--clip-len", type=int, help="frames of a clip (default: 243)")
    parser.add_argument("--data-stride", type=int, help="frames between training clips (default: 81)")
    options = parser.parse()
    _check_clip_options(options)
    source = Path(options.dt_root, options.dt_file)
    store = Path(options.out or source.with_suffix(SUFFIX))
    if source.is_file() or not (store / INDEX).is_file():  # else the pickle was deleted, which is allowed
        store, written = convert(source, store, bar("arrays", "array"))
        print(f"{store}: {'written' if written else 'is up to date'}")
    else:
        print(f"{store}: is up to date (its pickle is not there)")
    if options.check:
        check_store(store, bar("checksums", "file"))
        print(f"{store}: every checksum is right")
    if options.clips:
        frames, stride = options.clip_len or 243, options.data_stride or 81
        folder = options.clips_out or Path(options.dt_root, f"MB3D_f{frames}s{stride}", "H36M-SH")
        reader = DataReaderH36M(frames, 1, stride, frames, dt_root=store.parent, dt_file=store.name)
        counts = write_clip_files(reader, folder, bar("clips", "clip"))
        print(f"{folder}: " + ", ".join(f"{count} clips in {split}" for split, count in counts.items()))


def _check_clip_options(options):
    for name in ("clips_out", "clip_len", "data_stride"):
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is not None and not options.clips:
            raise UserError(f"{option}: only with --clips")
        if isinstance(value, int) and value < 1:
            raise UserError(f"{option}: at least 1, not {value}")


if __name__ == "__main__":
    run(main)
